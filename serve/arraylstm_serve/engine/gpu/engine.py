"""The engine that keeps its rows in a device's memory and steps them there; `graphs` explains what a row is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import LOGITS, Step, initial_row, row_shapes
from arraylstm_serve.engine.gpu.binding import BoundGraph, Place
from arraylstm_serve.engine.gpu.card import card
from arraylstm_serve.engine.gpu.graphs import Layout, read_graph, step_graph, write_graph
from arraylstm_serve.engine.ranking import NOTHING, Ranking, log_sum_exp, probability, rank_each
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.engine.step_graph import CUDA, batch_faults, batch_sizes
from arraylstm_serve.errors import StartupError
from arraylstm_serve.settings import Settings
from arraylstm_serve.text import shortened

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-4
"""The tolerance of the check at the start. That check finds mixed-up rows, not rounding errors."""


class DeviceEngine:
    """An engine that keeps its rows in a device's memory; see `Engine`.

    A step sends slots and items to the device, and gets the most likely items back. Every batch is filled up to one of
    a few fixed sizes with scratch rows, which belong to no session.

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
        self._layout = Layout(tuple(states), len(bundle.vocabulary))
        self.shapes = row_shapes(states, self._layout.num_items)
        self._sizes = batch_sizes(max_batch)
        self._scratch = slots + np.arange(max_batch)
        self._probed = slots + max_batch + np.arange(2 * max_batch)
        with device_faults(place):
            self._rows = place.empty((slots + 3 * max_batch, self._layout.width), np.float32)
            self._read, self._write = (
                BoundGraph(make(self._layout.width), self._rows, place, self._sizes)
                for make in (read_graph, write_graph)
            )
            self._step = self._open_step(bundle, place.bounded(gpu_memory), threads)
            self._check_rows_written()
            self.write(np.array([INITIAL]), initial_row(states, self._layout.num_items))
        self.provider = self._step.provider
        self.device = f"{place.name}, CUDA graphs {'on' if self._step.captured else 'off'}"

    def _open_step(self, bundle: Bundle, place: Place, threads: int) -> BoundGraph:
        """Open the step graph, and capture it for every batch size if onnxruntime can do that."""
        model = step_graph(onnx.load(bundle.step_path, load_external_data=False), self._layout)
        folder = str(bundle.step_path.parent)

        def opened(capture: bool) -> BoundGraph:
            return BoundGraph(model, self._rows, place, self._sizes, threads=threads, capture=capture, folder=folder)

        if place.kind == "cpu":
            return opened(capture=False)
        try:
            step = opened(capture=True)
            for size in self._sizes:  # capturing runs the graph several times, so it gets scratch rows
                scratch = self._scratch[:size]
                step.run(self._feed(scratch, scratch, np.zeros(size, np.int64)))
        except Exception as error:  # whatever the reason, the graph may still run without being captured
            logger.warning("onnxruntime cannot capture the step graph as a CUDA graph: %s", error)
            return opened(capture=False)
        return step

    def step(self, sources: Integers, targets: Integers, items: Integers, depths: Sequence[int]) -> Step:
        """See `Engine.step`."""
        rows = len(items)
        scores, places = (output[:rows] for output in self._step.run(self._feed(sources, targets, items)))
        log_sums, values, log_sums_before, tops = np.split(scores.astype(np.float64), [1, 2, 3], axis=1)
        finite = np.isfinite(log_sums[:, 0])
        probabilities = probability(tops, log_sums).tolist()
        rankings = [
            Ranking(ids[:depth], likely[:depth]) if depth and fine else NOTHING
            for ids, likely, depth, fine in zip(
                places[:, 1:].tolist(), probabilities, depths, finite.tolist(), strict=True
            )
        ]
        wide = np.flatnonzero(finite & (np.array(depths) > self._layout.top)).tolist()
        if wide:
            for row, ranking in zip(wide, self._rank(targets[wide], [depths[row] for row in wide]), strict=True):
                rankings[row] = ranking
        return Step(probability(values, log_sums_before)[:, 0], places[:, 0], finite, rankings)

    def rank(self, slots: Integers, depth: int) -> list[Ranking]:
        """See `Engine.rank`."""
        return self._rank(slots, [depth] * len(slots))

    def _rank(self, slots: Integers, depths: Sequence[int]) -> list[Ranking]:
        rows = self._read_rows(slots)
        logits = rows[:, -1 - self._layout.num_items : -1]
        return rank_each(logits, rows[:, -1].astype(np.float64), depths)

    def read(self, slots: Integers) -> dict[str, Floats]:
        """See `Engine.read`."""
        parts = np.split(self._read_rows(slots), np.cumsum(self._layout.sizes)[:-1], axis=1)
        return {
            name: part.reshape(len(slots), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=False)  # the last one is the log-sum-exp
        }

    def write(self, slots: Integers, tensors: dict[str, Floats]) -> None:
        """See `Engine.write`."""
        log_sums = log_sum_exp(tensors[LOGITS]).astype(np.float32)
        flat = [tensors[name].reshape(len(slots), -1) for name in self.shapes]
        self._write_rows(slots, np.concatenate([*flat, log_sums[:, None]], axis=1))

    def warm_up(self, max_batch: int) -> None:
        """See `Engine.warm_up`."""
        for size in batch_sizes(max_batch):
            scratch = self._scratch[:size]
            with batch_faults(size, max_batch):
                self._step.run(self._feed(scratch, scratch, np.zeros(size, np.int64)))
                (values,) = self._read.run(scratch[None])
                self._write.run(scratch[None], values)

    def _read_rows(self, slots: Integers) -> Floats:
        rows = np.empty((len(slots), self._layout.width), np.float32)
        for part in self._parts(len(slots)):
            (values,) = self._read.run(self._filled(slots[part])[None])
            rows[part] = values[: len(slots[part])]
        return rows

    def _write_rows(self, slots: Integers, rows: Floats) -> None:
        for part in self._parts(len(slots)):
            filled = self._filled(slots[part])
            values = np.zeros((len(filled), self._layout.width), np.float32)
            values[: len(slots[part])] = rows[part]
            self._write.run(filled[None], values)

    def _parts(self, count: int) -> Iterator[slice]:
        """Return slices of the largest batch size that together cover `count` rows."""
        return (slice(start, start + self._sizes[-1]) for start in range(0, count, self._sizes[-1]))

    def _feed(self, sources: Integers, targets: Integers, items: Integers) -> Integers:
        """Return a step's input, filled up to a batch size with scratch rows, which are stepped in place."""
        feed = np.zeros((3, self._size(len(items))), np.int64)
        feed[0], feed[1], feed[2, : len(items)] = self._filled(sources), self._filled(targets), items
        return feed

    def _filled(self, slots: Integers) -> Integers:
        """Return the slots, filled up to a batch size with scratch rows."""
        return np.concatenate([slots, self._scratch[: self._size(len(slots)) - len(slots)]])

    def _size(self, rows: int) -> int:
        """Return the smallest batch size that has room for so many rows."""
        return next(size for size in self._sizes if size >= rows)

    def _check_rows_written(self) -> None:
        """Check that a step of every batch size writes the right numbers to its targets, and changes no other row.

        Half of the rows are stepped in place. This is checked because onnxruntime's documentation does not promise that
        a graph may write to the matrix that it reads.

        Raises:
            StartupError: another row changed, or a target differs from the result of the same step on a copy of the
                rows.
        """
        before = np.random.default_rng(0).normal(size=(len(self._probed), self._layout.width)).astype(np.float32)
        for size in self._sizes:
            self._write_rows(self._probed, before)
            sources = np.arange(size)
            targets = np.where(sources % 2, sources, size + sources)
            items = sources % self._layout.num_items
            expected, *_ = self._step.run_apart(before, np.stack([sources, targets, items]))
            self._step.run(self._feed(self._probed[sources], self._probed[targets], items))
            if not np.allclose(
                self._read_rows(self._probed), expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True
            ):
                raise StartupError(f"onnxruntime does not step {size} sessions in place; use --device cpu.")


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
