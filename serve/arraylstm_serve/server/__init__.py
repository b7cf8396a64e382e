"""One server process: sockets, connections, memory, logs, start and stop."""
