"""The parity check: what it covers, and that it fails when a form is wrong."""

import copy
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from arraylstm import NextItemModel
from arraylstm_export import Coverage, ExportError, Reference, verify
from arraylstm_export.formats.eager import StepMethod, Whole
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface
from arraylstm_export.parity.checks import exact_row_checks
from arraylstm_export.parity.differences import largest
from arraylstm_export.parity.scenarios import all_scenarios, pieces
from arraylstm_export.parity.schedules import draw_cuts

from ..helpers import SMALL, Form


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    return NextItemModel("array", 9, 6, k=3, embedding_size=4).eval()


def whole(model):
    return Whole(model, Interface.of(model))


def failures(model, run):
    coverage = Coverage(batches=(1, 3, 64), lengths=(1, 50), chunkings=1, horizon=200)
    report = verify(Reference(model, Interface.of(model)), {"form": run}, tolerance=1e-5, coverage=coverage)
    return [check for check in report.checks if not check.passed]


def test_a_right_form_passes_and_the_report_says_where_it_was_worst(model):
    """Every scenario is there for every tensor; the largest difference has its place."""
    interface = Interface.of(model)
    forms = {"whole": whole(model), "step": StepMethod(model, interface)}
    report = verify(Reference(model, interface), forms, tolerance=1e-5, coverage=Coverage(horizon=1100))
    assert report.passed
    assert 0 < report.reached < 1e-6
    assert {check.tensor for check in report.checks} == {"logits", "next_state_h_l0", "next_state_c_l0"}
    assert {(check.batch, check.steps) for check in report.checks} >= {
        (batch, steps) for batch in (1, 2, 3, 7, 64) for steps in (1, 2, 17, 100)
    } | {(2, 1100)}
    assert report.horizon == 1100
    assert {re.sub(r"\d+", "n", check.scenario) for check in report.checks} == {
        "initial state", "random state", "large state", "every item",
        "ragged", "ragged, in n chunks", "ragged, row by row", "horizon",
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


class Wrong(Runner):
    """A right form with one mistake."""

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
    return [logits + 1e-4 * (items.shape[1] > 150)], following


def answers_nan(run, items, lengths, state):
    series, following = run(items, lengths, state)
    series[0][:1, :1] = np.nan
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


def test_a_form_that_cannot_run_is_named(model):
    """A runtime's own exception becomes one message with the form and the scenario."""

    def breaks(items, lengths, state):
        raise RuntimeError("the runtime's words")

    with pytest.raises(ExportError, match=r"form cannot be run \(initial state, 1 x 1\): the runtime's words"):
        verify(Reference(model, Interface.of(model)), {"form": Form(breaks)}, tolerance=1e-5)


def drops_an_output_axis(run, items, lengths, state):
    series, following = run(items, lengths, state)
    return [tensor[:, :3] for tensor in series], following


def test_an_output_of_another_shape_is_named(model):
    """A series that ends at the example's length is one sentence with both shapes."""
    with pytest.raises(ExportError, match=r"an output must be \[1, 17, 9\], but is \[1, 3, 9\]"):
        verify(Reference(model, Interface.of(model)), {"form": Wrong(model, drops_an_output_axis)}, tolerance=1e-5)


class OneByOne(StepMethod):
    """The same bits in every batch, since there is never more than one row in it."""

    def step(self, items, state):
        rows = [
            super(OneByOne, self).step(items[[row]], [tensor[[row]] for tensor in state]) for row in range(len(items))
        ]
        series, following = zip(*rows, strict=True)
        return [np.concatenate(parts) for parts in zip(*series, strict=True)], [
            np.concatenate(parts) for parts in zip(*following, strict=True)
        ]


class TestEqualBits:
    """A form that promises the same bits for a row is checked to the last bit."""

    def failing(self, model, mistake=lambda run, *batch: run(*batch)):
        interface = Interface.of(model)
        right = OneByOne(model, interface)
        checks = exact_row_checks(
            "form", Form(lambda *batch: mistake(right, *batch)), interface, Coverage(), np.random.default_rng(0)
        )
        return {(check.scenario, check.tensor): check.difference for check in checks if not check.passed}

    def test_a_form_that_keeps_its_promise_passes(self, model):
        """Every row is the same in batches of any size, in another place, and step by step."""
        assert self.failing(model) == {}

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_a_batch_that_moves_the_last_bit_fails(self, model, size):
        """One unit in the last place of one state, in batches of one size."""

        def leaks(run, items, lengths, state):
            series, (h, c) = run(items, lengths, state)
            return series, [np.nextafter(h, np.float32(9)) if len(items) == size else h, c]

        found = self.failing(model, leaks)
        assert (f"equal bits, in batches of {size}", "next_state_h_l0") in found
        assert all(tensor == "next_state_h_l0" and difference < 1e-6 for (_, tensor), difference in found.items())

    def test_a_place_in_the_batch_that_matters_fails(self, model):
        """The first row of any batch is a bit larger."""

        def favours_the_first(run, items, lengths, state):
            (logits,), following = run(items, lengths, state)
            return [np.concatenate([logits[:1] * np.float32(1.000001), logits[1:]])], following

        assert ("equal bits, in another order", "logits") in self.failing(model, favours_the_first)

    def test_a_zero_of_the_other_sign_fails(self, model):
        """Equal bits are meant, not equal numbers."""

        def negates(run, items, lengths, state):
            (logits,), following = run(items, lengths, state)
            return [np.where(logits == 0, np.float32(-0.0 if len(items) == 64 else 0.0), logits)], following

        assert {tensor for _, tensor in self.failing(model, negates)} == {"logits"}

    def test_forms_that_promise_nothing_are_not_held_to_it(self, model):
        """Eager PyTorch rounds a batch of one row differently."""
        report = verify(Reference(model, Interface.of(model)), {"form": whole(model)}, tolerance=1e-5, coverage=SMALL)
        assert not any(check.equal_bits for check in report.checks)


class TestScenarios:
    """The scenarios and cuts that are drawn."""

    def test_cuts_differ_and_some_make_chunks_without_steps(self):
        """Every chunking begins at 0 and ends at S; lengths vary down to 0."""
        rng = np.random.default_rng(0)
        chunkings = [draw_cuts(17, rng) for _ in range(50)]
        assert all(cuts == sorted(cuts) and (cuts[0], cuts[-1]) == (0, 17) for cuts in chunkings)
        assert len({tuple(cuts) for cuts in chunkings}) > 40
        assert {0, 1, 10} <= {end - start for cuts in chunkings for start, end in pairwise(cuts)}

    @pytest.mark.parametrize("num_items", [1, 1000, 20_000, 100_000])
    def test_memory_is_bounded_for_every_vocabulary(self, num_items):
        """No piece of any scenario has more logits than are held in memory at once, and the pieces cover all steps."""
        for scenario in all_scenarios(num_items, (), np.random.default_rng(0)):
            batch, steps = scenario.items.shape
            cuts = list(pieces(scenario, num_items))
            assert [start for start, _ in cuts] + [steps] == [0] + [end for _, end in cuts]
            assert max(end - start for start, end in cuts) * batch * num_items <= 12_000_000

    def test_every_item_is_stepped_up_to_20000_and_an_even_sample_above(self):
        """The scenario's name says which."""
        for num_items, name, expected in ((20_000, "every item", 20_000), (100_000, "5,000 of 100,000 items", 5_000)):
            drawn = [s for s in all_scenarios(num_items, (), np.random.default_rng(0)) if s.name == name]
            items = np.concatenate([scenario.items[:, 0] for scenario in drawn])
            assert len(np.unique(items)) == expected
            assert np.diff(items).max() <= num_items / expected + 1


def test_the_largest_difference_is_that_of_the_plain_formula():
    """Block by block and over leading axes, as |a - b| / max(1, |b|) says in one line; NaN is infinite."""
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 3, (5, 40, 700))
    actual = (expected + rng.normal(0, 1e-4, expected.shape)).astype(np.float32)
    actual[3, 2, 1] = np.nan
    plain = np.nan_to_num(np.abs(actual - expected) / np.maximum(1, np.abs(expected)), nan=np.inf)
    found = largest(actual, expected, 2)
    np.testing.assert_allclose(found.values, plain.max(2), rtol=1e-12)
    assert found.overall(np.zeros((5, 40), bool)) == (np.inf, (3, 2, 1))
