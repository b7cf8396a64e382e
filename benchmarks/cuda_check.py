"""Show that the engine works on a GPU: its card, its steps against the CPU's, with CUDA graphs and without.

    python benchmarks/cuda_check.py

Every line is printed as soon as it is known. The exit status is 0 if all steps agree with the CPU's.
"""

import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime
from bundles import exported, untrained

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.gpu import engine as gpu_engine
from arraylstm_serve.engine.gpu.driver import card
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

NUM_ITEMS, LARGEST, STEPS = 1000, 512, 50
SIZES = {"num_items": NUM_ITEMS, "hidden_size": 128, "k": 4, "embedding_size": 64}


def differences(engine: Engine, host: Engine) -> Iterator[tuple[int, float]]:
    """Step both engines alike; yield batch sizes, and the largest difference of a probability at each."""
    random = np.random.default_rng(0)
    first = INITIAL + 1
    for rows in (1, 2, 3, 8, 37, 64, 300, LARGEST):
        sources, targets = np.full(rows, INITIAL), first + random.permutation(LARGEST)[:rows]
        worst = 0.0
        for _ in range(STEPS):
            items = random.integers(0, NUM_ITEMS, rows)
            one, other = (each.step(sources, targets, items, [10] * rows) for each in (engine, host))
            gaps = [
                np.abs(np.subtract(a.probabilities, b.probabilities)).max()
                for a, b in zip(one.rankings, other.rankings, strict=True)
            ]
            worst = max(worst, *gaps)
            if sources[0] != INITIAL:
                worst = max(worst, float(np.abs(one.probabilities - other.probabilities).max()))
            sources = targets
        yield rows, worst


def main(device: str = "cuda") -> int:
    """Print what is there, then each engine's agreement and the time of its start."""
    logging.basicConfig(level=logging.WARNING)
    print("onnxruntime", onnxruntime.__version__, onnxruntime.get_available_providers())
    print("card:", card() or "none", flush=True)
    agree = True
    with tempfile.TemporaryDirectory() as folder:
        exported(untrained(**SIZES), Path(folder) / "bundle")
        bundle = Bundle.load(Path(folder) / "bundle")
        host = open_engine(bundle, Settings(device="cpu"), INITIAL + 1 + LARGEST)
        for capture in (True, False):
            start = perf_counter()
            if not capture:
                gpu_engine.CAPTURE = False
            engine = open_engine(bundle, Settings(device=device, max_batch=LARGEST), INITIAL + 1 + LARGEST)
            engine.warm_up(LARGEST)
            print(f"{engine.device}: started in {perf_counter() - start:.1f} s", flush=True)
            for rows, worst in differences(engine, host):
                print(f"  B={rows}: largest difference of a probability from the CPU's {worst:.1e}", flush=True)
                agree &= worst <= 1e-5
    print("all agree" if agree else "NOT ALL AGREE")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
