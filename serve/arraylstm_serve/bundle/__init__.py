"""The exported model on disk: read, verified, and handed on as plain values."""
