"""The parity check: what it covers, and that it fails when a form is wrong."""

import copy

import numpy as np
import pytest
import torch

from arraylstm import NextItemModel
from arraylstm_export import ExportError, verify
from arraylstm_export.reference import MovedResults
from arraylstm_export.runners import StepMethod, Whole
from arraylstm_export.signature import Interface


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return NextItemModel("array", 9, 6, k=3, embedding_size=4).eval()


def whole(model):
    return Whole(model, Interface.of(model))


def failures(model, run):
    report = verify(model, Interface.of(model), {"form": run}, tolerance=1e-5)
    return [check for check in report.checks if not check.passed]


def test_a_right_form_passes_and_the_report_says_where_it_was_worst(model):
    """Every scenario is there for every tensor; the largest difference has its place."""
    interface = Interface.of(model)
    forms = {"whole": whole(model), "step": StepMethod(model, interface)}
    report = verify(model, interface, forms, tolerance=1e-5)
    assert report.passed
    assert 0 < report.reached < 1e-6
    assert {check.tensor for check in report.checks} == {"logits", "next_state_h_l0", "next_state_c_l0"}
    assert {(check.batch, check.steps) for check in report.checks} >= {
        (batch, steps) for batch in (1, 2, 3, 7, 64) for steps in (1, 2, 17, 100)
    } | {(1, 1000)}
    assert {check.scenario for check in report.checks} == {
        "zero state", "random state", "every item", "ragged", "ragged, in chunks", "ragged, row by row", "horizon",
    }  # fmt: skip
    worst = report.worst_by_form()
    assert [check.form for check in worst] == ["whole", "step"]
    assert worst[0].difference == max(check.difference for check in report.checks if check.form == "whole")
    assert len(worst[0].where) == (3 if worst[0].tensor in ("logits", "next_state_c_l0") else 2)


@pytest.mark.parametrize("key", ["embedding.weight", "cells.0.i2h.weight", "cells.0.h2h.bias", "linear.bias"])
def test_one_nudged_weight_fails(model, key):
    """A single weight off by a thousandth is found."""
    nudged = copy.deepcopy(model)
    with torch.no_grad():
        nudged.get_parameter(key).view(-1)[0] += 1e-3
    assert failures(model, whole(nudged))


class Wrong:
    """A form that is right but for one mistake."""

    def __init__(self, model, mistake):
        self.right = whole(model)
        self.mistake = mistake

    def __call__(self, items, lengths, state):
        return self.mistake(self.right, items, lengths, state)


def forgets_the_initial_state(run, items, lengths, state):
    return run(items, lengths, [np.zeros_like(tensor) for tensor in state])


def loses_a_state(run, items, lengths, state):
    series, (h, c) = run(items, lengths, state)
    return series, [h, np.zeros_like(c)]


def ignores_lengths(run, items, lengths, state):
    return run(items.clip(0, 8), np.full_like(lengths, items.shape[1]), state)


def freezes_the_length(run, items, lengths, state):
    return run(items, np.minimum(lengths, 17), state)


def mixes_rows(run, items, lengths, state):
    series, (h, c) = run(items, lengths, state)
    return series, [np.roll(h, 1, 0), c]


def lets_the_batch_leak(run, items, lengths, state):
    (logits,), following = run(items, lengths, state)
    return [logits + 1e-4 * (len(items) == 64)], following


def drifts(run, items, lengths, state):
    (logits,), following = run(items, lengths, state)
    return [logits + 1e-4 * (items.shape[1] > 500)], following


def answers_nan(run, items, lengths, state):
    series, following = run(items, lengths, state)
    series[0][0, 0, 0] = np.nan
    return series, following


@pytest.mark.parametrize(
    "mistake",
    [
        forgets_the_initial_state,
        loses_a_state,
        ignores_lengths,
        freezes_the_length,
        mixes_rows,
        lets_the_batch_leak,
        drifts,
        answers_nan,
    ],
)
def test_a_wrong_form_fails(model, mistake):
    """Each way of being wrong is found by some scenario."""
    assert failures(model, Wrong(model, mistake))


def forgets_an_item(run, items, lengths, state):
    series, following = run(items, lengths, state)
    series[0][np.arange(items.shape[1]) < lengths[:, None]] += 1e-3 * (items[:, :1] == 777).any()
    return series, following


def test_every_item_is_tried():
    """An item that only one batch in thousands would hold is among those compared."""
    model = NextItemModel("array", 3000, 2, k=1, embedding_size=2).eval()
    assert [check.scenario for check in failures(model, Wrong(model, forgets_an_item))]


class TestTies:
    """Models that choose between lanes whose gates float32 cannot tell apart."""

    @pytest.fixture
    def saturated(self):
        torch.manual_seed(0)
        model = NextItemModel("stochastic", 9, 16, k=4).eval()
        with torch.no_grad():
            for weight in model.cells.parameters():
                weight.mul_(30)
        return model

    def test_steps_after_a_tie_are_undecided_not_wrong(self, saturated):
        """Differences from a tie on are not held against a form, but too many undecided steps fail the export."""
        interface = Interface.of(saturated)
        report = verify(saturated, interface, {"step": StepMethod(saturated, interface)}, tolerance=1e-5)
        assert report.undecided > 0.1
        assert all(check.passed for check in report.checks)
        assert not report.passed
        assert "hang on choices between lanes" in report.failure

    def test_a_tie_that_only_rounding_decides_is_undecided(self):
        """Gates less than a float32 apart, behind saturated sigmoids, may fall either way in another runtime."""
        model = NextItemModel("stochastic", 9, 16, k=4).eval()
        with torch.no_grad():
            for weight in model.cells.parameters():
                lanes = weight.view(4, 4, 16, -1)  # lane, gate f i o g, unit
                lanes[3, 2] = lanes[2, 2]
            model.cells["0"].i2h.bias.view(4, 4, 16)[2:, 2] = torch.tensor([7.789, 7.7889])[:, None]
        right = Whole(copy.deepcopy(model).double(), Interface.of(model), torch.float64)

        def other_runtime(*batch):
            with MovedResults(seed=99):
                return right(*batch)

        assert failures(model, other_runtime) == []
        assert verify(model, Interface.of(model), {"form": other_runtime}, tolerance=1e-5).undecided > 0

    def test_an_error_before_the_tie_is_found(self, saturated):
        """A tie late in a sequence does not hide that the form was wrong from its beginning."""
        assert any(check.scenario == "horizon" for check in failures(saturated, Wrong(saturated, drifts)))


def test_a_form_that_cannot_run_is_named(model):
    """A runtime's own exception becomes one message with the form and the scenario."""

    def breaks(items, lengths, state):
        raise RuntimeError("the runtime's words")

    with pytest.raises(ExportError, match=r"form cannot be run \(zero state, 1 x 1\): the runtime's words"):
        verify(model, Interface.of(model), {"form": breaks}, tolerance=1e-5)
