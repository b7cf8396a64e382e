"""The protocol every servable recurrent layer follows.

A cell is `(input, state) -> (output, state)`: it names its state tensors and states one `step`.
Unrolling over time, stacking, scripting, export, parity checks and serving follow from that alone.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from arraylstm.checks import require_input, require_positive, require_state


class _ReadsStateShapes(type):
    """Calls `read_state_shapes` after a cell's constructor, when its sizes are known."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        cell = super().__call__(*args, **kwargs)
        cell.read_state_shapes()
        return cell


class Cell(nn.Module, metaclass=_ReadsStateShapes):
    """One recurrent layer; a subclass gives `state_shapes` and `step`, and may move work into `project`.

    `step(project(x), state)` is all there is to a cell; the loop over time is here, outside of it. Methods are compiled
    by `torch.jit.script`, so their parameters need annotations.

    Args:
        input_size: I, features of one input vector.
        hidden_size: H, features of one output vector.

    Raises:
        ValueError: a size is smaller than 1, or there is no state.
    """

    has_lanes: ClassVar[bool] = False
    """Whether the constructor takes k, the number of lanes, after the two sizes."""
    picks_lanes: ClassVar[bool] = False
    """Whether a step in eval() picks one of several lanes, so that rounding may decide which."""

    input_size: int
    hidden_size: int
    state_names: list[str]
    state_sizes: list[list[int]]
    steps_projected_at_once: int

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            require_positive(name, size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.steps_projected_at_once = 8  # on a CPU: enough for large products, few enough to stay in its cache

    # -- what a cell states ---------------------------------------------------------------------------------

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name the state tensors (one at least) in the order `step` takes them, each with its shape for one row."""
        raise NotImplementedError

    def project(self, x: Tensor) -> Tensor:
        """Compute all that depends on the input alone, for any number of steps at once.

        Args:
            x: (..., I) inputs.

        Returns:
            (..., P) what `step` is to receive instead of x; by default x itself.
        """
        return x

    def step(self, projected: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Advance every row by one step, leaving the given state untouched.

        Args:
            projected: (B, P) one step of what `project` returned.
            state: tensors (B, *shape) in the order of `state_shapes`.

        Returns:
            The output (B, H) and the next state, shaped as the given one.
        """
        raise NotImplementedError

    def diagnostic_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name what a step can show of itself beside its output, each with its shape for one row; by default nothing.

        Diagnostics are for looking at (which lane listened, say); export writes them as further outputs when asked to.
        """
        return {}

    def step_with_diagnostics(
        self, projected: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Do what `step` does, and return the diagnostics (B, *shape) too, in the order of `diagnostic_shapes`.

        It may call `step`; `step` never calls it.
        """
        output, following = self.step(projected, state)
        diagnostics: list[Tensor] = []
        return output, following, diagnostics

    def initial_state(self, batch: int, like: Tensor) -> list[Tensor]:
        """Return the state (B, *shape) that sequences start from, the same for every row.

        It is zeros, in the dtype and on the device of `like`; or the parameters that `learn_start` has made.
        """
        if hasattr(self, "learned_start"):
            return [tensor.expand([batch] + list(tensor.shape)) for tensor in self.learned_start]
        return [like.new_zeros([batch] + sizes) for sizes in self.state_sizes]

    def learn_start(self) -> None:
        """Let the state that sequences start from be learned: parameters `learned_start.<number>`, zeros at first.

        Raises:
            ValueError: the class gives an `initial_state` of its own, which parameters would not change.
        """
        if type(self).initial_state is not Cell.initial_state:
            raise ValueError(
                f"the cell {type(self).__name__} gives an initial_state of its own; it needs a learn_start beside it"
            )
        self.learned_start = nn.ParameterList(nn.Parameter(torch.zeros(sizes)) for sizes in self.state_sizes)

    def start_as_memory(self) -> None:
        """Set new weights so that the output starts as a fading sum of the inputs; by default nothing is done."""

    def prepare(self) -> None:
        """Reorder the weights for the fastest inference, where another order is faster; by default nothing is done.

        What the cell computes stays the same, but its state dict is no longer the documented one: export does this to
        its own copy.
        """

    @classmethod
    def check_for_models(cls) -> None:
        """Raise ValueError if the class overrides something that a model never calls; by default nothing is refused."""

    # -- what follows from it -------------------------------------------------------------------------------

    def read_state_shapes(self) -> None:
        """Keep the names and shapes of `state_shapes` as lists, which is how a script can read them."""
        shapes = self.state_shapes()
        if not shapes:
            raise ValueError(f"the cell {type(self).__name__} names no state; `state_shapes` must give one at least")
        self.state_names = list(shapes)
        self.state_sizes = [list(shape) for shape in shapes.values()]

    def forward(
        self, x: Tensor, state: list[Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the cell over whole sequences.

        Args:
            x: (B, S, I) inputs of any float dtype; B and S may be 0.
            state: tensors (B, *shape) in the order of `state_shapes`; None starts from `initial_state`.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            The outputs (B, S, H), zero from a row's length on, and every row's state after its last step.

        Raises:
            ValueError: x, a state tensor or lengths has another shape, or a length lies outside 0 to S.
        """
        require_input(x, self.input_size, lengths)
        given = self.initial_state(x.size(0), x) if state is None else state
        require_state(given, x.size(0), self.state_names, self.state_sizes)
        return self.unroll(x, given, lengths)

    def unroll(self, x: Tensor, state: list[Tensor], lengths: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Run `step` along the time axis; arguments and results are those of `forward`, which checks them too."""
        outputs, state, _ = self.unroll_with_diagnostics(x, state, lengths)
        return outputs, state

    @torch.jit.export
    def unroll_with_diagnostics(
        self, x: Tensor, state: list[Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run `step_with_diagnostics` along the time axis: what `unroll` returns, and diagnostics (B, S, *shape).

        From a row's length on its diagnostics are those of steps from its final state, and what is not finite in x
        counts as 0 there.
        """
        if x.size(1) == 0:
            return self._unroll_nothing(x, state)
        if lengths is not None:  # a NaN that pads a row would reach the gradient of its weights
            x = torch.where(past(x, lengths), x.nan_to_num(0.0, 0.0, 0.0), x)
        outputs: list[Tensor] = []
        diagnostics: list[list[Tensor]] = []
        at_once = self.steps_projected_at_once if x.device.type == "cpu" else x.size(1)
        for piece in torch.split(x, at_once, 1):
            for projected in self.project(piece).unbind(1):
                output, following, diagnostic = self.step_with_diagnostics(projected, state)
                state = following if lengths is None else hold(following, state, lengths > len(outputs))
                outputs.append(output)
                diagnostics.append(diagnostic)
        series = [torch.stack([diagnostic[i] for diagnostic in diagnostics], 1) for i in range(len(diagnostics[0]))]
        stacked = torch.stack(outputs, 1)
        return stacked if lengths is None else clear_past(stacked, lengths), state, series

    def _unroll_nothing(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return what `unroll_with_diagnostics` gives for x (B, 0, I)."""
        no_rows = [tensor[:0] for tensor in state]
        _, _, diagnostics = self.step_with_diagnostics(self.project(x.new_zeros(0, x.size(2))), no_rows)
        nothing = [tensor.new_zeros([x.size(0), 0] + list(tensor.shape[1:])) for tensor in diagnostics]
        return x.new_zeros(x.size(0), 0, self.hidden_size), [tensor.clone() for tensor in state], nothing


def hold(following: list[Tensor], state: list[Tensor], going_on: Tensor) -> list[Tensor]:
    """Return the following state of the rows that go on (B, bool), and the state as it was of the others."""
    return [torch.where(going_on.view([-1] + [1] * (new.dim() - 1)), new, old) for new, old in zip(following, state)]


def clear_past(series: Tensor, lengths: Tensor) -> Tensor:
    """Return the series (B, S, ...) with zeros from every row's length on."""
    return series.masked_fill(past(series, lengths), 0)


def past(series: Tensor, lengths: Tensor) -> Tensor:
    """Return which steps of the series (B, S, ...) lie behind their rows' lengths: bool (B, S, 1, ...)."""
    steps = torch.arange(series.size(1), device=series.device)
    behind = steps.unsqueeze(0) >= lengths.unsqueeze(1)
    return behind.view(list(behind.shape) + [1] * (series.dim() - 2))
