"""The exported model on disk: read it, verify it, and hand it on as plain values."""
