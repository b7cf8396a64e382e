"""The paper's cells that draw lanes: the laws of their draws in train(), and eval() as a statistic of them."""

import numpy as np
import pytest
import torch
from torch import nn

from .paper import (
    ATTENTION,
    DRAWN,
    EVERY,
    HIDDEN,
    INPUT,
    MEMORY,
    Paper,
    arrays,
    chosen,
    make,
    repeated,
    share_taken,
    start,
    step,
)

DRAWS = 20_000


def draws(name, k):
    """The lanes processed (S=2, B, k, H) and the share expected of each (k, H), constant over rows and steps."""
    cell = make(name, k)
    if name in ATTENTION:
        nn.init.zeros_(cell.h2a.weight)
    x, h, c = repeated(cell, DRAWS)
    p = share_taken(name, k).repeat(HIDDEN, 1) if name in MEMORY else Paper(cell).s(*arrays(x[:1], h[:1]))[0]
    lanes = []
    for projected in cell.project(torch.stack([x, x], 1)).unbind(1):
        _, (h, after) = cell.step(projected, [h, c])
        lanes.append(chosen(c, after))
        c = after
    return torch.stack(lanes).numpy(force=True), p


def agree(one, other, p, q):
    """The lanes of one draw and of another (N, k) are taken together as independent ones of shares p and q (k)."""
    expected = np.outer(p, q)
    bound = 5 * np.sqrt(expected * (1 - expected) / len(one))
    assert (np.abs(one.T @ other / len(one) - expected) <= bound + 1e-12).all()


class TestLaws:
    """Which lanes are drawn: each lane's share, and independence between units, rows and steps."""

    @pytest.mark.parametrize(("name", "k"), [(name, k) for name in DRAWN for k in (2, 3)] + [(MEMORY[1], 5)])
    def test_lanes_are_drawn_with_their_shares_for_every_unit_row_and_step_anew(self, name, k):
        """Shares are softmax(a), 1/k, or 1/2 and 1; two units, rows or steps take lanes independently (5 sigma)."""
        lanes, p = draws(name, k)
        one, other = lanes[0], lanes[1]
        for unit in range(HIDDEN):
            bound = 5 * np.sqrt(p[:, unit] * (1 - p[:, unit]) / DRAWS) + 1e-12
            assert (np.abs(one[:, :, unit].mean(0) - p[:, unit]) <= bound).all()
            assert (np.abs(other[:, :, unit].mean(0) - p[:, unit]) <= bound).all()
        agree(one[:, :, 0], one[:, :, 1], p[:, 0], p[:, 1])  # units
        agree(one[::2, :, 0], one[1::2, :, 0], p[:, 0], p[:, 0])  # rows
        agree(one[:, :, 0], other[:, :, 0], p[:, 0], p[:, 0])  # steps

    @pytest.mark.parametrize("name", ["attention-semi-hard", "attention-hard", "stochastic-memory"])
    def test_exactly_one_lane_takes_part(self, name):
        """For every row, unit and step one lane is processed and the others are carried."""
        lanes, _ = draws(name, 3)
        assert (lanes.sum(2) == 1).all()

    @pytest.mark.parametrize("k", [4, 5])
    def test_half_of_the_lanes_take_part_one_of_each_pair(self, k):
        """Of lanes 2l and 2l + 1 exactly one is processed, pairs independently; a last lane without partner always."""
        lanes, _ = draws("stochastic-memory-half", k)
        even, odd = lanes[:, :, 0:4:2], lanes[:, :, 1:4:2]
        assert (even + odd == 1).all()
        assert (lanes[:, :, 4:] == 1).all()
        agree(even[0][:, :1, 0], even[0][:, 1:, 0], np.array([0.5]), np.array([0.5]))

    @pytest.mark.parametrize("name", MEMORY)
    def test_a_memory_array_draws_independently_of_its_gates(self, name):
        """Where lane 0's output gate is the wider one it is drawn no more often than elsewhere (5 sigma)."""
        cell = make(name, k=2)
        x, h, c = start(cell, DRAWS)
        _, _, o, _ = Paper(cell).gates(*arrays(x, h))
        lane0 = chosen(c, step(cell, x, h, c)[1])[:, 0].numpy(force=True)
        for wider in (o[:, 0] > o[:, 1], o[:, 0] < o[:, 1]):
            assert abs(lane0[wider].mean() - 0.5) < 5 * 0.5 / wider.sum() ** 0.5


class TestInference:
    """What eval() answers, as a statistic of what train() draws."""

    @pytest.mark.parametrize("name", DRAWN)
    def test_the_answer_is_the_mean_over_draws(self, name):
        """h' and c' in eval() are the mean over training steps from the same x, h and c (5 sigma)."""
        cell = make(name)
        row = repeated(cell, DRAWS)
        drawn = step(cell.train(), *row)
        for samples, mean in zip(drawn, step(cell.eval(), *[tensor[:1] for tensor in row]), strict=True):
            error = samples.std(0) / DRAWS**0.5
            assert ((samples.mean(0) - mean[0]).abs() <= 5 * error + 1e-12).all()

    def test_stochastic_pooling_answers_with_the_mode_of_its_draws(self):
        """StochasticArrayLSTM's h' in eval() is, for every unit, what training steps give most often.

        Lanes whose counts are within five standard errors of the most frequent one's may be the mode as well.
        """
        cell = make("stochastic")
        row = repeated(cell, DRAWS)
        drawn, _ = step(cell.train(), *row)
        answer, _ = step(cell.eval(), *[tensor[:1] for tensor in row])
        for unit in range(HIDDEN):
            values, counts = drawn[:, unit].detach().round(decimals=9).unique(return_counts=True)
            assert len(values) == 3
            often = values[counts >= counts.max() - 5 * DRAWS**0.5]
            assert (often - answer[0, unit]).abs().min() <= 1e-9

    @pytest.mark.parametrize("name", ["attention-semi-hard", "attention-hard"])
    def test_max_lane_answers_with_the_mode_of_hard_attentions_draws(self, name):
        """With the same weights MaxLaneArrayLSTM takes, for every unit, the lane that hard attention draws most."""
        cell, largest = make(name), make("max-lane").eval()
        largest.load_state_dict(cell.state_dict())
        row = repeated(cell, DRAWS)
        counts = chosen(row[2], step(cell, *row)[1]).sum(0)
        taken = chosen(row[2][:1], step(largest, *[tensor[:1] for tensor in row])[1])[0].argmax(0, keepdim=True)
        assert (counts.gather(0, taken) >= counts.amax(0) - 5 * DRAWS**0.5).all()

    @pytest.mark.parametrize("name", EVERY)
    def test_inference_draws_nothing(self, name):
        """In eval() two calls agree and the random generator stays where it was."""
        cell = make(name).eval()
        x = torch.randn(4, 7, INPUT, dtype=torch.float64)
        torch.manual_seed(1)
        undisturbed = torch.rand(3)
        torch.manual_seed(1)
        first, second = cell(x)[0], cell(x)[0]
        assert torch.equal(first, second)
        assert torch.equal(torch.rand(3), undisturbed)


@pytest.mark.parametrize("name", ["stochastic", *DRAWN])
def test_training_repeats_with_the_seed(name):
    """torch.manual_seed makes two training passes equal; without it they differ."""
    cell = make(name)
    x = torch.randn(4, 7, INPUT, dtype=torch.float64)
    torch.manual_seed(1)
    first, _ = cell(x)
    second, _ = cell(x)
    torch.manual_seed(1)
    again, _ = cell(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
