"""What tests of the Markov recurrent network share: its noise, drawn before, and its outputs by name."""

import torch

from arraylstm import MarkovCell

OUTPUTS = ("output", "z", "q_z", "h_seq", "h_last", "c_last")


class RecordedCell(MarkovCell):
    """A cell whose noise was drawn before: (steps, B, k), taken from the front."""

    noise: torch.Tensor
    drawn: int

    def __init__(self, cell, noise):
        super().__init__(cell.input_size, cell.hidden_size, cell.k, cell.b_xz is not None)
        self.load_state_dict(cell.state_dict())
        self.noise = noise
        self.drawn = 0

    def gumbel(self, like: torch.Tensor) -> torch.Tensor:
        self.drawn += 1
        return self.noise[self.drawn - 1]


def inject(model, noise):
    """Return the model with the recorded noise (L, S, B, k) in the place of what its cells would draw."""
    for layer, of_layer in enumerate(noise):
        model.add_module(f"cell_{layer}", RecordedCell(getattr(model, f"cell_{layer}"), of_layer).to(of_layer.dtype))
    return model


def flat(result):
    output, z, q_z, h_seq, (h, c) = result
    return dict(zip(OUTPUTS, (output, z, q_z, h_seq, h, c), strict=True))
