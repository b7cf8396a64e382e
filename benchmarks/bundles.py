"""The model that the serving benchmarks run: exported for the run, or a bundle of yours."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from arraylstm import NextItemModel
from arraylstm_export import Coverage, ExportError, Options, export

_SIZES = {"num_items": 1000, "hidden_size": 128, "k": 4, "embedding_size": 64}
BRIEF = Coverage(batches=(2,), lengths=(2,), ragged=((2, 1),), chunkings=1, horizon=20)
"""What is timed here is proven elsewhere."""


@dataclass(frozen=True)
class Served:
    """A bundle, and the number of its model's items."""

    bundle: Path
    num_items: int

    @property
    def step_graph(self) -> Path:
        """The graph of one step."""
        return self.bundle / "step.onnx"


@contextmanager
def served(bundle: Path | None) -> Iterator[Served]:
    """Yield the bundle that is given, or one of an untrained model that is deleted at the end of the context.

    Raises:
        ValueError: the bundle's items have labels, but the servers that ours is compared with know only ids.
        ExportError: the export failed.
    """
    if bundle is not None:
        yield _opened(bundle.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "bundle"
        exported(untrained(**_SIZES), target)
        yield _opened(target)


def untrained(**sizes: int) -> NextItemModel:
    """Return an array model of these sizes, with the same weights each time."""
    torch.manual_seed(0)
    return NextItemModel("array", **sizes).eval()


def exported(model: NextItemModel, target: Path) -> None:
    """Write a model's bundle; raises ExportError."""
    report = export(model, target, Options(format=("onnx",), coverage=BRIEF))
    if not report.passed:
        raise ExportError(f"the export failed: {report.failure}")


def _opened(bundle: Path) -> Served:
    if json.loads((bundle / "vocabulary.json").read_bytes())["labels"] is not None:
        raise ValueError(f"{bundle} has labels for its items; give one without: the other servers know ids only")
    return Served(bundle, json.loads((bundle / "manifest.json").read_bytes())["model"]["num_items"])
