"""The paper's equations for the cells that array-lstm lacks, in NumPy, and what their tests share."""

import numpy as np
import torch
from torch import nn

from arraylstm.cells import make_cell

ATTENTION = ["attention-recurrent", "max-lane", "attention-semi-hard", "attention-hard"]
MEMORY = ["stochastic-memory", "stochastic-memory-half"]
DRAWN = ["attention-semi-hard", "attention-hard", *MEMORY]
CHOOSING = ["max-lane", *DRAWN]
EVERY = [*ATTENTION, *MEMORY]
INPUT, HIDDEN = 5, 2


def make(name, k=3):
    """A cell in float64 with weights large enough that its lanes differ widely."""
    torch.manual_seed(11)
    cell = make_cell(name, INPUT, HIDDEN, k).double()
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=1.5)
    return cell


def start(cell, batch):
    """Random x (B, I), h (B, H) and c (B, k, H)."""
    shapes = [(cell.input_size,), *cell.state_shapes().values()]
    return [torch.randn(batch, *shape, dtype=torch.float64) for shape in shapes]


def repeated(cell, batch):
    """The same row B times, so that draws differ and nothing else."""
    return [tensor.expand(batch, *tensor.shape[1:]) for tensor in start(cell, 1)]


def step(cell, x, h, c):
    """h' (B, H) and c' (B, k, H)."""
    _, state = cell.step(cell.project(x), [h, c])
    return state


def arrays(*tensors):
    return [tensor.numpy(force=True) for tensor in tensors]


def chosen(before, after):
    """Which lanes were processed: 1 where the cell has changed, if only by a bit."""
    return (after != before).double()


def close(actual, expected, tolerance=1e-12):
    for mine, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(force=True), theirs, rtol=0, atol=tolerance)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


class Paper:
    """The paper's equations in NumPy, from a cell's weights; the lanes that take part are given."""

    def __init__(self, cell):
        self.k, self.hidden = cell.k, cell.hidden_size
        self.weights = {key: weight.numpy(force=True) for key, weight in cell.state_dict().items()}

    def product(self, name, v):
        return v @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def gates(self, x, h):
        """f, i, o, g (B, k, H); rows of the weights go by lane, then gate, then unit."""
        a = (self.product("i2h", x) + self.product("h2h", h)).reshape(len(x), self.k, 4, self.hidden)
        f, i, o = (sigmoid(a[:, :, gate]) for gate in range(3))
        return f, i, o, np.tanh(a[:, :, 3])

    def s(self, x, h):
        """The lane weights (4.1, 4.2)."""
        a = sigmoid(self.product("i2a", x) + self.product("h2a", h)).reshape(len(x), self.k, self.hidden)
        return np.exp(a) / np.exp(a).sum(1, keepdims=True)

    def attention(self, x, h, c, s):
        """(4.3-4.8)."""
        f, i, o, g = self.gates(x, h)
        f, i, o = s * f, s * i, s * o
        c = (1 - f) * c + i * g
        return (o * np.tanh(c)).sum(1), c

    def memory(self, x, h, c, m):
        """Section 5.2."""
        f, i, o, g = self.gates(x, h)
        c = m * (f * c + i * g) + (1 - m) * c
        return (m * o * np.tanh(c)).sum(1), c

    def attention_mean(self, x, h, c):
        """The mean of `attention` over z ~ Categorical(s), lane by lane: with s_j it is processed, else carried."""
        s, (f, i, o, g) = self.s(x, h), self.gates(x, h)
        processed = (1 - f) * c + i * g
        return (s * o * np.tanh(processed)).sum(1), s * processed + (1 - s) * c

    def memory_mean(self, x, h, c, p):
        """The mean of `memory` over m with E[m] = p, lane by lane."""
        f, i, o, g = self.gates(x, h)
        processed = f * c + i * g
        return (p * o * np.tanh(processed)).sum(1), p * processed + (1 - p) * c


def share_taken(name, k):
    """E[m] of a memory array (k, 1)."""
    if name == "stochastic-memory":
        return np.full((k, 1), 1 / k)
    return np.array([[1.0] if lane == k - 1 and k % 2 else [0.5] for lane in range(k)])
