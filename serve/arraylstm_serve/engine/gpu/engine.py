"""The engine that keeps its rows in a device's memory and steps them there; `graphs` explains what a row is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from arraylstm_serve.arrays import Doubles, Floats, Integers
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import LOGITS, Step, initial_row, row_shapes
from arraylstm_serve.engine.gpu.binding import NEXT, BoundGraph, Outputs
from arraylstm_serve.engine.gpu.driver import card
from arraylstm_serve.engine.gpu.graphs import Layout, rank_graph, read_graph, step_graph, write_graph
from arraylstm_serve.engine.gpu.memory import Place
from arraylstm_serve.engine.gpu.selfcheck import TOLERANCE, step_right
from arraylstm_serve.engine.ranking import Ranking, log_sum_exp, probability, rank_each
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.engine.step_graph import CUDA, batch_faults, batch_sizes
from arraylstm_serve.errors import StartupError
from arraylstm_serve.settings import Settings
from arraylstm_serve.text import shortened

logger = logging.getLogger(__name__)

CAPTURE = True
"""Whether to let onnxruntime capture the step graph as CUDA graphs; benchmarks measure both ways."""

_NORMALISED = np.zeros(1)
"""The log-sum-exp of log-probabilities."""

_LARGEST = 2**31 - 1
"""The most numbers in a matrix: onnxruntime's ScatterElements counts them in 32 bits."""


class DeviceEngine:
    """An engine that keeps its rows in a device's memory; see `Engine`.

    A step sends slots and items to the device, and gets the most likely items back. Every batch is filled up to one of
    a few fixed sizes with scratch rows, which belong to no session. All calls must come from the thread that made the
    engine: onnxruntime keeps captured graphs for each thread, and another thread would capture on rows in use.

    Args:
        bundle: the model.
        place: the device.
        slots: how many rows to keep.
        max_batch: the most rows stepped at once.
        threads: threads that one run may use on the CPU.
        gpu_memory: the most bytes that the step graph may use on the GPU for its weights and between its nodes.

    Raises:
        StartupError: the device cannot hold that many rows, cannot run the graphs, or cannot step rows in place.
    """

    def __init__(
        self,
        bundle: Bundle,
        place: Place,
        slots: int,
        max_batch: int,
        *,
        threads: int = 1,
        gpu_memory: int | None = None,
    ) -> None:
        states = bundle.manifest.states
        self._layout = Layout(tuple(states), len(bundle.vocabulary), bundle.vocabulary.unknown)
        self.shapes = row_shapes(states, self._layout.num_items)
        self._sizes = batch_sizes(max_batch)
        self._scratch = slots + np.arange(max_batch)
        self._probed = slots + max_batch + np.arange(2 * max_batch)
        with device_faults(place):
            count = slots + 3 * max_batch
            self._require_writable(count)
            self._rows = {m.name: place.held((count, m.width), np.float32) for m in self._layout.matrices}
            self._read, self._write, self._rank = (
                BoundGraph(make(self._layout), self._rows, place, self._sizes)
                for make in (read_graph, write_graph, rank_graph)
            )
            self._step = self._open_step(bundle, place.bounded(gpu_memory), threads)
            self._check_rows_written()
            self.write(np.array([INITIAL]), initial_row(states, self._layout.num_items))
        self.provider = self._step.provider
        self.device = f"{place.name}, CUDA graphs {'on' if self._step.captured else 'off'}"

    def _require_writable(self, rows: int) -> None:
        """Raise StartupError if a matrix of so many rows has more numbers than onnxruntime's scatter can count."""
        widest = max(self._layout.matrices, key=lambda matrix: matrix.width)
        if rows * widest.width > _LARGEST:
            raise StartupError(
                f"{rows} rows of {widest.width} numbers ({widest.tensor}) are more than a GPU can write to: at most "
                f"{_LARGEST // widest.width} rows are possible; lower --max-sessions, or use --device cpu."
            )

    def _open_step(self, bundle: Bundle, place: Place, threads: int) -> BoundGraph:
        """Open the step graph, and capture it for every batch size if onnxruntime can do that."""
        model = step_graph(onnx.load(bundle.step_path, load_external_data=False), self._layout)
        folder = str(bundle.step_path.parent)

        def opened(capture: bool) -> BoundGraph:
            return BoundGraph(model, self._rows, place, self._sizes, threads=threads, capture=capture, folder=folder)

        if place.kind == "cpu" or not CAPTURE:
            return opened(capture=False)
        try:
            step = opened(capture=True)
            for size in self._sizes:  # capturing runs the graph several times, so it gets scratch rows
                scratch = self._scratch[:size]
                step.run(self._feeds(scratch, scratch, np.zeros(size, np.int64)), size)
        except Exception as error:  # whatever the reason, the graph may still run without being captured
            logger.warning("onnxruntime cannot capture the step graph as a CUDA graph: %s", error)
            return opened(capture=False)
        return step

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """See `Engine.step`."""
        found = self.advance(sources, targets, items)
        chances = probability(found["tops"], _NORMALISED)
        finite = chances[:, 0] > 0
        rankings = self._rankings(targets, found["top_ids"], chances, np.where(finite, depths, 0).tolist())
        ranks = found["above"][:, 0].astype(np.int64) + 1
        if self._layout.unknown is not None:
            ranks[items == self._layout.unknown] = self._layout.num_items  # see `ranking.observe`
        return Step(probability(found["value"][:, 0], _NORMALISED), ranks, finite, rankings)

    def advance(self, sources: Integers, targets: Integers, items: Integers) -> Outputs:
        """Step B rows as `step` does, and return what the device found, by the names of `graphs.step_graph`."""
        return self._step.run(self._feeds(sources, targets, items), len(items))

    def rank(self, slots: Integers, depth: int) -> list[Ranking]:
        """See `Engine.rank`."""
        rankings: list[Ranking] = []
        for part in self._parts(len(slots)):
            some = slots[part]
            found = self._rank.run({"sources": self._filled(some)}, len(some))
            chances = probability(found["tops"], _NORMALISED)
            rankings += self._rankings(some, found["top_ids"], chances, [depth] * len(some))
        return rankings

    def _rankings(self, slots: Integers, ids: Integers, chances: Doubles, depths: list[int]) -> list[Ranking]:
        """Return a ranking of each slot's `depth` most likely items.

        Args:
            slots: (B,) the rows.
            ids: (B, top) the most likely items, as the device ranked them.
            chances: (B, top) their probabilities.
            depths: (B) how many are wanted; if the device found fewer with a probability, the host ranks that row.
        """
        most = min(max(depths, default=0), self._layout.top)
        rows = zip(ids[:, :most].tolist(), chances[:, :most].tolist(), depths, strict=True)
        rankings, left = [], []
        for row, (best, likely, depth) in enumerate(rows):
            if depth and (depth > most or not likely[depth - 1] > 0):
                left.append(row)
            rankings.append(Ranking(best, likely) if depth == most else Ranking(best[:depth], likely[:depth]))
        if left:
            logits = self.read(slots[left])[LOGITS]
            ranked = rank_each(logits, log_sum_exp(logits), [depths[row] for row in left])
            for row, ranking in zip(left, ranked, strict=True):
                rankings[row] = ranking
        return rankings

    def read(self, slots: Integers) -> dict[str, Floats]:
        """See `Engine.read`."""
        found = self._read_rows(slots)
        return {m.tensor: found[m.name].reshape(len(slots), *m.shape) for m in self._layout.matrices}

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """See `Engine.write`."""
        self._write_rows(slots, {m.name: tensors[m.tensor] for m in self._layout.matrices})

    def warm_up(self, max_batch: int) -> None:
        """See `Engine.warm_up`."""
        for size in batch_sizes(max_batch):
            scratch = self._scratch[:size]
            with batch_faults(size, max_batch):
                self.advance(scratch, scratch, np.zeros(size, np.int64))
                self.rank(scratch, 1)
                self._write_rows(scratch, self._read_rows(scratch))

    def _read_rows(self, slots: Integers) -> dict[str, Floats]:
        """Return the rows (B, width) of each matrix, by its name."""
        rows = {m.name: np.empty((len(slots), m.width), np.float32) for m in self._layout.matrices}
        for part in self._parts(len(slots)):
            found = self._read.run({"sources": self._filled(slots[part])}, len(slots[part]))
            for name, values in rows.items():
                values[part] = found[f"values_{name}"]
        return rows

    def _write_rows(self, slots: Integers, rows: dict[str, Floats]) -> None:
        """Store rows of each matrix, by its name; the first axis is the slots'."""
        for part in self._parts(len(slots)):
            filled = self._filled(slots[part])
            feeds: dict[str, Any] = {"targets": filled[:, None]}
            for m in self._layout.matrices:
                values = np.zeros((len(filled), m.width), np.float32)
                values[: len(slots[part])] = rows[m.name][part].reshape(-1, m.width)
                feeds[f"values_{m.name}"] = values
            self._write.run(feeds, 0)

    def _parts(self, count: int) -> Iterator[slice]:
        """Return slices of the largest batch size that together cover `count` rows."""
        return (slice(start, start + self._sizes[-1]) for start in range(0, count, self._sizes[-1]))

    def _feeds(self, sources: Integers, targets: Integers, items: Integers) -> dict[str, NDArray[Any]]:
        """Return a step's inputs, filled up to a batch size with scratch rows, which are stepped in place."""
        ids = np.zeros(self._size(len(items)), np.int32)
        ids[: len(items)] = items
        return {"sources": self._filled(sources), "targets": self._filled(targets)[:, None], "item_ids": ids}

    def _filled(self, slots: Integers) -> Integers:
        """Return the slots, filled up to a batch size with scratch rows."""
        return np.concatenate([slots, self._scratch[: self._size(len(slots)) - len(slots)]])

    def _size(self, rows: int) -> int:
        """Return the smallest batch size that has room for so many rows."""
        for size in self._sizes:
            if size >= rows:
                return size
        raise ValueError(f"a batch has at most {self._sizes[-1]} rows, got {rows}")

    def _check_rows_written(self) -> None:
        """Check that a step of every batch size writes and reports the right numbers, and changes no other row.

        Half of the rows are stepped in place. This is checked because onnxruntime's documentation does not promise that
        a graph may write to the matrices that it reads.

        Raises:
            StartupError: another row changed, a target differs from the result of the same step on a copy of the rows,
                or what was reported differs from what the host finds in these rows.
        """
        random = np.random.default_rng(0)
        before = {
            m.name: random.normal(size=(len(self._probed), m.width)).astype(np.float32) for m in self._layout.matrices
        }
        for size in self._sizes:
            self._write_rows(self._probed, before)
            sources = np.arange(size)
            targets = np.where(sources % 2, sources, size + sources)
            items = sources % self._layout.num_items
            expected = self._step.run_apart(before, self._feeds(sources, targets, items))
            found = self.advance(self._probed[sources], self._probed[targets], items)
            for name, rows in self._read_rows(self._probed).items():
                if not np.allclose(rows, expected[NEXT + name], rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                    raise StartupError(f"onnxruntime does not step {size} sessions in place; use --device cpu.")
            logits = self._layout.logits.name
            after = expected[NEXT + logits][targets]
            if not step_right(found, before[logits][sources], after, items, self._layout.unknown):
                raise StartupError(f"onnxruntime does not rank {size} sessions' items right; use --device cpu.")


@contextmanager
def device_faults(place: Place) -> Iterator[None]:
    """Turn any error of a device into a StartupError that gives the reason."""
    try:
        yield
    except StartupError:
        raise
    except Exception as error:  # onnxruntime's exception classes share no narrower base
        why = shortened(" ".join(str(error).split()), 400)
        raise StartupError(
            f"{place.name} cannot hold or step that many sessions: {why}; lower --max-sessions or --max-batch, or use "
            "--device cpu."
        ) from error


def open_cuda(bundle: Bundle, settings: Settings, slots: int) -> DeviceEngine:
    """Open a bundle's step graph on the GPU, with memory for `slots` rows.

    Raises:
        StartupError: onnxruntime has no CUDA, or the GPU cannot run the graph or hold that many rows.
    """
    return DeviceEngine(bundle, cuda_place(settings), slots, settings.max_batch, gpu_memory=settings.gpu_memory)


def cuda_place(settings: Settings) -> Place:
    """Return the GPU, with the options that the settings ask for.

    Raises:
        StartupError: onnxruntime has no CUDA, or there is no driver or no GPU.
    """
    if CUDA not in ort.get_available_providers():
        raise StartupError(
            f"--device cuda was asked for but onnxruntime runs on {', '.join(ort.get_available_providers())}; "
            "install onnxruntime-gpu with its CUDA libraries (the extra serve-gpu), or use --device cpu."
        )
    name = card()
    if not name:
        raise StartupError("onnxruntime is built for CUDA, but there is no NVIDIA driver or no GPU; use --device cpu.")
    ort.preload_dlls()
    words = f"{name}, onnxruntime for CUDA {ort.cuda_version}, TF32 {'on' if settings.tf32 else 'off'}"
    return Place("cuda", words, {"use_tf32": str(int(settings.tf32)), "arena_extend_strategy": "kSameAsRequested"})
