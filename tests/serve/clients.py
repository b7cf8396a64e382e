"""Both clients behind one face, so that each promise is tested of both."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

from arraylstm_serve.client import AsyncClient, BulkEvent, Client, Retries, SessionAnswer

from .bundles import expected_observed, expected_predictions

QUICK = Retries(first=0.001)


class Face:
    """A client, session or stream whose operations are awaited, whichever kind it is."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.target, name)
        if not callable(attribute):
            return attribute
        if name in ("session", "stream"):
            return lambda *values, **options: Face(attribute(*values, **options))
        return awaited(attribute)

    async def __aenter__(self) -> Self:
        enter = getattr(self.target, "__aenter__", None) or awaited(self.target.__enter__)
        await enter()
        return self

    async def __aexit__(self, *error: object) -> None:
        leave = getattr(self.target, "__aexit__", None) or awaited(self.target.__exit__)
        await leave(*error)

    async def __aiter__(self) -> AsyncIterator[Any]:
        if hasattr(self.target, "__aiter__"):
            async for result in self.target:
                yield result
        else:
            for result in await asyncio.to_thread(list, self.target):
                yield result


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be awaited."""
    if inspect.iscoroutinefunction(function):
        return function

    async def call(*values: Any, **options: Any) -> Any:
        return await asyncio.to_thread(function, *values, **options)

    return call


Connect = Callable[..., Face]


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Makes clients of one kind."""
    return lambda url, *values, **options: Face(request.param(url, *values, **{"retries": QUICK, **options}))


def fresh() -> str:
    """A session's name that no other test has."""
    return secrets.token_hex(8)


def event(session_id: str, *items: str | int, **fields: Any) -> BulkEvent:
    """An event of a session."""
    return BulkEvent(list(items), session_id=session_id, **fields)


def check(answer: SessionAnswer, history: list[str | int], sent: int) -> None:
    """That an answer is the reference's after a history, of which the last items were sent."""
    assert answer.step == len(history)
    expected = expected_predictions(history)
    assert [entry.item for entry in answer.predictions] == [item for item, _ in expected]
    assert [entry.probability for entry in answer.predictions] == close([chance for _, chance in expected])
    chances, ranks = zip(*expected_observed(history, sent), strict=True)
    assert [entry.rank for entry in answer.observed] == list(ranks)
    assert [entry.probability for entry in answer.observed] == [chance and close(chance) for chance in chances]


def close(expected: Any) -> Any:
    """What float32 may make of it."""
    return pytest.approx(expected, rel=1e-5, abs=1e-6)
