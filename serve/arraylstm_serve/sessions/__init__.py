"""Sessions: what a session is, whose turn it is, and what can be asked of it. Nothing here knows HTTP."""
