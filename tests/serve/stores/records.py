"""Small records for the tests of stores."""

from __future__ import annotations

import numpy as np

from arraylstm_serve.stores.base import Change
from arraylstm_serve.stores.record import Record, Stamp, decode, encode, new_write


def first(key: str, step: int = 1) -> Record:
    """Return the first record of a new session."""
    return Record(
        key=key,
        incarnation=new_write(),
        version=1,
        writes=(new_write(),),
        model="m",
        step=step,
        tensors={"logits": np.arange(5, dtype=np.float32)},
        recent=("a", "b"),
    )


def following(record: Record, step: int | None = None) -> Record:
    """Return the record after one more write."""
    return Record(
        key=record.key,
        incarnation=record.incarnation,
        version=record.version + 1,
        writes=(new_write(), *record.writes[:15]),
        model="m",
        step=record.step + 1 if step is None else step,
    )


def change(after: Record, before: Record | None = None) -> Change:
    """Return the change from one record to another."""
    return Change(after.key, before.stamp if before else None, encode(after))


def removal(before: Record) -> Change:
    """Return the change that removes a record."""
    return Change(before.key, before.stamp, None)


def step_of(key: str, loaded: object) -> int | None:
    """Return the step of what a store loaded, None if it has no record."""
    assert loaded is None or isinstance(loaded, bytes), loaded
    return None if loaded is None else decode(key, loaded).step


NEVER = Stamp(1, 1, 1)
"""A stamp that no record has."""
