"""Answers read from a raw connection one after the other, as a client that pipelines reads them."""

from __future__ import annotations

import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from ...servers import ServerProcess

CLOSE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass
class Answer:
    """An answer to one request."""

    status: int
    head: bytes
    body: bytes


def split(received: bytes) -> list[Answer]:
    """Every answer in what came; each has a Content-Length or no body."""
    answers = []
    while received:
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        size = int(lengths[0].split(b":")[1]) if lengths else 0
        answers.append(Answer(int(head[9:12]), head, rest[:size]))
        received = rest[size:]
    return answers


def exchange(server: ServerProcess, *pieces: bytes) -> list[Answer]:
    """What a connection answers to these pieces until the server hangs up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        return split(b"".join(iter(lambda: client.recv(65_536), b"")))


def memory(server: ServerProcess) -> int:
    """Bytes of a server's memory that are in use."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()
