"""Models that choose between lanes that float32 cannot tell apart: ties are excused, errors after them are found."""

import copy

import numpy as np
import pytest
import torch

import arraylstm_export
from arraylstm import NextItemModel
from arraylstm_export import Coverage, Options, Reference, verify
from arraylstm_export.formats.eager import Sequences, StepMethod, Whole
from arraylstm_export.interface import Interface

from ..helpers import SMALL, Form


def saturated_model(cell, scale=30):
    """A model whose gates are so large that they are equal in float32, again and again."""
    torch.manual_seed(0)
    model = NextItemModel(cell, 9, 8, k=4).eval().requires_grad_(False)
    for weight in model.cells.parameters():
        weight.mul_(scale)
    return model


@pytest.fixture(scope="module")
def saturated():
    return saturated_model("stochastic")


def tied_model(units):
    """A model with two lanes whose output gates are less than a float32 apart in so many units, and another rounding.

    The form that it comes with has moved the lower of the two by one unit in the last place of float32.
    """
    torch.manual_seed(0)
    model = NextItemModel("stochastic", 9, 16, k=4).eval().requires_grad_(False)
    for weight in model.cells.parameters():
        lanes = weight.view(4, 4, 16, -1)  # lane, gate f i o g, unit
        lanes[3, 2, :units] = lanes[2, 2, :units]
    bias = model.cells["0"].i2h.bias.view(4, 4, 16)
    bias[2:, 2, :units] = torch.tensor([7.789, 7.7889])[:, None]
    moved = copy.deepcopy(model)
    moved.cells["0"].i2h.bias.view(4, 4, 16)[3, 2, :units] = 7.78905
    bias[3, 2, :units] = 7.78895
    bias[2, 2, :units] = 7.789
    moved.cells["0"].i2h.bias.view(4, 4, 16)[2, 2, :units] = 7.789
    return model, Whole(moved.double(), Interface.of(model), torch.float64)


def check(model, run, strict=False, horizon=100):
    reference, coverage = (
        Reference(model, Interface.of(model)),
        Coverage(batches=(1, 2, 7), chunkings=1, horizon=horizon),
    )
    return verify(reference, {"form": run}, tolerance=1e-5, strict=strict, coverage=coverage)


@pytest.mark.parametrize(("cell", "scale"), [("stochastic", 30), ("stochastic", 100), ("max-lane", 100)])
def test_a_right_form_of_a_saturated_model_passes(cell, scale):
    """Most of its rows meet ties; nearly all of their steps are judged nevertheless."""
    model = saturated_model(cell, scale)
    report = check(model, StepMethod(model, Interface.of(model)))
    assert report.passed
    assert report.ties > 0.1
    assert report.undecided < 0.1


def test_a_tie_that_only_rounding_decides_is_a_tie():
    """Gates that differ by less than float32 resolves may be chosen either way in another runtime."""
    report = check(*tied_model(units=1))
    assert report.passed
    assert report.ties > 0.5
    assert report.undecided == 0


def test_a_model_with_many_ties_in_every_step_fails_by_its_share():
    """A step with sixteen ties cannot be told from an error, and the report says so."""
    report = check(*tied_model(units=16))
    assert all(one.passed for one in report.checks)
    assert not report.passed
    assert "depend on a choice between lanes that float32 cannot decide" in report.failure


class TestStrict:
    """Nothing is excused."""

    def test_a_tie_that_fell_otherwise_fails(self, saturated):
        """A form that passes when ties are excused fails here like any other that differs."""
        report = check(saturated, StepMethod(saturated, Interface.of(saturated)), strict=True)
        assert not report.passed
        assert "over the tolerance" in report.failure
        assert report.ties == report.undecided == 0

    def test_a_model_without_ties_passes(self):
        """Strictness costs a model nothing whose lanes are not chosen."""
        torch.manual_seed(0)
        model = NextItemModel("array", 9, 6, k=3).eval()
        assert check(model, Sequences(model, Interface.of(model)), strict=True).passed


def drifts(run, items, lengths, state):
    (logits,), following = run(items, lengths, state)
    return [logits + 1e-4 * (items.shape[1] > 50)], following


def loses_its_state_late(run, items, lengths, state):
    series, (h, c) = run(items, lengths, state)
    return series, [h, np.where(items.shape[1] > 50, 0, c).astype(np.float32)]


def freezes_the_length(run, items, lengths, state):
    return run(items, np.minimum(lengths, 17), state)


def moves_a_lane(run, items, lengths, state):
    series, (h, c) = run(items, lengths, state)
    c = c.copy()
    c[:, 1, 3] += np.float32(1e-3)
    return series, [h, c]


def answers_a_little_less_at_one_item(run, items, lengths, state):
    (logits,), following = run(items, lengths, state)
    return [logits - 1e-3 * (items == 7)[..., None]], following


@pytest.mark.parametrize(
    "mistake",
    [drifts, loses_its_state_late, freezes_the_length, moves_a_lane, answers_a_little_less_at_one_item],
)
def test_an_error_is_found_in_a_model_full_of_ties(saturated, mistake):
    """Long calls and single steps are both judged, whatever ties come before."""
    right = StepMethod(saturated, Interface.of(saturated))
    report = check(saturated, Form(lambda *batch: mistake(right, *batch)))
    assert not report.passed


def test_an_error_that_begins_behind_a_tie_is_found(saturated):
    """A row goes wrong only once it has gone another way than the reference, and is found out by its single steps."""
    right = StepMethod(saturated, Interface.of(saturated))
    reference = Whole(copy.deepcopy(saturated).double(), Interface.of(saturated), torch.float64)

    def wrong_behind_ties(items, lengths, state):
        (logits,), following = right(items, lengths, state)
        apart = np.abs(logits - reference(items, lengths, state)[0][0]).max(2, keepdims=True) > 1e-4
        return [logits + 1e-3 * (np.cumsum(apart, 1) > 0)], following

    assert not check(saturated, Form(wrong_behind_ties)).passed


@pytest.mark.parametrize("cell", ["stochastic", "max-lane"])
def test_the_vectors_of_a_saturated_model_hang_on_no_tie(cell, tmp_path):
    """Its bundle passes by its own vectors, which excuse nothing."""
    arraylstm_export.export(saturated_model(cell), tmp_path / "bundle", Options(format=("onnx",), coverage=SMALL))
    report = arraylstm_export.verify_bundle(tmp_path / "bundle")
    assert report.passed
    assert report.reached > 0


def test_garbage_where_a_tie_hangs_is_found(saturated):
    """An answer far from what any way of deciding the ties gives is no tie."""
    right, exact = StepMethod(saturated, Interface.of(saturated)), Whole(saturated, Interface.of(saturated))

    def run(items, lengths, state):
        series, following = right(items, lengths, state)
        other = exact(items, lengths, [np.nextafter(tensor, np.float32(9)) for tensor in state])
        moved = np.abs(series[0] - other[0][0]).max(2) > 1e-3
        series[0][moved & (items % 3 == 0)] = 12345
        return series, following

    assert not check(saturated, Form(run)).passed
