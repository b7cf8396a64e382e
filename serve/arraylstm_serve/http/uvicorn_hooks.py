"""What the HTTP layer uses of uvicorn's own request objects, all in one place."""

from __future__ import annotations

from starlette.types import Receive, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

GOING_DOWN = 1012
"""The close code of a WebSocket whose server stops, once what is under way has been answered."""


REFUSED = "arraylstm.refused"
"""What a request's scope has the status under that the client was told instead of the application's answer."""


def has_gone(receive: Receive) -> bool:
    """Whether the client had gone, or been refused, before it was answered in whole, as far as uvicorn lets know."""
    cycle = getattr(receive, "__self__", None)
    return isinstance(cycle, RequestResponseCycle) and cycle.disconnected


def send_whole(send: Send, head: bytes, body: bytes) -> bool:
    """Answer with status 200 in one write, where uvicorn gives the way and the client is there; else send nothing.

    Args:
        send: what the application was given; middleware that has wrapped it must not be passed by.
        head: lines of headers, each with its end.
        body: not empty.

    Returns:
        Whether the answer is sent.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.flow.write_paused or cycle.disconnected:
        return False
    cycle.response_started = cycle.response_complete = True
    parts = [STATUS_LINE[200]]
    for name, value in cycle.default_headers:
        parts += (name, b": ", value, b"\r\n")
    parts += (head, b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", body)
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True
