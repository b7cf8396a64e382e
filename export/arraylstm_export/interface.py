"""The inputs and outputs of a model's graphs, stated once: for graphs, parity checks, test vectors and the manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from arraylstm import ItemModel
from arraylstm_export.arrays import Array
from arraylstm_export.errors import ExportError

Dim = int | str
METADATA = "arraylstm."
"""The prefix of our keys in a graph's metadata."""
ZEROS = "zeros"
"""What the manifest says of a state that starts from zeros; of another one it has the numbers."""


@dataclass(frozen=True)
class TensorSpec:
    """The name, type and shape of a graph's input or output; a named dimension (B, S) is dynamic."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class State:
    """One recurrent state tensor: its name, the shape of one row of it, and what every session starts from.

    Raises:
        ExportError: `initial` is neither `ZEROS` nor as many finite float32 numbers as a row has.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    initial: str | tuple[float, ...] = ZEROS
    """`ZEROS`, or the numbers of one row, the last axis first to move."""

    def __post_init__(self) -> None:
        """Refuse a start that is not one."""
        if isinstance(self.initial, str):
            if self.initial != ZEROS:
                raise ExportError(f"state {self.name} starts from {self.initial!r}; {ZEROS!r} or numbers are known")
        elif len(self.initial) != prod(self.shape):
            raise ExportError(
                f"state {self.name} starts from {len(self.initial)} numbers; {list(self.shape)} has {prod(self.shape)}"
            )
        elif not np.isfinite(_as_float32(self.initial)).all():
            raise ExportError(f"state {self.name} starts from a number that is not finite in float32")

    def start(self, batch: int) -> Array:
        """Return what sessions start from, for each row of a batch: (B, *shape)."""
        row = np.zeros(self.shape) if isinstance(self.initial, str) else np.reshape(self.initial, self.shape)
        return np.broadcast_to(row.astype(self.dtype), (batch, *self.shape)).copy()

    @property
    def input(self) -> TensorSpec:
        """The graph input that takes the state."""
        return TensorSpec(f"state_{self.name}", self.dtype, ("B", *self.shape))

    @property
    def output(self) -> TensorSpec:
        """The graph output that returns the next state."""
        return TensorSpec(f"next_state_{self.name}", self.dtype, ("B", *self.shape))


@dataclass(frozen=True)
class Signature:
    """A graph's inputs and outputs in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Diagnostic:
    """An extra output of the graphs, which shows what a cell did: its name, and the shape of one row of it."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """What a model's graphs take and return: logits for so many items, states, and any diagnostics."""

    num_items: int
    states: tuple[State, ...]
    diagnostics: tuple[Diagnostic, ...] = ()

    @classmethod
    def of(cls, model: ItemModel, with_diagnostics: bool = False) -> "Interface":
        """Return the model's interface, with its states in the order in which its `step` takes them."""
        states = zip(model.state_names, map(tuple, model.state_shapes), model.initial_state(1), strict=True)
        diagnostics = zip(model.diagnostic_names, map(tuple, model.diagnostic_shapes), strict=True)
        return cls(
            model.num_items,
            tuple(State(name, shape, initial=_initial(start.detach().cpu().numpy())) for name, shape, start in states),
            tuple(Diagnostic(*row) for row in diagnostics) if with_diagnostics else (),
        )

    @property
    def starts_from_zeros(self) -> bool:
        """Whether all states of a session are zeros at first."""
        return all(state.initial == ZEROS for state in self.states)

    def start(self, batch: int) -> list[Array]:
        """Return what sessions start from: an array (B, *shape) per state."""
        return [state.start(batch) for state in self.states]

    @property
    def step(self) -> Signature:
        """The signature of the loop-free graph: one item per row."""
        return self._signature((TensorSpec("items", "int64", ("B",)),), ("B",))

    @property
    def sequence(self) -> Signature:
        """The signature of the Scan graph: sequences with a length per row."""
        lead = ("B", "S")
        return self._signature((TensorSpec("items", "int64", lead), TensorSpec("lengths", "int64", ("B",))), lead)

    @property
    def series(self) -> tuple[TensorSpec, ...]:
        """The outputs that a sequence has once per step, logits and diagnostics, as the step graph declares them."""
        states = {state.output for state in self.states}
        return tuple(tensor for tensor in self.step.outputs if tensor not in states)

    @property
    def tensor_names(self) -> list[str]:
        """The names of all outputs that are compared: the series, then the states."""
        return [*(tensor.name for tensor in self.series), *(state.output.name for state in self.states)]

    def _signature(self, inputs: tuple[TensorSpec, ...], lead: tuple[Dim, ...]) -> Signature:
        logits = TensorSpec("logits", "float32", (*lead, self.num_items))
        diagnostics = (
            TensorSpec(diagnostic.name, "float32", (*lead, *diagnostic.shape)) for diagnostic in self.diagnostics
        )
        return Signature(
            (*inputs, *(state.input for state in self.states)),
            (logits, *(state.output for state in self.states), *diagnostics),
        )


def _initial(start: Array) -> str | tuple[float, ...]:
    """Return what the manifest says of the state (1, *shape) that sessions start from."""
    return tuple(_as_float32(start).ravel().tolist()) if start.any() else ZEROS


def _as_float32(numbers: Array | Sequence[float]) -> Array:
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return np.asarray(numbers).astype(np.float32)
