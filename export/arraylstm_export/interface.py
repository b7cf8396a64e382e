"""The inputs and outputs of a model's graphs, stated once: for graphs, parity checks, test vectors and the manifest."""

from dataclasses import dataclass

from arraylstm import ItemModel

Dim = int | str
METADATA = "arraylstm."
"""The prefix of our keys in a graph's metadata."""


@dataclass(frozen=True)
class TensorSpec:
    """The name, type and shape of a graph's input or output; a named dimension (B, S) is dynamic."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class State:
    """One recurrent state tensor: its name, and the shape of one row of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    initial: str = "zeros"

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
        states = zip(model.state_names, map(tuple, model.state_shapes), strict=True)
        diagnostics = zip(model.diagnostic_names, map(tuple, model.diagnostic_shapes), strict=True)
        return cls(
            model.num_items,
            tuple(State(*row) for row in states),
            tuple(Diagnostic(*row) for row in diagnostics) if with_diagnostics else (),
        )

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
