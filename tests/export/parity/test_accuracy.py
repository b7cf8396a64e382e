"""The measured cost of a form, on forms whose cost is known."""

from dataclasses import asdict

import numpy as np
import pytest

from arraylstm_export.errors import ExportError
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface, State
from arraylstm_export.parity import scenarios
from arraylstm_export.parity.accuracy import checked_sequences, compare

NUM_ITEMS = 12
INTERFACE = Interface(NUM_ITEMS, ())
SEQUENCES = [np.array(items) for items in ([3, 4, 5, 6], [0, 1], [11, 0, 5], [2, 2])]
STEPS = 3 + 1 + 2 + 1


class Table(Runner):
    """A form that scores the next item by a table (V, V) of the item before."""

    def __init__(self, table):
        self.table = table
        self.batches = []

    def __call__(self, items, lengths, state):
        self.batches.append(items.shape)
        past = np.arange(items.shape[1]) >= lengths[:, None]
        return [np.where(past[:, :, None], np.nan, self.table[items]).astype(np.float32)], []


class Adding(Table):
    """Scores by a table of the sum of all items so far, which is its state (B)."""

    def __call__(self, items, lengths, state):
        within = np.arange(items.shape[1]) < lengths[:, None]
        sums = state[0][:, None] + np.cumsum(items * within, 1)
        series, _ = super().__call__(sums.astype(int) % NUM_ITEMS, lengths, state)
        return series, [sums[:, -1].astype(np.float32)]


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


def test_the_unknown_item_is_no_hit_and_takes_no_place():
    """Where it follows, nothing was hit; where it scored higher, the item that followed moves up."""
    forms = Table(ascending(1)), Table(ascending(0))
    plain, honest = (compare(*forms, INTERFACE, SEQUENCES, unknown=unknown) for unknown in (None, 5))
    assert honest.before.top_1 == plain.before.top_1 - 1 / STEPS  # 4 was followed by 5
    sequences = [np.array([5, 6])]  # the second form scores 5 above 6
    plain, honest = (compare(*forms, INTERFACE, sequences, unknown=unknown) for unknown in (None, 5))
    assert (plain.after.top_1, honest.after.top_1) == (0, 1)


def test_logits_at_once_are_bounded_and_pieces_change_nothing(monkeypatch):
    """However few steps may be scored at once, be it of one long sequence, the result is that of all at once."""
    interface = Interface(NUM_ITEMS, (State("sum", ()),))
    sequences = [*SEQUENCES, np.random.default_rng(0).integers(0, NUM_ITEMS, 100)]
    whole = compare(Adding(ascending(1)), Adding(ascending(2)), interface, sequences)
    monkeypatch.setattr(scenarios, "_LARGEST_LOGITS", 6 * NUM_ITEMS)
    monkeypatch.setattr(scenarios, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(scenarios, "_FEWEST_STEPS", 1)
    forms = Adding(ascending(1)), Adding(ascending(2))
    found = compare(*forms, interface, sequences)
    assert found.steps == STEPS + 99
    assert flat(found) == pytest.approx(flat(whole))
    for form in forms:
        assert max(rows * steps for rows, steps in form.batches) <= 6
        assert len(form.batches) < 25  # short ones go together, long ones in pieces as large as may be


def test_what_tells_nothing_is_left_out():
    """Of empty, short and long sequences the long ones stay, as int64 whatever integers they were."""
    (found,) = checked_sequences([[], [7], np.array([3, 11], np.uint8)], NUM_ITEMS)
    np.testing.assert_array_equal(found, [3, 11])
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[], [1]], "none of the 2 held-out sequences has two items, one to predict the next from"),
        ([[0, 11], [3, 12]], "held-out sequence 1: items are 0 to 11, got 12"),
        ([[0, -1]], "held-out sequence 0: items are 0 to 11, got -1"),
        ([[0.0, 1.0]], r"held-out sequence 0: must be integers \(S\), got float64 \[2\]"),
        ([["a", "b"]], r"must be integers \(S\), got <U1 \[2\]"),
        ([[True, False]], r"must be integers \(S\), got bool \[2\]"),
        ([[[0, 1], [2, 3]]], r"must be integers \(S\), got int64 \[2, 2\]"),
    ],
)
def test_sequences_that_are_not_of_items_are_refused(sequences, message):
    """The message names the sequence, what it holds and what is allowed."""
    with pytest.raises(ExportError, match=message):
        checked_sequences(sequences, NUM_ITEMS)


def test_the_rows_show_both_qualities_and_the_cost():
    """Quality is shown before and after; the cost, which only the cheaper form has, after."""
    rows = compare(Table(ascending(1)), Table(ascending(2)), INTERFACE, SEQUENCES).rows()
    assert ("next item scored highest", "71.43%", "0.00%") in rows
    assert ("logit error, largest", "", "1.1e+01") in rows


@pytest.mark.parametrize(("score", "ranks"), [([5, 5, 5], [1, 1, 1]), ([1, 2, 2], [3, 1, 1]), ([3, 2, 2], [1, 2, 2])])
def test_items_of_equal_score_share_the_best_of_their_ranks(score, ranks):
    """As in the server's `observed`, a rank is one more than the number of items that are more likely."""
    scores = np.array([[*score, *[9] * 9]] * 3, float)
    for above in (0, 9):
        scores[:, 3:] = 9 if above else 0
        found = compare(
            Table(np.tile(scores[0], (NUM_ITEMS, 1))),
            Table(np.tile(scores[0], (NUM_ITEMS, 1))),
            INTERFACE,
            [np.array([7, item]) for item in range(3)],
        )
        expected = np.array(ranks) + above
        assert found.before.top_1 == (expected <= 1).mean()
        assert found.before.top_10 == (expected <= 10).mean()


def test_the_first_ten_are_those_of_lower_id_among_equals():
    """Two forms that score alike have all in common, whatever ties they have."""
    level = np.zeros((NUM_ITEMS, NUM_ITEMS))
    found = compare(Table(level), Table(level), INTERFACE, SEQUENCES)
    assert (found.same_top_1, found.shared_top_10, found.before.top_1, found.before.top_10) == (1, 1, 1, 1)
    raised = level + (np.arange(NUM_ITEMS) >= 2)  # the first ten are 2 to 11, of which level has 2 to 9
    found = compare(Table(level), Table(raised), INTERFACE, SEQUENCES)
    assert (found.same_top_1, found.shared_top_10) == (0, pytest.approx(0.8))
