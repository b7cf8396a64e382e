"""What a cheaper form costs, on forms whose costs are known."""

from dataclasses import asdict

import numpy as np
import pytest

from arraylstm_export import accuracy
from arraylstm_export.accuracy import compare
from arraylstm_export.errors import ExportError
from arraylstm_export.signature import Interface

NUM_ITEMS = 12
INTERFACE = Interface(NUM_ITEMS, ())
SEQUENCES = [np.array(items) for items in ([3, 4, 5, 6], [], [7], [0, 1], [11, 0, 5], [2, 2])]
STEPS = 3 + 1 + 2 + 1


class Table:
    """A form that scores the next item by a table (V, V) of the item before."""

    def __init__(self, table):
        self.table = table
        self.batches = []

    def __call__(self, items, lengths, state):
        self.batches.append(items.shape)
        past = np.arange(items.shape[1]) >= lengths[:, None]
        return [np.where(past[:, :, None], np.nan, self.table[items]).astype(np.float32)], []


def ascending(shift):
    """Scores 12 for the item `shift` after an item, 11 for the one after that, and so on down to 1."""
    ids = np.arange(NUM_ITEMS)
    return 12.0 - (ids[None] - ids[:, None] - shift) % NUM_ITEMS


def flat(found):
    """Every number of an accuracy."""
    fields = asdict(found)
    return [*fields.pop("before").values(), *fields.pop("after").values(), *fields.values()]


def test_a_form_that_scores_alike_costs_nothing():
    """No error, all predictions shared, the same quality before and after; quality is what counting by hand gives."""
    found = compare(Table(ascending(1)), Table(ascending(1)), INTERFACE, SEQUENCES)
    assert (found.steps, found.same_top_1, found.shared_top_10) == (STEPS, 1, 1)
    assert found.rms_error == found.largest_error == 0
    assert found.before == found.after
    assert found.before.top_1 == pytest.approx(5 / STEPS)  # all but 0 -> 5 and 2 -> 2
    assert found.before.top_10 == pytest.approx(6 / STEPS)  # 2 -> 2 comes last
    nats = np.log(np.exp(np.arange(1.0, 13)).sum()) - np.array([12] * 5 + [8, 1])
    assert found.before.perplexity == pytest.approx(np.exp(nats.mean()))


def test_costs_are_what_counting_by_hand_gives():
    """Predictions shifted by one share nine of ten, never the first; errors are taken over every logit."""
    found = compare(Table(ascending(1)), Table(ascending(2)), INTERFACE, SEQUENCES)
    assert found.same_top_1 == 0
    assert found.shared_top_10 == pytest.approx(0.9)
    assert found.largest_error == 11
    assert found.rms_error == pytest.approx(np.sqrt((11 * 1 + 121) / 12))
    assert found.after.top_1 == 0
    assert found.after.top_10 == pytest.approx(1 / STEPS)  # 0 -> 5


def test_batches_are_bounded_and_change_nothing(monkeypatch):
    """However few scores may be held at once, the result is the same, and no batch holds more but for one sequence."""
    whole = compare(Table(ascending(1)), Table(ascending(2)), INTERFACE, SEQUENCES)
    monkeypatch.setattr(accuracy, "_MOST_SCORES", 6 * NUM_ITEMS)
    form = Table(ascending(1))
    found = compare(form, Table(ascending(2)), INTERFACE, SEQUENCES)
    assert form.batches == [(1, 4), (2, 3), (1, 2)]
    assert flat(found) == pytest.approx(flat(whole))


def test_sequences_that_tell_nothing_are_refused():
    """Without a sequence of two items there is nothing to compare, in words."""
    with pytest.raises(ExportError, match="none of the 2 sequences has two items"):
        compare(Table(ascending(1)), Table(ascending(1)), INTERFACE, [np.array([], int), np.array([1])])


def test_the_rows_show_both_qualities_and_the_cost():
    """Quality is told before and after; the cost, which only the cheaper form has, after."""
    rows = compare(Table(ascending(1)), Table(ascending(2)), INTERFACE, SEQUENCES).rows()
    assert ("next item scored highest", "71.43%", "0.00%") in rows
    assert ("logit error, largest", "", "1.1e+01") in rows
