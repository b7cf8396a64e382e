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

    def unroll(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run `step` along the time axis.

        Args:
            x: (B, S, I) inputs; S may be 0.
            state: tensors (B, *shape) in the order of `state_shapes`.

        Returns:
            The outputs (B, S, H) and the state after the last step.
        """
        if x.size(1) == 0:
            return x.new_zeros(x.size(0), 0, self.hidden_size), [tensor.clone() for tensor in state]
        outputs: list[Tensor] = []
        for piece in torch.split(x, self.steps_projected_at_once, 1):
            for projected in self.project(piece).unbind(1):
                output, state = self.step(projected, state)
                outputs.append(output)
        return torch.stack(outputs, 1), state


def require_positive(name: str, value: int) -> None:
    """Raise ValueError unless value is an integer of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
