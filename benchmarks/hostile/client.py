"""A client that waits for each answer, and says what was wrong if there was none."""

import re
import socket
import ssl
from collections import Counter
from contextlib import closing, suppress

from hostile.wire import HOST, Target, body_length

_PATIENCE = 10.0  # seconds for the server's own figures
_COUNTED = re.compile(rb'^arraylstm_requests_total\{.*code="(\d+)".*\} (\S+)$', re.MULTILINE)


class FaultError(Exception):
    """The victim did not get the answer that it was promised."""


class Client:
    """A client of HTTP on one connection, which is opened again after it has ended.

    Args:
        target: the server.
        timeout: seconds that connecting, and each piece of an answer, may take.
    """

    def __init__(self, target: Target, timeout: float) -> None:
        self._target, self._context, self._timeout = target, target.context(), timeout
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the status and the body of an answer.

        Raises:
            FaultError: there was none.
        """
        try:
            self._socket = self._socket or self._open()
            self._socket.sendall(request)
            return self._answer(self._socket)
        except (OSError, ValueError) as error:  # ValueError: what came is not HTTP
            self.close()
            kind = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise FaultError(kind) from error

    def _open(self) -> socket.socket:
        plug = socket.create_connection((HOST, self._target.port), timeout=self._timeout)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(plug, server_hostname=HOST) if self._context else plug

    def _answer(self, plug: socket.socket | ssl.SSLSocket) -> tuple[int, bytes]:
        received = _more(plug)
        while b"\r\n\r\n" not in received:
            received += _more(plug)
        head, _, body = received.partition(b"\r\n\r\n")
        length = body_length(head)
        while len(body) < length:
            body += _more(plug)
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket:
            self._socket.close()
        self._socket = None


def _more(plug: socket.socket) -> bytes:
    data = plug.recv(262_144)
    if not data:
        raise ConnectionResetError
    return data


def newcomer_is_answered(target: Target, timeout: float) -> bool:
    """Whether a client that connects now gets 200 on /healthz."""
    client = Client(target, timeout)
    try:
        return client.ask(target.get("/healthz"))[0] == 200
    except FaultError:
        return False
    finally:
        client.close()


def statuses(target: Target) -> Counter[str]:
    """Return how often the server has given an answer of each status so far, as it counts them itself."""
    client = Client(target, _PATIENCE)
    counted: Counter[str] = Counter()
    with suppress(FaultError), closing(client):
        for code, number in _COUNTED.findall(client.ask(target.get("/metrics"))[1]):
            counted[code.decode()] += int(float(number))
    return counted
