"""Watch memory while the engine on a GPU steps ten thousand batches of changing sizes, reads rows and writes them.

python benchmarks/cuda_memory.py
"""

import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from bundles import exported, untrained
from cyclopts import App

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

app = App(name="memory", help=__doc__, result_action="return_value")


@app.default
def main(*, batches: int = 10_000, largest: int = 512, hidden: int = 128, num_items: int = 1000) -> None:
    """Print the memory in use as the batches go by."""
    before = used()
    with tempfile.TemporaryDirectory() as folder:
        exported(untrained(num_items=num_items, hidden_size=hidden, k=4, embedding_size=64), Path(folder) / "bundle")
        settings = Settings(device="cuda", max_batch=largest)
        engine = open_engine(Bundle.load(Path(folder) / "bundle"), settings, INITIAL + 1 + 4 * largest)
    engine.warm_up(largest)
    random = np.random.default_rng(0)
    for number in range(batches + 1):
        if number in (0, 100, 1000) or number % (batches // 4) == 0:
            gpu, host = used()
            print(f"batch {number}: GPU +{(gpu - before[0]) / 1e6:.0f} MB, host {host / 1e6:.0f} MB", flush=True)
        rows = int(random.integers(1, largest + 1))
        slots = INITIAL + 1 + random.permutation(4 * largest)[:rows]
        engine.step(slots, slots, random.integers(0, num_items, rows), random.integers(0, 40, rows).tolist())
        if number % 10 == 0:
            engine.write(slots, engine.read(slots))


def used() -> tuple[int, int]:
    """Return the bytes in use on the GPU, and by this process on the host."""
    free, total = torch.cuda.mem_get_info()
    return total - free, psutil.Process().memory_info().rss


if __name__ == "__main__":
    app()
