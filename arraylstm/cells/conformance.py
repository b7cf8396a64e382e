"""Checks of a cell's class, run when the registry first constructs it.

Without them a mistake would show later and less clearly: in TorchScript, in the exporter, or in a server's numbers.
They read the class's annotations and run a small cell. That takes some milliseconds, once for each class.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import Parameter, isfunction, signature
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from arraylstm.cells.base import Cell
from arraylstm.errors import one_line

_PROTOCOL = ("project", "step", "step_with_diagnostics")
_INPUT, _HIDDEN, _LANES = 5, 6, 3
_ROWS = 11  # a number that no other size has
_FILLED = {"expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave", "arange"}
_FILLED |= {prefix + name for name in ("zeros", "ones", "full", "empty") for prefix in ("", "new_")}
"""Functions that give their result a size which the caller names."""


class MisfitError(ValueError):
    """A class breaks a rule of the cell protocol."""


@cache
def check_cell(name: str, cell: type[Cell]) -> None:
    """Raise ValueError unless the class keeps the rules of `Cell`; the message names the row of the registry."""
    try:
        _check_class(cell)
        with _undisturbed():
            _check_steps(cell)
            _check_start(cell)
    except ValueError as error:
        raise ValueError(f"cell {name!r} {error}") from error.__cause__


def construct(cell: type[Cell], input_size: int, hidden_size: int, k: int) -> Cell:
    """Construct a cell; k reaches only those that have lanes."""
    lanes = (k,) if cell.has_lanes else ()
    return cell(input_size, hidden_size, *lanes)


# -- the class -------------------------------------------------------------------------------------------------


def _check_class(cell: type[Cell]) -> None:
    if not isinstance(cell, type) or not issubclass(cell, Cell):
        raise MisfitError(f"must be a subclass of arraylstm.Cell, got {cell!r}")
    cell.check_for_models()
    for name in ("state_shapes", "step"):
        if getattr(cell, name) is getattr(Cell, name):
            raise MisfitError(f"has no {name}")
    for method in _scripted_methods(cell):
        for parameter in list(signature(method).parameters.values())[1:]:
            if parameter.annotation is Parameter.empty:
                raise MisfitError(
                    f"has no annotation for {parameter.name} in {method.__qualname__}, "
                    "which a script then takes for a Tensor; annotate every parameter"
                )
    arguments = "input_size, hidden_size and k" if cell.has_lanes else "input_size and hidden_size"
    try:
        signature(cell.__init__).bind(*[None] * (4 if cell.has_lanes else 3))
    except TypeError as error:
        raise MisfitError(
            f"must be constructed from {arguments}, as has_lanes is {cell.has_lanes}: {one_line(error)}"
        ) from None


def _scripted_methods(cell: type[Cell]) -> Iterator[Callable[..., Any]]:
    """Yield the methods that a step runs through, those of `Cell` left out."""
    names = list(_PROTOCOL)
    for name in names:
        method = getattr(cell, name, None)
        if isfunction(method) and method is not getattr(Cell, name, None):
            yield method
            names += [used for used in method.__code__.co_names if used not in names]


# -- its steps -------------------------------------------------------------------------------------------------


def _check_steps(cell_class: type[Cell]) -> None:
    cell = construct(cell_class, _INPUT, _HIDDEN, _LANES).double().eval()
    x = torch.rand(_ROWS, _INPUT, dtype=torch.float64)
    state = [torch.rand(_ROWS, *sizes, dtype=torch.float64) for sizes in cell.state_sizes]
    given, generator = [tensor.clone() for tensor in (x, *state)], torch.get_rng_state()
    try:
        with _BatchWatch():
            results = _step(cell, x, state)
        _check_unwritten((x, *state), given)
        again = _step(cell, x, state)
        alone = _step(cell, x[:1], [tensor[:1] for tensor in state])
        plain, _ = cell.step(cell.project(x), state)
    except MisfitError:
        raise
    except Exception as error:
        raise MisfitError(
            f"fails in a step, in eval() and float64: {type(error).__name__}: {one_line(error)}"
        ) from error
    repeated = all(torch.equal(one, other) for one, other in zip(results, again))
    if not repeated or not torch.equal(generator, torch.get_rng_state()):
        raise MisfitError("draws random numbers in eval(); an answer must follow from the items alone")
    _check_shapes(cell, results)
    if not torch.equal(results[0], plain):
        raise MisfitError("gives one output from step and another from step_with_diagnostics")
    for name, whole, row in zip(_names(cell), results, alone):
        if not torch.allclose(whole[:1], row, rtol=1e-9, atol=1e-9):
            raise MisfitError(f"gives a row another {name} beside other rows than alone; rows must not mix")


def _check_start(cell_class: type[Cell]) -> None:
    """Raise MisfitError unless all rows start alike, always: a bundle tells one state for every session."""
    cell = construct(cell_class, _INPUT, _HIDDEN, _LANES).double().eval()
    like = torch.zeros(1, dtype=torch.float64)
    try:
        start, again = cell.initial_state(_ROWS, like), cell.initial_state(1, like)
    except Exception as error:
        raise MisfitError(f"fails in initial_state: {type(error).__name__}: {one_line(error)}") from error
    if [list(tensor.shape) for tensor in start] != [[_ROWS, *sizes] for sizes in cell.state_sizes]:
        shapes = [list(tensor.shape) for tensor in start]
        raise MisfitError(
            f"must give an initial_state of {[['B', *sizes] for sizes in cell.state_sizes]}, got {shapes}"
        )
    if not all(torch.equal(tensor, row.expand(tensor.shape)) for tensor, row in zip(start, again)):
        raise MisfitError("gives rows or calls another initial_state each; every session must start alike")


def _check_unwritten(tensors: Iterable[Tensor], before: Iterable[Tensor]) -> None:
    if not all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before)):
        raise MisfitError("writes to the input or state that a step is given; make new tensors")


def _step(cell: Cell, x: Tensor, state: list[Tensor]) -> list[Tensor]:
    output, following, diagnostics = cell.step_with_diagnostics(cell.project(x), state)
    return [output, *following, *diagnostics]


def _names(cell: Cell) -> list[str]:
    states = [f"next state {name}" for name in cell.state_names]
    return ["output", *states, *(f"diagnostic {name}" for name in cell.diagnostic_shapes())]


def _check_shapes(cell: Cell, results: list[Tensor]) -> None:
    """Raise MisfitError unless output, next states and diagnostics are as many as named, and shaped and typed so."""
    shapes = [[cell.hidden_size], *cell.state_sizes, *map(list, cell.diagnostic_shapes().values())]
    if len(results) != len(shapes):
        raise MisfitError(f"must give {', '.join(_names(cell))}: {len(shapes)} tensors, got {len(results)}")
    for name, shape, tensor in zip(_names(cell), shapes, results):
        if list(tensor.shape) != [_ROWS, *shape]:
            raise MisfitError(f"must give {name} the shape {['B', *shape]}, got {['B', *tensor.shape[1:]]}")
        if tensor.dtype != torch.float64:
            raise MisfitError(f"gives {name} in {tensor.dtype} where input and weights are torch.float64")


class _BatchWatch(TorchFunctionMode):
    """Refuses calls that fill a tensor up to the batch's size: an exported graph would have to look that size up."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _FILLED and result.dim() and result.size(0) == _ROWS:
            raise MisfitError(
                f"calls {name} for the batch's size in a step; give the tensor one row and let it broadcast"
            )
        return result


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Compute on the CPU, without gradients, and leave the random generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        yield
