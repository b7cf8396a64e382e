"""The protocol every servable recurrent layer follows.

A cell is `(input, state) -> (output, state)`: it names its state tensors and states one `step`.
Unrolling over time, stacking, scripting, export, parity checks and serving follow from that alone.
"""

import torch
from torch import Tensor, nn


class Cell(nn.Module):
    """One recurrent layer; a subclass gives `state_shapes` and `step`, and may hoist work into `project`.

    Args:
        input_size: I, features of one input vector.
        hidden_size: H, features of one output vector.

    Raises:
        ValueError: a size is smaller than 1.
    """

    input_size: int
    hidden_size: int
    steps_projected_at_once: int

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            require_positive(name, size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.steps_projected_at_once = 8  # enough for large products, few enough that they stay in the cache

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
        """Do what `step` does, and return the diagnostics (B, *shape) too, in the order of `diagnostic_shapes`."""
        output, following = self.step(projected, state)
        diagnostics: list[Tensor] = []
        return output, following, diagnostics

    def prepare(self) -> None:
        """Lay the weights out anew for the fastest inference, where there is such a layout; by default nothing is done.

        What the cell computes stays the same, but its state dict is no longer the documented one: export does this to
        its own copy.
        """

    def unroll(self, x: Tensor, state: list[Tensor], lengths: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Run `step` along the time axis.

        Args:
            x: (B, S, I) inputs; S may be 0.
            state: tensors (B, *shape) in the order of `state_shapes`.
            lengths: (B,) int64, how many of the S steps each row takes; None lets all rows take all.

        Returns:
            The outputs (B, S, H), zero from a row's length on, and every row's state after its own length.
        """
        outputs, state, _ = self.unroll_with_diagnostics(x, state, lengths)
        return outputs, state

    @torch.jit.export
    def unroll_with_diagnostics(
        self, x: Tensor, state: list[Tensor], lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run `step_with_diagnostics` along the time axis: what `unroll` returns, and the diagnostics (B, S, *shape).

        From a row's length on its diagnostics are those of steps that start from its final state; what is not finite in x
        there counts as 0.
        """
        if x.size(1) == 0:
            _, _, diagnostic = self.step_with_diagnostics(
                self.project(x.new_zeros(0, x.size(2))), [tensor[:0] for tensor in state]
            )
            nothing = [tensor.new_zeros([x.size(0), 0] + list(tensor.shape[1:])) for tensor in diagnostic]
            return x.new_zeros(x.size(0), 0, self.hidden_size), [tensor.clone() for tensor in state], nothing
        if lengths is not None:  # a NaN that pads a row would reach the gradient of its weights
            x = torch.where(past(x, lengths), x.nan_to_num(0.0, 0.0, 0.0), x)
        outputs: list[Tensor] = []
        diagnostics: list[list[Tensor]] = []
        for piece in torch.split(x, self.steps_projected_at_once, 1):
            for projected in self.project(piece).unbind(1):
                output, following, diagnostic = self.step_with_diagnostics(projected, state)
                state = following if lengths is None else hold(following, state, lengths > len(outputs))
                outputs.append(output)
                diagnostics.append(diagnostic)
        series = [torch.stack([diagnostic[i] for diagnostic in diagnostics], 1) for i in range(len(diagnostics[0]))]
        stacked = torch.stack(outputs, 1)
        return stacked if lengths is None else clear_past(stacked, lengths), state, series


def hold(following: list[Tensor], state: list[Tensor], going_on: Tensor) -> list[Tensor]:
    """Return the following state of the rows that go on (B, bool), and the state as it was of the others."""
    return [torch.where(going_on.view([-1] + [1] * (new.dim() - 1)), new, old) for new, old in zip(following, state)]


def clear_past(series: Tensor, lengths: Tensor) -> Tensor:
    """Return the series (B, S, ...) with zeros from every row's length on."""
    return series.masked_fill(past(series, lengths), 0)


def past(series: Tensor, lengths: Tensor) -> Tensor:
    """Tell which steps of the series (B, S, ...) lie behind their rows' lengths: bool (B, S, 1, ...)."""
    steps = torch.arange(series.size(1), device=series.device)
    behind = steps.unsqueeze(0) >= lengths.unsqueeze(1)
    return behind.view(list(behind.shape) + [1] * (series.dim() - 2))


def require_input(x: Tensor, input_size: int, lengths: Tensor | None = None) -> None:
    """Raise TypeError unless x is a tensor, ValueError unless it is (B, S, I) and the lengths, if any, fit it."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor padded to equal length, beside its lengths, got a {type(x).__name__}")
    if x.dim() != 3 or x.size(2) != input_size:
        raise ValueError(f"x must be (batch, steps, {input_size}), got {list(x.shape)}")
    if lengths is not None:
        require_lengths(lengths, x.size(0), x.size(1))


def require_lengths(lengths: Tensor, batch: int, steps: int) -> None:
    """Raise ValueError unless lengths are (B,) int64 from 0 to the number of steps."""
    if lengths.dtype != torch.int64 or list(lengths.shape) != [batch]:
        raise ValueError(f"lengths must be int64 {[batch]}, got {lengths.dtype} {list(lengths.shape)}")
    if lengths.device.type != "cpu" or batch == 0:
        return  # reading them from an accelerator would wait for it
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 0 or longest > steps:
        wrong = shortest if shortest < 0 else longest
        raise ValueError(f"lengths must be from 0 to {steps}, the number of steps, got {wrong}")


def lengths_beside(series: Tensor, lengths: Tensor | list[int]) -> Tensor:
    """Return lengths, a tensor or a list as `require_lengths` wants it, on the device of a series (B, S, ...)."""
    if isinstance(lengths, list):
        lengths = torch.tensor(lengths, dtype=torch.int64, device="cpu")  # whatever the default: read here at no cost
    require_lengths(lengths, series.size(0), series.size(1))
    return lengths.to(series.device)


def require_positive(name: str, value: int) -> None:
    """Raise ValueError unless value is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
