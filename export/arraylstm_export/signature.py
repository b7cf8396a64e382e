"""What goes into a graph and what comes out: one statement, for graphs, parity checks, vectors and the manifest."""

from dataclasses import dataclass

from arraylstm import ItemModel

Dim = int | str
METADATA = "arraylstm."
"""What the keys of a graph's own metadata begin with."""


@dataclass(frozen=True)
class Tensor:
    """A graph's input or output; a named dimension (B, S) is dynamic."""

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
    def input(self) -> Tensor:
        """The graph input that takes the state."""
        return Tensor(f"state_{self.name}", self.dtype, ("B", *self.shape))

    @property
    def output(self) -> Tensor:
        """The graph output that gives the next state."""
        return Tensor(f"next_state_{self.name}", self.dtype, ("B", *self.shape))


@dataclass(frozen=True)
class Signature:
    """A graph's inputs and outputs in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Diagnostic:
    """What a graph shows beside its scores: its name, and the shape of one row of it."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """What a model's graphs take and give."""

    num_items: int
    states: tuple[State, ...]
    diagnostics: tuple[Diagnostic, ...] = ()

    @classmethod
    def of(cls, model: ItemModel, with_diagnostics: bool = False) -> "Interface":
        """Return the model's interface, its states in the order its `step` takes them; with its diagnostics if wanted."""
        states = zip(model.state_names, map(tuple, model.state_shapes), strict=True)
        diagnostics = (
            zip(model.diagnostic_names, map(tuple, model.diagnostic_shapes), strict=True) if with_diagnostics else ()
        )
        return cls(
            model.num_items, tuple(State(*row) for row in states), tuple(Diagnostic(*row) for row in diagnostics)
        )

    @property
    def step(self) -> Signature:
        """The signature of the loop-free graph: one item per row."""
        return self._signature((Tensor("items", "int64", ("B",)),), ("B",))

    @property
    def sequence(self) -> Signature:
        """The signature of the Scan graph: sequences with a length per row."""
        return self._signature((Tensor("items", "int64", ("B", "S")), Tensor("lengths", "int64", ("B",))), ("B", "S"))

    @property
    def series(self) -> tuple[Tensor, ...]:
        """The step's outputs that a sequence has one of for every step: all but the states."""
        states = {state.output for state in self.states}
        return tuple(tensor for tensor in self.step.outputs if tensor not in states)

    @property
    def tensor_names(self) -> list[str]:
        """What is compared of every form: the series, then the states."""
        return [*(tensor.name for tensor in self.series), *(state.output.name for state in self.states)]

    def _signature(self, inputs: tuple[Tensor, ...], lead: tuple[Dim, ...]) -> Signature:
        logits = Tensor("logits", "float32", (*lead, self.num_items))
        diagnostics = (
            Tensor(diagnostic.name, "float32", (*lead, *diagnostic.shape)) for diagnostic in self.diagnostics
        )
        return Signature(
            (*inputs, *(state.input for state in self.states)),
            (logits, *(state.output for state in self.states), *diagnostics),
        )
