"""One way to run every form of a model: eager, scripted or as a graph, on ragged batches of sequences.

A runner takes items (B, S) int64, lengths (B) int64 and one array (B, *shape) per state, and returns the logits
(B, S, V), zero from a row's length on, and every row's state after its own length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from arraylstm_export.runtime import onnxruntime
from arraylstm_export.signature import State

Array = npt.NDArray[Any]
Result = tuple[Array, list[Array]]


class Runner(Protocol):
    """A form of the model that can be run; see the module."""

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences."""
        ...


class Whole:
    """`module.forward(items, state)` over all steps at once: eager or scripted, in the module's own dtype."""

    def __init__(self, module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
        self.module = module
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run the rows of each length together, since the modules take no lengths."""
        logits: Array | None = None
        following = [np.zeros(given.shape, _numpy_dtype(self.dtype)) for given in state]
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            given = [torch.from_numpy(tensor[rows]).to(self.dtype) for tensor in state]
            scores, after = self.module(torch.from_numpy(items[rows, :length]), given)
            if logits is None:
                logits = np.zeros((*items.shape, scores.shape[-1]), _numpy_dtype(self.dtype))
            logits[rows, :length] = scores.numpy()
            for kept, tensor in zip(following, after, strict=True):
                kept[rows] = tensor.numpy()
        assert logits is not None  # there is at least one row
        return logits, following


class _Stepwise:
    """Runs one step at a time and freezes finished rows, as a client of a step graph does."""

    num_items: int

    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row: (B) -> logits (B, V), next state."""
        raise NotImplementedError

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run the sequences step by step, only the rows that still go on."""
        kept = [np.array(tensor) for tensor in state]
        logits = np.zeros((*items.shape, self.num_items), np.float32)
        for t in range(max(lengths)):
            alive = np.flatnonzero(t < lengths)
            logits[alive, t], after = self.step(items[alive, t], [tensor[alive] for tensor in kept])
            for tensor, new in zip(kept, after, strict=True):
                tensor[alive] = new
        return logits, kept


class StepMethod(_Stepwise):
    """`module.step(items, state)`, eager or scripted."""

    def __init__(self, module: torch.nn.Module, num_items: int) -> None:
        self.module = module
        self.num_items = num_items

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        given = [torch.from_numpy(np.ascontiguousarray(tensor)) for tensor in state]
        logits, after = self.module.step(torch.from_numpy(items), given)  # type: ignore[operator]
        return logits.numpy(), [tensor.numpy() for tensor in after]


class StepGraph(_Stepwise):
    """`step.onnx` in onnxruntime on the CPU."""

    def __init__(self, path: Path, states: list[State], num_items: int) -> None:
        self.session = _session(path)
        self.num_items = num_items
        self.inputs = ["items", *(state.input.name for state in states)]

    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        logits, *following = self.session.run(None, dict(zip(self.inputs, [items, *state], strict=True)))
        return logits, following


class SequenceGraph:
    """`sequence.onnx` in onnxruntime on the CPU."""

    def __init__(self, path: Path, states: list[State]) -> None:
        self.session = _session(path)
        self.inputs = ["items", "lengths", *(state.input.name for state in states)]

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences in one call."""
        logits, *following = self.session.run(None, dict(zip(self.inputs, [items, lengths, *state], strict=True)))
        return logits, following


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # spinning pools of several sessions and torch starve each other
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _numpy_dtype(dtype: torch.dtype) -> npt.DTypeLike:
    return np.float64 if dtype == torch.float64 else np.float32
