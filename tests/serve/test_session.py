"""A session as one immutable value."""

from __future__ import annotations

import hashlib
import tracemalloc
import uuid

import pytest

from arraylstm_serve.counters import Counters
from arraylstm_serve.sessions.session import RECENT, SESSION_BYTES, Answers, Session
from arraylstm_serve.sessions.table import Table

SESSIONS = 1000


@pytest.mark.parametrize("keys", [1, 16])
def test_a_remembered_answer_counts_for_what_it_takes(keys: int) -> None:
    """The bytes counted for answers cover the memory that the answers take, however small they are."""
    tracemalloc.start()
    try:
        held = {number: Answers() for number in range(SESSIONS)}
        for number in held:
            for _ in range(keys):
                digest = hashlib.sha256(uuid.uuid4().bytes).digest()
                held[number] = held[number].remember(str(uuid.uuid4()), digest, b"")
        counted = sum(answers.nbytes for answers in held.values())
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted / 3 < taken <= counted


@pytest.mark.parametrize("name", ["s{}", "n" * 60 + "/" + "x" * 120 + "{:08}"])
def test_a_session_takes_no_more_than_it_counts_for(name: str) -> None:
    """The bytes counted for a session cover its value and its entries in the table, without answers and labels."""
    labels = [f"label {number}" for number in range(RECENT)]
    counters = Counters()
    tracemalloc.start()
    try:
        bounds = {"max_sessions": SESSIONS, "ttl": 60.0, "max_answer_bytes": 10**9}
        table = Table(counters, lambda: 1e9, lambda session: None, {}, **bounds)
        for number in range(SESSIONS):
            session = Session(name.format(number))
            table.commit(session, session.advanced(number + 1000, "model", labels, 1.7e9 + number))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert SESSIONS * SESSION_BYTES / 4 < taken <= SESSIONS * SESSION_BYTES
