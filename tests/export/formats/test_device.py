"""Every cell's step graph in the engine that keeps sessions in a device's memory."""

import numpy as np

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.gpu.engine import DeviceEngine, cuda_place
from arraylstm_serve.engine.gpu.memory import Place
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

from ...devices import Chosen

FIRST = INITIAL + 1
SLOTS, STEPS = FIRST + 9, 20


def test_rows_are_stepped_as_the_hosts_engine_steps_them(exported):
    """Batches of changing sizes, in place and from row to row, give states and logits within 1e-5 of the host's."""
    bundle = Bundle.load(exported[1])
    place = Place("cpu", "CPU", {}) if Chosen.device == "cpu" else cuda_place(Settings())
    engines = [DeviceEngine(bundle, place, SLOTS, 6), open_engine(bundle, Settings(device="cpu"), SLOTS)]
    random = np.random.default_rng(0)
    begun = [INITIAL]
    for _ in range(STEPS):
        targets = FIRST + random.permutation(SLOTS - FIRST)[: random.integers(1, 7)]
        others = [slot for slot in begun if slot not in targets]
        in_place = np.isin(targets, begun) & (random.random(len(targets)) < 0.5)
        sources = np.where(in_place, targets, random.choice(others, len(targets)))
        items = random.integers(0, 7, len(targets))
        for engine in engines:
            engine.step(sources, targets, items, [0] * len(targets))
        begun = sorted({*begun, *targets.tolist()})
    found, expected = (engine.read(np.array(begun)) for engine in engines)
    assert len(begun) == SLOTS
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
