"""Measure how far steps on a GPU are from the model in float64, in float32, with TF32, and with fp16 weights.

python benchmarks/cuda_parity.py --hidden 128 --hidden 512
"""

import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from bundles import BRIEF, untrained
from cyclopts import App
from report import Row, Table, output, show

from arraylstm import NextItemModel
from arraylstm_export import Options, export
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.settings import Settings

SESSIONS, STEPS, TOP = 256, 50, 10

app = App(name="parity", help=__doc__, result_action="return_value")


@app.default
def main(
    *, device: Literal["cuda", "cpu"] = "cuda", hidden: tuple[int, ...] = (128, 512), num_items: int = 1000
) -> None:
    """Step every model in every precision."""
    for units in hidden:
        model = untrained(num_items=num_items, hidden_size=units, k=4, embedding_size=64)
        items = np.random.default_rng(0).integers(0, num_items, (STEPS, SESSIONS))
        expected = _in_float64(model, items)
        rows = []
        for name, precision, tf32 in (
            ("float32", "fp32", False),
            ("TF32", "fp32", True),
            ("fp16 weights", "fp16", False),
        ):
            if tf32 and device == "cpu":
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "bundle"
                export(model, path, Options(format=("onnx",), precision=precision, coverage=BRIEF), items.T[:2])
                found = _on_device(path, items, Settings(device=device, tf32=tf32, max_batch=SESSIONS))
            gaps = np.abs(found - expected)
            rows.append(
                Row(name, {}, {"largest": gaps.max() * 1e6, "largest / probability": (gaps / expected).max() * 1e6})
            )
        title = (
            f"Difference from float64 in millionths, H={units} k=4 V={num_items}, {STEPS} steps of {SESSIONS} sessions"
        )
        show(Table(title, rows, [f"of the probabilities of the {TOP} likeliest items"]), output())


@torch.no_grad()
def _in_float64(model: NextItemModel, items: np.ndarray) -> np.ndarray:
    double = untrained(**{n: model.config[n] for n in ("num_items", "hidden_size", "k", "embedding_size")}).double()
    logits, _ = double(torch.from_numpy(items.T.copy()))
    return logits.softmax(-1).topk(TOP).values.transpose(0, 1).numpy()


def _on_device(path: Path, items: np.ndarray, settings: Settings) -> np.ndarray:
    targets = INITIAL + 1 + np.arange(SESSIONS)
    engine = open_engine(Bundle.load(path), settings, INITIAL + 1 + SESSIONS)
    sources = np.full(SESSIONS, INITIAL)
    found = []
    for step in items:
        taken = engine.step(sources, targets, step, [TOP] * SESSIONS)
        found.append([ranking.probabilities for ranking in taken.rankings])
        sources = targets
    return np.array(found)


if __name__ == "__main__":
    app()
