"""The arena's slots."""

from __future__ import annotations

import tracemalloc

import pytest

from arraylstm_serve.arena import Arena


def test_a_slot_is_held_once_at_a_time() -> None:
    """Every slot is handed out once before it is given back, freed ones first, and not one more."""
    arena = Arena(4, [], 2)
    assert [arena.acquire() for _ in range(3)] == [0, 1, 2]
    arena.release(1)
    assert arena.free == 2
    assert [arena.acquire() for _ in range(2)] == [1, 3]
    with pytest.raises(IndexError, match="every slot is taken"):
        arena.acquire()


def test_unused_slots_take_no_room_beside_the_arrays() -> None:
    """What an arena needs for a million slots is its arrays and next to nothing else."""
    tracemalloc.start()
    try:
        arena = Arena(1_000_000, [], 2)
        assert tracemalloc.get_traced_memory()[1] < arena.nbytes + 100_000
    finally:
        tracemalloc.stop()
