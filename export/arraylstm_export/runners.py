"""One way to run every form of a model: eager, scripted or as a graph, on ragged batches of sequences.

A runner takes items (B, S) int64, lengths (B) int64 and one array (B, *shape) per state, and returns the series, which
are the logits (B, S, V) and the diagnostics, zero from a row's length on, and every row's state after its own length.

What else it may say of itself: `exact_rows`, that its results for a row are the same bits whatever the batch
around it and however its steps are cut into calls; `needs_a_step`, that S must be at least 1.
"""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from arraylstm_export.runtime import onnxruntime, session
from arraylstm_export.signature import METADATA, Interface

Array = npt.NDArray[Any]
Result = tuple[list[Array], list[Array]]


class Runner(Protocol):
    """A form of the model that can be run; see the module."""

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences."""
        ...


class Whole:
    """`unroll_with_diagnostics(items, state)` over all steps at once in the module's own dtype, the rows of each length together.

    This is what lengths mean, stated without them: the definition that the other forms are held to.
    """

    def __init__(self, module: torch.nn.Module, interface: Interface, dtype: torch.dtype = torch.float32) -> None:
        self.module = module
        self.interface = interface
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run the rows of each length together."""
        series: list[Array] = []
        following = [np.zeros(given.shape, _numpy_dtype(self.dtype)) for given in state]
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            given = [torch.from_numpy(tensor[rows]).to(self.dtype) for tensor in state]
            logits, after, diagnostics = self.module.unroll_with_diagnostics(  # type: ignore[operator]
                torch.from_numpy(items[rows, :length]), given
            )
            found = _series(logits, diagnostics, self.interface)
            series = series or [np.zeros((*items.shape, *t.shape[2:]), _numpy_dtype(self.dtype)) for t in found]
            for whole, part in zip(series, found, strict=True):
                whole[rows, :length] = part.numpy()
            for whole, part in zip(following, after, strict=True):
                whole[rows] = part.numpy()
        return series, following


class Sequences:
    """`unroll_with_diagnostics(items, state, lengths)`, eager or scripted."""

    def __init__(self, module: torch.nn.Module, interface: Interface) -> None:
        self.module = module
        self.interface = interface

    @torch.no_grad()
    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences in one call."""
        logits, after, diagnostics = self.module.unroll_with_diagnostics(  # type: ignore[operator]
            torch.from_numpy(items), _tensors(state), torch.from_numpy(lengths)
        )
        return _arrays(_series(logits, diagnostics, self.interface)), _arrays(after)


class _Stepwise:
    """Runs one step at a time and freezes finished rows, as a client of a step graph does."""

    def __init__(self, interface: Interface) -> None:
        self.interface = interface

    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row: (B) -> logits (B, V) and diagnostics, next state."""
        raise NotImplementedError

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run the sequences step by step, only the rows that still go on."""
        kept = [np.array(tensor) for tensor in state]
        shapes = [(self.interface.num_items,), *(diagnostic.shape for diagnostic in self.interface.diagnostics)]
        series = [np.zeros((*items.shape, *shape), np.float32) for shape in shapes]
        for t in range(max(lengths)):
            alive = np.flatnonzero(t < lengths)
            found, after = self.step(items[alive, t], [tensor[alive] for tensor in kept])
            for whole, new in zip(series, found, strict=True):
                whole[alive, t] = new
            for tensor, new in zip(kept, after, strict=True):
                tensor[alive] = new
        return series, kept


class StepMethod(_Stepwise):
    """`step_with_diagnostics(items, state)`, eager or scripted."""

    def __init__(self, module: torch.nn.Module, interface: Interface) -> None:
        super().__init__(interface)
        self.module = module

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        logits, after, diagnostics = self.module.step_with_diagnostics(  # type: ignore[operator]
            torch.from_numpy(items), _tensors(state)
        )
        return _arrays(_series(logits, diagnostics, self.interface)), _arrays(after)


class ProgramStep(_Stepwise):
    """`model.pt2` in torch."""

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        self.module = torch.export.load(path).module()

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        return _sorted(_arrays(list(self.module(*_tensors([items, *state])))), self.interface)


class StepGraph(_Stepwise):
    """`step.onnx` in onnxruntime on the CPU."""

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        self.session = session(path)
        self.exact_rows = _rows_are_exact(self.session)
        self.inputs = [tensor.name for tensor in interface.step.inputs]

    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        feed = dict(zip(self.inputs, [items, *state], strict=True))
        return _sorted(self.session.run(None, feed), self.interface)


class SequenceGraph:
    """`sequence.onnx` in onnxruntime on the CPU."""

    needs_a_step = True

    def __init__(self, path: Path, interface: Interface) -> None:
        self.interface = interface
        self.session = session(path)
        self.exact_rows = _rows_are_exact(self.session)
        self.inputs = [tensor.name for tensor in interface.sequence.inputs]

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences in one call."""
        feed = dict(zip(self.inputs, [items, lengths, *state], strict=True))
        return _sorted(self.session.run(None, feed), self.interface)


def _rows_are_exact(loaded: onnxruntime.InferenceSession) -> bool:
    """Tell whether onnxruntime rounds each row as it does the row alone: seen on x86-64, of what is not float16."""
    precision = loaded.get_modelmeta().custom_metadata_map.get(f"{METADATA}precision")
    return precision != "fp16" and platform.machine() in ("x86_64", "AMD64")


def _series(logits: torch.Tensor, diagnostics: list[torch.Tensor], interface: Interface) -> list[torch.Tensor]:
    """Return the logits and those diagnostics, all or none, that the interface has."""
    return [logits, *diagnostics[: len(interface.diagnostics)]]


def _tensors(arrays: Sequence[Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _arrays(tensors: list[torch.Tensor]) -> list[Array]:
    return [tensor.numpy() for tensor in tensors]


def _sorted(outputs: list[Array], interface: Interface) -> Result:
    """Return a graph's outputs as series and states."""
    logits, *rest = outputs
    states = len(interface.states)
    return [logits, *rest[states:]], rest[:states]


def _numpy_dtype(dtype: torch.dtype) -> npt.DTypeLike:
    return np.float64 if dtype == torch.float64 else np.float32
