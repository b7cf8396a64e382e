"""What runs the model: rows of recurrent state, the step graph that moves them, batches, rankings."""
