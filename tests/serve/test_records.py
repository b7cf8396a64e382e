"""A session as one value."""

from __future__ import annotations

import hashlib
import tracemalloc
import uuid

import pytest

from arraylstm_serve.sessions.session import Answers

SESSIONS = 1000


@pytest.mark.parametrize("keys", [1, 16])
def test_a_remembered_answer_counts_for_what_it_takes(keys: int) -> None:
    """The bytes that answers count for cover the memory that they take, however small they are."""
    tracemalloc.start()
    try:
        held = {number: Answers() for number in range(SESSIONS)}
        counted = sum(
            answers.remember(str(uuid.uuid4()), hashlib.sha256(uuid.uuid4().bytes).digest(), b"")
            for answers in held.values()
            for _ in range(keys)
        )
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counted / 3 < taken <= counted
