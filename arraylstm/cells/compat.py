"""The interface of array-lstm 0.0.1 around a cell: lane axis first, and documented methods that may be overridden."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import Tensor

from arraylstm.cells.base import Cell
from arraylstm.cells.rows import RowsByLane
from arraylstm.checks import require_input, require_positive


class LanesFirst(RowsByLane, activate_alone_reads_rows=True):
    """Gives a cell of states h (H) and c (k, H) the methods and shapes that array-lstm documents.

    A cell states `project`, `step` and `pool`, batch axis first. Where a subclass overrides the documented
    `forward_cell` or `update_hidden`, its `step` or `pool` becomes a call of that method, so that models, export and
    serving follow the override. What the cell itself states stays callable as `own_project`, `own_step` and `own_pool`;
    the documented methods are these unless overridden.

    Args:
        input_size: I.
        hidden_size: H.
        k: number of lanes.

    Raises:
        ValueError: a size is smaller than 1.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not _same(cls.step, LanesFirst.step_by_forward_cell):
            _alias(cls, own_project="project", own_step="step")
        if not _same(cls.pool, LanesFirst.pool_by_update_hidden):
            _alias(cls, own_pool="pool")
        if cls.forward_cell is not LanesFirst.forward_cell:
            _alias(cls, project="input_itself", step="step_by_forward_cell")
        if cls.update_hidden is not LanesFirst.update_hidden:
            _alias(cls, pool="pool_by_update_hidden")

    def __init__(self, input_size: int, hidden_size: int, k: int) -> None:
        super().__init__(input_size, hidden_size, k)
        require_positive("k", k)

    # -- the documented methods -----------------------------------------------------------------------------

    def forward(  # type: ignore[override]
        self, x: Tensor, hidden: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the layer over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            hidden: (h (1, B, H), c (k, B, H)) to start from, never written to; None starts from `initHidden(x)`.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            outputs (B, S, H), zero from a row's length on, and (h (1, B, H), c (k, B, H)) after its last step.

        Raises:
            ValueError: x, h, c or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.input_size, lengths)
        h, c = self.initHidden(x) if hidden is None else hidden
        if list(h.shape) != [1, x.size(0), self.hidden_size]:
            raise ValueError(f"hidden must be {[1, x.size(0), self.hidden_size]}, got {list(h.shape)}")
        if list(c.shape) != [self.k, x.size(0), self.hidden_size]:
            raise ValueError(f"state must be {[self.k, x.size(0), self.hidden_size]}, got {list(c.shape)}")
        outputs, state = self.unroll(x, [h[0], c.transpose(0, 1)], lengths)
        return outputs, (state[0].unsqueeze(0), state[1].transpose(0, 1).contiguous())

    def forward_cell(self, x: Tensor, hidden: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Advance one step: x (B, I), hidden (1, B, H), state (k, B, H) -> (hidden, state) of the same shapes."""
        h, following = self.own_step(self.own_project(x), [hidden[0], state.transpose(0, 1)])
        return h.unsqueeze(0), following[1].transpose(0, 1)

    def update_hidden(self, outputs: Tensor, states: Tensor) -> Tensor:
        """Pool the lanes: output gates and new cells, both (k, B, H), to the new hidden (1, B, H)."""
        return self.own_pool(outputs.transpose(0, 1), states.transpose(0, 1)).unsqueeze(0)

    def initHidden(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802 - the documented name
        """Return the initial state (1, B, H), (k, B, H) for inputs x (B, S, I), in x's dtype and on its device."""
        h, c = self.initial_state(x.size(0), x)
        return h.unsqueeze(0), c.transpose(0, 1).contiguous()

    def extra_repr(self) -> str:
        """Show the sizes in `print(layer)`."""
        return f"input_size={self.input_size}, hidden_size={self.hidden_size}, k={self.k}"

    # -- between the two ------------------------------------------------------------------------------------

    def pool(self, o: Tensor, c: Tensor) -> Tensor:
        """Return h' (B, H) from the output gates and the new cells, both (B, k, H)."""
        raise NotImplementedError

    def own_project(self, x: Tensor) -> Tensor:
        """Do what the cell states as `project`."""
        raise NotImplementedError

    def own_step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Do what the cell states as `step`."""
        raise NotImplementedError

    def own_pool(self, o: Tensor, c: Tensor) -> Tensor:
        """Do what the cell states as `pool`."""
        raise NotImplementedError

    def input_itself(self, x: Tensor) -> Tensor:
        """Stand in for `project`: an overridden `forward_cell` takes x as it is."""
        return x

    def step_by_forward_cell(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Stand in for `step`: call `forward_cell` on copies, as it may write to its arguments."""
        h, c = state[0].unsqueeze(0).clone(), state[1].transpose(0, 1).contiguous().clone()
        h, c = self.forward_cell(projected, h, c)
        return h[0], [h[0], c.transpose(0, 1)]

    def pool_by_update_hidden(self, o: Tensor, c: Tensor) -> Tensor:
        """Stand in for `pool`: call `update_hidden`."""
        return self.update_hidden(o.transpose(0, 1), c.transpose(0, 1)).squeeze(0)

    @classmethod
    def check_for_models(cls) -> None:
        """Raise ValueError if the class overrides `forward` or `initHidden`, which serve a layer used by itself."""
        for method in ("forward", "initHidden"):
            if getattr(cls, method) is not getattr(LanesFirst, method):
                raise ValueError(
                    f"overrides {method}, which a model does not call: it hands states on itself; "
                    "override update_hidden, forward_cell or step"
                )


def _alias(cls: type[Cell], **names: str) -> None:
    """Give a class its methods under further names, as copies that bear them: a script knows methods by their names."""
    for alias, name in names.items():
        method = getattr(cls, name)
        copy = FunctionType(method.__code__, method.__globals__, alias, method.__defaults__, method.__closure__)
        copy.__annotations__, copy.__kwdefaults__ = method.__annotations__, method.__kwdefaults__
        copy.__dict__.update(method.__dict__)
        setattr(cls, alias, copy)


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Return whether two methods are one, perhaps under two names."""
    return getattr(one, "__code__", one) is getattr(other, "__code__", other)
