"""HTTP and WebSocket: requests decoded for the sessions, and their answers sent."""
