"""Work in rounds of the event loop: a piece of long work in each, some short work, and clients in turn."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Callable, Iterator
from functools import partial

from arraylstm_serve.fairness import Rounds

LIGHT_BODY = 4096
"""The most bytes of a request that are parsed at once; larger ones take turns."""

LIGHT_ANSWER = 64
"""The most predictions and observations of an answer that is ranked and written at once; longer ones take turns."""

PIECE = 1024
"""About how many predictions are ranked and written in one piece, which takes about a millisecond."""

Pieces = Iterator[None]
"""Work that stops after each piece."""


class HeavyWork:
    """Does the long work of all clients. Between two pieces, everything that is light gets its turn.

    A client's work is done in the order of its arrival, one after the other, so that little is half done at any time.
    """

    def __init__(self) -> None:
        self._waiting: Rounds[tuple[str, Pieces]] = Rounds()
        self._scheduled = False

    def submit(self, client: str, pieces: Pieces) -> None:
        """Do the pieces of some work. They raise nothing."""
        self._waiting.append(client, (client, pieces))
        self._schedule()

    def call(self, client: str, function: Callable[[], object]) -> None:
        """Call a function as one piece of work. It raises nothing."""
        self.submit(client, _calling(function))

    async def turn(self, client: str) -> None:
        """Wait until it is a client's turn to do one piece of work; at once if nobody else does any."""
        if not self._scheduled:
            self._schedule()
            return
        granted: Future[None] = get_running_loop().create_future()
        self.call(client, partial(_grant, granted))
        await granted

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Do one piece, and schedule the next one."""
        self._scheduled = False
        if not self._waiting:
            return
        client, pieces = self._waiting.popleft()
        try:
            next(pieces)
        except StopIteration:
            pass
        else:
            self._waiting.appendleft(client, (client, pieces))
        finally:
            self._schedule()


MOST = 16
"""How many events begin in one round of the event loop."""


class Admission:
    """Lets events begin, some in each round of the event loop, clients in turn.

    So a client that sends many at once does not hold up the others' until all of its own have begun.
    """

    def __init__(self) -> None:
        self._waiting: Rounds[Future[None]] = Rounds()
        self._begun = 0

    async def enter(self, client: str) -> None:
        """Wait until a client's event may begin; not at all if few have begun in this round."""
        if self._begun < MOST and not self._waiting:
            if not self._begun:
                get_running_loop().call_soon(self._next_round)
            self._begun += 1
            return
        granted: Future[None] = get_running_loop().create_future()
        self._waiting.append(client, granted)
        await granted

    def _next_round(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < MOST:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)
                self._begun += 1
        if self._begun:
            get_running_loop().call_soon(self._next_round)


def _grant(granted: Future[None]) -> None:
    """Let whoever waits for a future go on, unless they have given up."""
    if not granted.done():
        granted.set_result(None)


def _calling(function: Callable[[], object]) -> Pieces:
    function()
    return
    yield
