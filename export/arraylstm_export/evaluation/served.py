"""The graph that is served, run on many sessions at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arraylstm import Vocabulary
from arraylstm_export.arrays import Array
from arraylstm_export.bundle.manifest import Manifest, read_manifest
from arraylstm_export.errors import ExportError
from arraylstm_export.evaluation.sessions import Batch, Window
from arraylstm_export.formats.onnx import STEP, StepGraph

VOCABULARY = "vocabulary.json"
Chunk = tuple[slice, Tensor, Tensor | None]
"""Some predictions of a window: which, their scores (N, V), and what to take from these for log-probabilities."""


class Served:
    """A bundle's step graph in onnxruntime, as `arraylstm-serve` runs it.

    Args:
        folder: the bundle.

    Raises:
        ExportError: it is no bundle, it was changed, or it has no step graph.
        DataError: its vocabulary cannot be read.
    """

    name = "model"

    def __init__(self, folder: Path) -> None:
        self.manifest: Manifest = read_manifest(folder)
        for change in self.manifest.changes(folder):
            raise ExportError(f"{folder}: {change}")
        if STEP not in self.manifest.graphs:
            raise ExportError(f"{folder}: has no {STEP}, the graph that is served: export it with --format onnx")
        self.interface = self.manifest.interface
        self.vocabulary = _vocabulary(folder, self.interface.num_items)
        self._graph = StepGraph(folder / STEP, self.interface)
        self._state: list[Array] = []
        self._at: tuple[Batch, int] | None = None

    @property
    def num_items(self) -> int:
        """V."""
        return self.interface.num_items

    def chunks(self, batch: Batch, window: Window) -> Iterator[Chunk]:
        """Yield the logits of a batch's predictions, step after step.

        The windows of a batch must come in order, as the sessions go on from where the last one left them.

        Raises:
            ExportError: the model gave scores that are no numbers.
        """
        for step, chosen in window.steps():
            part = window.part(chosen)
            scores = self._advance(batch, step)[part.rows]
            log_sums = torch.from_numpy(scores).double().logsumexp(1)
            if not log_sums.isfinite().all():
                raise ExportError(f"the model gave scores that are not finite after {step + 1} items of a session")
            yield chosen, torch.from_numpy(scores), log_sums

    def _advance(self, batch: Batch, step: int) -> Array:
        """Step the sessions of a batch that are long enough up to this place; return their logits (rows, V)."""
        at = self._at[1] if self._at and self._at[0] is batch else -1
        if at < 0:
            rows = len(batch.sessions)
            self._state = self.interface.start(rows)
        lengths = np.diff([*batch.starts, len(batch.items)])
        logits = np.zeros((0, self.num_items), np.float32)
        for place in range(at + 1, step + 1):
            alive = np.flatnonzero(lengths > place)
            found, following = self._graph.step(
                batch.items[batch.starts[alive] + place], [s[alive] for s in self._state]
            )
            logits = np.empty((len(lengths), self.num_items), np.float32)
            logits[alive] = found[0]
            for tensor, new in zip(self._state, following, strict=True):
                tensor[alive] = new
        self._at = batch, step
        return logits


def _vocabulary(folder: Path, num_items: int) -> Vocabulary:
    labels = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))["labels"]
    return Vocabulary(range(num_items)) if labels is None else Vocabulary.read(folder / VOCABULARY)
