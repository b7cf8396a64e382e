"""A session as one immutable value."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
import uuid
from collections.abc import Callable

import pytest

from arraylstm_serve.api.schemas import encode
from arraylstm_serve.bundle.vocabulary import Vocabulary
from arraylstm_serve.counters import Counters
from arraylstm_serve.sessions.session import RECENT, Answers, Session, session_bytes
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
@pytest.mark.parametrize("own", ["none", "ids", "\u0451\u0451\u0451", "\U0001f6d2", "plain", "a\U0001f6d2"])
def test_a_session_takes_no_more_than_it_counts_for(name: str, own: str) -> None:
    """The bytes that a session counts for cover its value, its places in the table, and ids and labels of its own."""
    labels: list[str | int] = [f"label {number}" for number in range(RECENT)]
    unlabelled, listed = own == "ids", own in ("none", "ids")
    vocabulary = Vocabulary(RECENT, None if unlabelled else labels, None if listed else labels[0])
    counters = Counters()
    tracemalloc.start()
    try:
        bounds = {"max_sessions": SESSIONS, "ttl": 60.0, "max_answer_bytes": 10**9}
        table = Table(counters, lambda: 1e9, lambda session: None, {}, **bounds)
        for number in range(SESSIONS):
            session = Session(name.format(number))
            recent = [10_000 + one for one in range(RECENT)] if unlabelled else labels
            if not listed:
                recent = [own * (1 + one // 8) + str(number) for one in range(RECENT)]
            after = session.advanced(number + 1000, "model", recent, 1.7e9 + number, "10.0.0.1")
            table.commit(after if listed else after.with_recent(vocabulary.bounded(after.recent)))
            encode(after.recent)  # Python may keep a text in UTF-8 too from now on
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    most = SESSIONS * session_bytes(vocabulary)
    assert most / 4 < taken <= most


def test_no_two_values_have_one_incarnation_and_version() -> None:
    """Whatever happens to a session makes a value of its own, so that a late writer finds that it is late."""
    rng = random.Random(0)
    changes: list[Callable[[Session, float], Session]] = [
        lambda session, now: session.advanced(3, "model", ["a"], now, "me"),
        lambda session, now: session.given(4, "model", 5, ["b"], now, "me"),
        lambda session, now: session.at_end(now).remembering("k", b"", b"%d" % now),
        lambda session, now: session.forgotten(now),
    ]
    session, seen = Session("u"), set()
    for now in range(500):
        session = rng.choice(changes if session.begun else changes[:2])(session, now)
        assert (session.incarnation, session.version) not in seen
        seen.add((session.incarnation, session.version))
    assert len({incarnation for incarnation, _ in seen}) > 100
