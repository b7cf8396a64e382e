"""The proof that every form of a model computes what the model computes."""
