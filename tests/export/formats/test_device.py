"""Every cell's step graph in the engine that keeps sessions in a device's memory."""

import numpy as np

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.gpu.binding import Place
from arraylstm_serve.engine.gpu.engine import DeviceEngine, cuda_place
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.settings import Settings

from ...devices import Chosen

SLOTS, STEPS = 9, 20


def test_rows_are_stepped_as_the_hosts_engine_steps_them(exported):
    """Batches of changing sizes leave states and logits within 1e-5 of those that the CPU's engine has."""
    bundle = Bundle.load(exported[1])
    place = Place("cpu", "CPU", {}) if Chosen.device == "cpu" else cuda_place(Settings())
    engines = [DeviceEngine(bundle, place, SLOTS, 6), open_engine(bundle, Settings(device="cpu"), SLOTS)]
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        slots = random.permutation(SLOTS)[: random.integers(1, 7)]
        items = random.integers(0, 7, len(slots))
        for engine in engines:
            engine.step(slots, items, [0] * len(slots))
    found, expected = (engine.read(np.arange(SLOTS)) for engine in engines)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)
