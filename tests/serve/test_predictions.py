"""From logits to predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from arraylstm_serve.engine.ranking import Ranking, Selection, log_sum_exp, observe, rank, rank_each, top_ids

few_values = st.sampled_from([-np.inf, -2.0, -0.0, 0.0, 1.0, 1.5])
tied_logits = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=few_values)


@given(tied_logits, st.data())
def test_top_ids_orders_by_logit_then_id(logits: np.ndarray, data: st.DataObject) -> None:
    """The top ids are those a sort by falling logit and rising id puts first, ties and infinities included."""
    k = data.draw(st.integers(1, logits.shape[1]))
    expected = [sorted(range(len(row)), key=lambda item, row=row: (-row[item], item))[:k] for row in logits]
    assert top_ids(logits, k).tolist() == expected


def test_probabilities_are_those_of_softmax() -> None:
    """Ranked probabilities equal a float64 softmax and sum to one over all items, large logits included."""
    logits = (np.random.default_rng(1).normal(size=(3, 50)) * 100).astype(np.float32)
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    softmax = weights / weights.sum(axis=1, keepdims=True)
    for row, ranking in zip(softmax, rank(logits, log_sum_exp(logits), 50), strict=True):
        np.testing.assert_allclose(ranking.probabilities, row[ranking.ids], rtol=1e-5, atol=1e-30)
        assert sum(ranking.probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("width", [1, 7, 28, 1000])
def test_a_row_does_not_depend_on_its_neighbours(width: int) -> None:
    """Every number worked out for a row is the same bits alone and inside any batch."""
    random = np.random.default_rng(width)
    logits = random.normal(size=(65, width)).astype(np.float32)
    items = random.integers(0, width, size=65)
    log_sums = log_sum_exp(logits)
    rankings = rank(logits, log_sums, min(width, 10))
    chances, places = observe(logits, log_sums, items)
    for row in range(65):
        alone = slice(row, row + 1)
        assert log_sum_exp(logits[alone]) == log_sums[row]
        assert rank(logits[alone], log_sums[alone], min(width, 10)) == [rankings[row]]
        assert observe(logits[alone], log_sums[alone], items[alone]) == (chances[row], places[row])


def test_each_row_is_ranked_as_far_as_it_asks() -> None:
    """Rows that ask for different numbers of items, or for none, get them in their own places."""
    logits = np.random.default_rng(2).normal(size=(6, 40)).astype(np.float32)
    log_sums = log_sum_exp(logits)
    depths = [3, 0, 10, 3, 40, 0]
    whole = rank(logits, log_sums, 40)
    expected = [Ranking(row.ids[:depth], row.probabilities[:depth]) for row, depth in zip(whole, depths, strict=True)]
    assert rank_each(logits, log_sums, depths) == expected
    assert rank_each(logits, log_sums, [40] * 6) == whole


def test_rank_counts_strictly_larger_logits() -> None:
    """An item's rank is 1 + the number of items with a strictly larger logit, so ties share a rank."""
    logits = np.tile(np.float32([2, 5, 2, -1]), (4, 1))
    _, ranks = observe(logits, log_sum_exp(logits), np.arange(4))
    assert ranks.tolist() == [2, 1, 2, 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_no_distribution_is_told_by_its_log_sum(bad: float) -> None:
    """A NaN or an infinity among the logits makes that row's log-sum-exp not finite, and no other row's."""
    logits = np.zeros((2, 3), np.float32)
    logits[1, 2] = bad
    assert np.isfinite(log_sum_exp(logits)).tolist() == [True, False]


def test_excluded_items_give_way_to_the_next_ones() -> None:
    """Excluding items still answers as many others as were asked for."""
    selection = Selection.of(2, 10, frozenset({3, 1}))
    assert selection.depth == 4
    assert Selection.of(2, 3, frozenset({3, 1})).depth == 3
    assert selection.choose(Ranking([3, 0, 1, 2], [0.4, 0.3, 0.2, 0.1])) == Ranking([0, 2], [0.3, 0.1])


def test_no_predictions_need_no_ranking() -> None:
    """A top_k of 0 looks at no item, whatever is excluded."""
    assert Selection.of(0, 10, frozenset({1})).depth == 0
