"""Show which kernels one step of the engine runs, and how long each takes.

python benchmarks/cuda_kernels.py --hidden 512 --batch 1 --batch 4096
"""

import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from bundles import exported, untrained
from cyclopts import App
from torch.profiler import ProfilerActivity, profile

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

RUNS = 20

app = App(name="kernels", help=__doc__, result_action="return_value")


@app.default
def main(*, batch: tuple[int, ...] = (1, 64, 4096), hidden: int = 512, k: int = 4, num_items: int = 1000) -> None:
    """Profile steps of every batch size."""
    torch.zeros(1, device="cuda")
    with tempfile.TemporaryDirectory() as folder:
        exported(untrained(num_items=num_items, hidden_size=hidden, k=k, embedding_size=64), Path(folder) / "bundle")
        settings = Settings(device="cuda", max_batch=max(batch))
        engine = open_engine(Bundle.load(Path(folder) / "bundle"), settings, INITIAL + 1 + max(batch))
        engine.warm_up(max(batch))
        for rows in batch:
            show(engine, rows, num_items)


def show(engine: Engine, rows: int, num_items: int) -> None:
    """Print a step's time, and the time of its kernels."""
    targets, items = INITIAL + 1 + np.arange(rows), np.arange(rows) % num_items
    engine.step(np.full(rows, INITIAL), targets, items, [10] * rows)
    start = perf_counter()
    for _ in range(RUNS):
        engine.step(targets, targets, items, [10] * rows)
    whole = (perf_counter() - start) / RUNS
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(RUNS):
            engine.step(targets, targets, items, [10] * rows)
    took, count = Counter[str](), Counter[str]()
    for event in profiled.events():
        took[event.name] += event.device_time_total / RUNS
        count[event.name] += 1
    total = sum(took.values())
    runs = sum(count.values()) / RUNS
    print(f"B={rows}: {whole * 1e6:.0f} us a step, of which kernels {total:.0f} us in {runs:.0f} runs", flush=True)
    for name, time in took.most_common(24):
        print(f"  {time:8.1f} us {count[name] / RUNS:5.1f} x {name[:110]}")


if __name__ == "__main__":
    app()
