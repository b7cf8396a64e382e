"""Stores: where the records of sessions lie, so that sessions survive the server."""
