"""Figures of quality from streams of predictions, against plain loops over them."""

import math
from itertools import pairwise

import pytest
import torch

from arraylstm.metrics import NOWHERE, Comparison, Tally, judge, recall

V, N, K = 9, 200, 4


def random(*shape, high=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator) if high is None else torch.randint(high, shape, generator=generator)


SCORES = random(N, V, high=6).float()  # small integers tie often
SCORES[random(N, V, seed=1) < 0.2] = math.nan
TARGETS, CURRENT, POSITIONS = random(N, high=V, seed=2), random(N, high=V, seed=3), random(N, high=70, seed=4) + 1


def made(unknown=None, chosen=slice(None), **changes):
    arguments = {"unknown": unknown, "length": K, **changes}
    return judge(SCORES[chosen].clone(), TARGETS[chosen], CURRENT[chosen], POSITIONS[chosen], **arguments)


def place(row, target, left_out):
    """The rank of an item among those that are recommended, by looking at each of the others."""
    own = float(row[target])
    if target in left_out or math.isnan(own):
        return NOWHERE
    return 1 + sum(float(score) > own for item, score in enumerate(row) if item not in left_out)


@pytest.mark.parametrize("unknown", [None, 0, 5])
def test_ranks_are_places_among_what_is_recommended(unknown):
    """The unknown item is not among it, nor is the current one where it is left out, nor what has no score."""
    found = made(unknown)
    for row in range(N):
        target, current = int(TARGETS[row]), int(CURRENT[row])
        assert found.ranks[row] == place(SCORES[row], target, {unknown})
        assert found.ranks_without[row] == place(SCORES[row], target, {unknown, current})


@pytest.mark.parametrize("unknown", [None, 0, 5])
def test_what_is_recommended_has_the_highest_scores(unknown):
    """Best first, without the unknown item and, where it is left out, the current one; -1 where there is none."""
    found = made(unknown)
    for row in range(N):
        for best, left_out in (
            (found.best[row], {unknown}),
            (found.best_without[row], {unknown, int(CURRENT[row])}),
        ):
            items = [item for item in best.tolist() if item >= 0]
            known = [item for item in range(V) if item not in left_out and not SCORES[row, item].isnan()]
            assert len(items) == len(set(items)) == min(K, len(known))
            assert best.tolist() == items + [-1] * (K - len(items))
            expected = sorted((float(SCORES[row, item]) for item in known), reverse=True)[:K]
            assert [float(SCORES[row, item]) for item in items] == expected


def test_an_item_without_an_id_is_never_a_hit_and_has_no_surprise():
    """It counts as a prediction, and as one of an unknown item."""
    scores = torch.zeros(2, V)
    found = judge(
        scores,
        torch.tensor([-1, 3]),
        torch.tensor([0, 1]),
        torch.tensor([1, 2]),
        unknown=None,
        length=V,
        log_sums=scores.double().logsumexp(1),
    )
    tally = Tally((V,), V)
    tally.add(found)
    figures = tally.figures()
    assert (figures["predictions"], figures["unknown"]) == (2, 1)
    assert figures["all"][f"hit@{V}"] == 0.5
    assert figures["perplexity"] == pytest.approx(V)


@pytest.mark.parametrize("unknown", [None, 5])
def test_figures_are_those_of_a_count_by_hand_whatever_the_pieces(unknown):
    """Hit, MRR and NDCG at each length, the MRR of all ranks, coverage and popularity, however the stream is cut."""
    counts = random(V, high=50, seed=6)
    ranks = made(unknown).ranks.tolist()
    for bounds in ([0, N], [0, 1, 3, 200, N]):
        tally = Tally((1, 3, K), V, unknown, counts)
        for start, end in pairwise(bounds):
            tally.add(made(unknown, slice(start, end)))
        found = tally.figures()["all"]
        for k in (1, 3, K):
            hits = [rank for rank in ranks if rank <= k]
            assert found[f"hit@{k}"] == pytest.approx(len(hits) / N)
            assert found[f"mrr@{k}"] == pytest.approx(sum(1 / rank for rank in hits) / N)
            assert found[f"ndcg@{k}"] == pytest.approx(sum(1 / math.log2(1 + rank) for rank in hits) / N)
        assert found["mrr"] == pytest.approx(sum(1 / rank for rank in ranks if rank != NOWHERE) / N)
        shown = [item for row in made(unknown).best.tolist() for item in row if item >= 0]
        assert found[f"coverage@{K}"] == len(set(shown)) / (V - (unknown is not None))
        taken = [float(counts[item]) for item in TARGETS.tolist() if item != unknown]
        bias = sum(float(counts[item]) for item in shown) / len(shown) / (sum(taken) / len(taken))
        assert found[f"popularity@{K}"] == pytest.approx(bias)


def test_groups_hold_every_prediction_once():
    """Positions are cut at the given places, popularity into quarters of the events."""
    tally = Tally((K,), V, None, torch.tensor([8, 4, 2, 1, 1, 0, 0, 0, 0]))
    tally.add(made())
    figures = tally.figures()
    positions = {row["positions"]: row["predictions"] for row in figures["by_position"]}
    assert list(positions) == ["1", "2", "3", "4 to 5", "6 to 10", "11 to 20", "21 to 50", "51 and more"]
    assert positions["4 to 5"] == int(((POSITIONS >= 4) & (POSITIONS <= 5)).sum())
    assert sum(positions.values()) == N
    quarters = {row["quarter"]: row["predictions"] for row in figures["by_popularity"]}
    assert quarters[1] == int((TARGETS == 0).sum())
    assert quarters[3] == int((TARGETS == 1).sum())
    assert quarters[4] == int((TARGETS >= 2).sum())


def test_perplexity_and_calibration_are_those_of_the_probabilities():
    """The surprise is -log p of what followed; a group of about the same probability has its mean and share of hits."""
    scores = random(N, V, seed=8) * 4
    chances = scores.double().softmax(1)
    found = judge(
        scores.clone(), TARGETS, CURRENT, POSITIONS, unknown=None, length=K, log_sums=scores.double().logsumexp(1)
    )
    tally = Tally((K,), V)
    tally.add(found)
    figures = tally.figures()
    given = chances[torch.arange(N), TARGETS]
    assert figures["perplexity"] == pytest.approx(float((-given.log()).mean().exp()))
    right = (found.ranks == 1).double()
    for row in figures["calibration"]:
        low = math.floor(row["probability"] * 10) / 10
        inside = (chances.max(1).values >= low) & (chances.max(1).values < low + 0.1)
        assert row["predictions"] == int(inside.sum())
        assert row["probability"] == pytest.approx(float(chances.max(1).values[inside].mean()))
        assert row["right"] == pytest.approx(float(right[inside].mean()))


def test_recall_is_the_share_of_the_rest_that_the_list_holds():
    """At each length; the sum over predictions."""
    comes = torch.tensor([[True, False, True], [False, False, True]])
    assert recall(comes, torch.tensor([4, 1])).tolist() == [0.25, 0.25, 0.5 + 1]


def test_a_comparison_says_what_the_bootstrap_says():
    """The standard error over sessions agrees with that of sessions drawn again and again."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(1, 9, (300,), generator=generator)
    differences = torch.randn(300, generator=generator).double() * counts + 0.1 * counts
    comparison = Comparison()
    for part in (slice(0, 100), slice(100, 300)):
        comparison.add(differences[part], counts[part])
    assert comparison.difference == pytest.approx(float(differences.sum() / counts.sum()))
    drawn = torch.randint(300, (4000, 300), generator=generator)
    means = differences[drawn].sum(1) / counts[drawn].sum(1)
    assert comparison.standard_error == pytest.approx(float(means.std()), rel=0.05)


@pytest.mark.parametrize(
    ("differences", "verdict"), [([1.0] * 40, "better"), ([-1.0] * 40, "worse"), ([1.0, -1.0] * 20, "not sure")]
)
def test_a_verdict_is_sure_only_where_the_sessions_agree(differences, verdict):
    """No difference at all is not sure either, and neither is one session."""
    comparison = Comparison()
    comparison.add(torch.tensor(differences), torch.ones(40))
    assert comparison.figures()["verdict"] == verdict
    none, one = Comparison(), Comparison()
    none.add(torch.zeros(40), torch.ones(40))
    one.add(torch.ones(1), torch.ones(1))
    assert none.figures()["verdict"] == one.figures()["verdict"] == "not sure"
