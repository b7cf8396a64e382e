"""The slots of an engine, and rows that move to another engine."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import row_bytes
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.slots import INITIAL, Slots
from arraylstm_serve.engine.step_graph import StepGraph

from ..devices import same_bits
from .bundles import V
from .harness import make_engine


class NoGraph(StepGraph):
    """A graph that is never run."""

    def __init__(self) -> None:
        self.provider = "none"


def test_a_slot_is_held_once_at_a_time() -> None:
    """Each slot except the initial one is handed out once until it is given back; freed slots are handed out first."""
    slots = Slots(5)
    assert [slots.acquire() for _ in range(3)] == [1, 2, 3]
    slots.release(2)
    assert slots.free == 2
    assert [slots.acquire() for _ in range(2)] == [2, 4]
    with pytest.raises(IndexError, match="every slot is taken"):
        slots.acquire()


def test_the_initial_slot_is_nobodys() -> None:
    """Giving back the initial slot, in which sessions stand that have not begun, makes no slot free."""
    slots = Slots(2)
    slots.release(INITIAL)
    assert slots.free == 1
    assert slots.acquire() != INITIAL


def test_unused_slots_take_no_room_beside_the_arrays() -> None:
    """A million slots need the engine's arrays and next to nothing else."""
    count = 1_000_000
    tracemalloc.start()
    try:
        engine, slots = HostEngine(NoGraph(), count, [], 2), Slots(count)
        assert tracemalloc.get_traced_memory()[1] < count * row_bytes(engine.shapes) + 100_000
    finally:
        tracemalloc.stop()
    assert slots.free == count - 1


@same_bits
@pytest.mark.parametrize("steps", [1, 2, 100])
def test_rows_go_on_in_another_engine_as_they_would_have_here(bundle_path: Path, steps: int) -> None:
    """Rows read from one engine and written to another, a batch at a time, give the same bits afterwards."""
    bundle = Bundle.load(bundle_path)
    here, there = (make_engine(bundle, 8) for _ in range(2))
    sources, mine = np.full(3, INITIAL), np.array([1, 2, 3])
    for items in np.random.default_rng(steps).integers(0, V, (steps, 3)):
        here.step(sources, mine, items, [0] * 3)
        sources = mine
    others = np.array([7, 2, 4])
    there.write(others, here.read(mine))
    for _ in range(2):
        one = here.step(mine, mine, np.arange(3), [1, 2, 2])
        other = there.step(others, others, np.arange(3), [1, 2, 2])
        assert one.probabilities.tolist() == other.probabilities.tolist()
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.rankings == other.rankings
        assert here.rank(mine, V) == there.rank(others, V)
