"""What the HTTP layer knows of uvicorn: entries of a scope, close codes, and an answer in one write."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

GOING_DOWN = 1012
"""The close code of a WebSocket whose server stops, sent after the messages under way are answered."""

KEY_REMOVED = 1008
"""The close code of a WebSocket whose API key is no longer accepted, sent after the messages under way are answered."""

KEY = "arraylstm.key"
"""Where the scope of an accepted WebSocket has its API key; None if none is asked for."""

CYCLE = "arraylstm.cycle"
"""Where a request's scope has uvicorn's object for the request.

That object has the scope in turn, so the Responder takes it out: no reference cycle is left to the garbage collector.
"""

REFUSED = "arraylstm.refused"
"""Where a request's scope has the status of a refusal that the client got in place of the application's answer."""


def send_whole(cycle: RequestResponseCycle, head: bytes, body: bytes) -> bool:
    """Answer with status 200 in one write, or send nothing if the client has gone or reads too slowly.

    Args:
        cycle: uvicorn's object for the request.
        head: the header lines, each with its line end.
        body: not empty.

    Returns:
        Whether the answer is sent.
    """
    if cycle.flow.write_paused or cycle.disconnected:
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
