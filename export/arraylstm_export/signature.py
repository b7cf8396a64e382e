"""What goes into a graph and what comes out: one statement, for graphs, parity checks, vectors and the manifest."""

from dataclasses import dataclass

from arraylstm import NextItemModel

Dim = int | str


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


def states_of(model: NextItemModel) -> list[State]:
    """Return the model's states in the order its `step` takes them."""
    return [State(name, tuple(shape)) for name, shape in zip(model.state_names, model.state_shapes, strict=True)]


def step_signature(states: list[State], num_items: int) -> Signature:
    """Return the signature of the loop-free graph: one item per row."""
    return Signature(
        (Tensor("items", "int64", ("B",)), *(state.input for state in states)),
        (Tensor("logits", "float32", ("B", num_items)), *(state.output for state in states)),
    )


def sequence_signature(states: list[State], num_items: int) -> Signature:
    """Return the signature of the Scan graph: sequences with a length per row."""
    items, lengths = Tensor("items", "int64", ("B", "S")), Tensor("lengths", "int64", ("B",))
    return Signature(
        (items, lengths, *(state.input for state in states)),
        (Tensor("logits", "float32", ("B", "S", num_items)), *(state.output for state in states)),
    )
