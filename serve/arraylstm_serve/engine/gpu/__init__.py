"""The engine whose rows lie in a GPU; it needs what the extra `serve-gpu` installs."""
