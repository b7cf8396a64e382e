"""The log: a client cannot fill it."""

from __future__ import annotations

import logging
from contextlib import closing

import pytest

from arraylstm_serve.server import logs

from ...servers import Start
from ..sockets import connect, rest


def test_bad_requests_do_not_fill_the_log(start_server: Start) -> None:
    """Of many requests that are no HTTP the log has one line."""
    server = start_server()
    for _ in range(50):
        with closing(connect(server)) as client:
            client.sendall(b"no http\r\n\r\n")
            assert rest(client)[9:12] == b"400"
    server.process.terminate()
    assert server.process.communicate()[1].count("\n") == 1


def test_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while the same warning is written again, with the number of those between; errors are all written."""
    seldom, now = logs.Seldom(), 0.0
    monkeypatch.setattr(logs, "monotonic", lambda: now)

    def line(level: int) -> str:
        record = logging.LogRecord("uvicorn.error", level, "", 0, "amiss", (), None)
        return record.getMessage() if seldom.filter(record) else ""

    assert [line(logging.WARNING) for _ in range(3)] == ["amiss", "", ""]
    assert [line(logging.ERROR) for _ in range(2)] == ["amiss", "amiss"]
    now = logs.QUIET
    assert [line(logging.WARNING) for _ in range(2)] == ["amiss (2 more since the last such line)", ""]
