"""What a client may do to a connection, and what the server does about it: a file for each kind of attack."""
