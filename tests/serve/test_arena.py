"""The arena's slots, and sessions as records."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.slots import Arena
from arraylstm_serve.engine.step_graph import StepGraph

from ..devices import same_bits
from .bundles import V
from .harness import make_engine


class NoGraph(StepGraph):
    """A graph that is never run."""

    def __init__(self) -> None:
        self.provider = "none"


def bare(slots: int) -> Arena:
    """An arena without states."""
    return Arena(HostEngine(NoGraph(), slots, [], 2), slots)


def test_a_slot_is_held_once_at_a_time() -> None:
    """Every slot is handed out once before it is given back, freed ones first, and not one more."""
    arena = bare(4)
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
        arena = bare(1_000_000)
        assert tracemalloc.get_traced_memory()[1] < arena.nbytes + 100_000
    finally:
        tracemalloc.stop()


@same_bits
@pytest.mark.parametrize("steps", [1, 31, 32, 33, 100])
def test_a_record_goes_on_in_another_arena_as_it_would_have_here(bundle_path: Path, steps: int) -> None:
    """Saved sessions loaded elsewhere, a batch at a time, give the same bits, the same recent items and answers."""
    bundle = Bundle.load(bundle_path)
    here, there = (Arena(make_engine(bundle, 8), 8) for _ in range(2))
    slots = [here.acquire() for _ in range(3)]
    items = np.random.default_rng(steps).integers(0, V, (steps, 3))
    for row in items:
        here.step(slots, row.tolist(), [0] * len(slots))
    records = here.save(slots)
    assert [record.step for record in records] == [steps] * 3
    assert [record.recent.tolist() for record in records] == items[-32:].T.tolist()
    others = [there.acquire() for _ in range(3)][::-1]
    there.load(others, records)
    assert [there.recent(slot).tolist() for slot in others] == items[-32:].T.tolist()
    for _ in range(2):
        assert here.step(slots, [0, 1, 2], [1, 2, 2]) == there.step(others, [0, 1, 2], [1, 2, 2])
        assert here.rank(slots, V) == there.rank(others, V)
    assert here.steps[slots].tolist() == there.steps[others].tolist() == [steps + 2] * 3
