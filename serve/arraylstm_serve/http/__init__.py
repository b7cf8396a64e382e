"""HTTP and WebSocket: decode requests into commands, and send the answers."""
