"""The engine: it keeps rows of recurrent state, steps them with the model's graph in batches, and ranks items."""
