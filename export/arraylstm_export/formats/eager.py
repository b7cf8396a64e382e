"""Modules of torch as forms of the model: the model itself, or what a TorchScript file holds."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.runner import Runner, StepRunner
from arraylstm_export.interface import Interface


class Whole(Runner):
    """`unroll_with_diagnostics(items, state)` in the module's own dtype, separately for the rows of each length.

    This defines what lengths mean, without the model's own treatment of them; other forms are compared with it.
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


class Sequences(Runner):
    """`unroll_with_diagnostics(items, state, lengths)`."""

    def __init__(self, module: torch.nn.Module, interface: Interface) -> None:
        self.module = module
        self.interface = interface

    @torch.no_grad()
    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences in one call."""
        logits, after, diagnostics = self.module.unroll_with_diagnostics(  # type: ignore[operator]
            torch.from_numpy(items), tensors(state), torch.from_numpy(lengths)
        )
        return arrays(_series(logits, diagnostics, self.interface)), arrays(after)


class StepMethod(StepRunner):
    """`step_with_diagnostics(items, state)`."""

    def __init__(self, module: torch.nn.Module, interface: Interface) -> None:
        super().__init__(interface)
        self.module = module

    @torch.no_grad()
    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        logits, after, diagnostics = self.module.step_with_diagnostics(  # type: ignore[operator]
            torch.from_numpy(items), tensors(state)
        )
        return arrays(_series(logits, diagnostics, self.interface)), arrays(after)


def tensors(arrays: Sequence[Array]) -> list[torch.Tensor]:
    """Return arrays as torch's tensors."""
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def arrays(tensors: Sequence[torch.Tensor]) -> list[Array]:
    """Return torch's tensors as arrays."""
    return [tensor.numpy() for tensor in tensors]


def _series(logits: torch.Tensor, diagnostics: list[torch.Tensor], interface: Interface) -> list[torch.Tensor]:
    """Return the logits, and the diagnostics if the interface has them."""
    return [logits, *diagnostics[: len(interface.diagnostics)]]


def _numpy_dtype(dtype: torch.dtype) -> npt.DTypeLike:
    return np.float64 if dtype == torch.float64 else np.float32
