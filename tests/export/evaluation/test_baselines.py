"""What a model has to beat, against transcriptions that count in dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from arraylstm import Vocabulary
from arraylstm.data import DataOptions, read_sessions
from arraylstm.metrics import Tally
from arraylstm_export.evaluation.baselines import Neighbours, NGram, Training
from arraylstm_export.evaluation.measure import measure
from arraylstm_export.evaluation.sessions import NO_ID, Batch, Encoder
from arraylstm_export.evaluation.vmis import VMISKNN, Sizes

V = 7
random = np.random.default_rng(0)
PAST = [random.integers(0, V - 1, size=random.integers(1, 8)) for _ in range(40)]
NEW = [random.integers(0, V, size=random.integers(2, 9)) for _ in range(12)]


def histories_and_scores(baseline):
    """Every history of the new sessions, with what a baseline scores after it."""
    batch = Batch(range(len(NEW)), NEW)
    for window in batch.windows(5):
        scores = np.concatenate([np.asarray(scores) for _, scores, _ in baseline.chunks(batch, window)])
        for row, end, given in zip(window.rows, window.ends, scores, strict=True):
            yield NEW[row][: end + 1].tolist(), given


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_an_n_gram_backs_off_as_witten_and_bell_do(order):
    """Probabilities are those of the formula, and sum to 1."""
    followers = defaultdict(Counter)
    for session in PAST:
        for place in range(1, len(session)):
            for length in range(1, min(order, place) + 1):
                followers[tuple(session[place - length : place])][int(session[place])] += 1
    occurs = Counter(int(item) for session in PAST for item in session)

    def chance(history, item):
        if not history:
            return (occurs[item] + 1) / (sum(occurs.values()) + V)
        counts = followers[tuple(history)]
        shorter = chance(history[1:], item)
        return (counts[item] + len(counts) * shorter) / (sum(counts.values()) + len(counts)) if counts else shorter

    for history, scores in histories_and_scores(NGram(Training(PAST, V), order, "")):
        context = history[len(history) - min(order, len(history)) :]
        expected = [chance(context, item) for item in range(V)]
        assert sum(expected) == pytest.approx(1)
        np.testing.assert_allclose(np.exp(scores), expected, rtol=1e-5)


def test_neighbours_count_in_both_directions_and_fade_with_distance():
    """Scores are those of a count over pairs, NaN for an item that stood beside none."""
    reach, decay = 3, 0.5
    beside = defaultdict(float)
    for session in PAST:
        for one in range(len(session)):
            for other in range(len(session)):
                if 0 < abs(one - other) <= reach and session[one] != session[other]:
                    beside[int(session[one]), int(session[other])] += 1 / abs(one - other)
    sums = {item: sum(value for (one, _), value in beside.items() if one == item) for item in range(V)}
    for history, scores in histories_and_scores(Neighbours(Training(PAST, V), reach, decay)):
        expected = np.zeros(V)
        for back, item in enumerate(reversed(history[-reach:])):
            for other in range(V):
                if sums[item]:
                    expected[other] += decay**back * beside[item, other] / math.sqrt(sums[item])
        np.testing.assert_allclose(np.nan_to_num(scores), expected, rtol=1e-5)


@pytest.mark.parametrize("sizes", [Sizes(), Sizes(sessions=5, neighbours=3, items=3)])
def test_vmis_knn_is_the_published_one(sizes):
    """Neighbours, their similarity and the items' scores are those of a transcription over sets."""
    held = [set(map(int, session)) for session in PAST]
    for history, scores in histories_and_scores(VMISKNN(Training(PAST, V), sizes)):
        session = history[-sizes.items :]
        last = {item: place for place, item in enumerate(session, start=1)}
        similar = defaultdict(float)
        for item, place in last.items():
            holders = [number for number, items in enumerate(held) if item in items][-sizes.sessions :]
            for number in holders:
                similar[number] += place / len(session)
        latest = sorted(similar, reverse=True)[: sizes.sessions]
        neighbours = sorted(latest, key=lambda number: (-similar[number], -number))[: sizes.neighbours]
        expected = np.zeros(V)
        for number in neighbours:
            nearest = min(len(session) + 1 - last[item] for item in held[number] if item in last)
            for item in held[number]:
                holders = sum(item in items for items in held)
                rarity = math.log(len(held) / holders) + 1e-9
                expected[item] += similar[number] * max(0.0, 1 - 0.1 * nearest) * rarity
        np.testing.assert_allclose(np.nan_to_num(scores), expected, rtol=1e-4, atol=1e-9)


def test_items_that_are_left_out_are_in_no_history():
    """Neither where baselines count, nor where they predict; but they are to be predicted."""
    sessions = [np.array([NO_ID, 1, NO_ID, 2, NO_ID]), np.array([3, NO_ID])]
    batch = Batch([0, 1], sessions)
    (window,) = batch.windows(99)
    assert batch.items.tolist() == [1, 2, 3]
    made = sorted(zip(window.rows.tolist(), window.ends.tolist(), window.targets.tolist(), strict=True))
    assert made == [(0, 0, NO_ID), (0, 0, 2), (0, 1, NO_ID), (1, 0, NO_ID)]
    assert batch.rest(window).tolist() == [2, 2, 1, 1]
    assert Training(sessions, 4).items.tolist() == [1, 2, 3]


def test_vmis_knn_reaches_its_published_figures_on_serenade(shared):
    """hit@20 .6402 and MRR@20 .3277 are published, of the tuned one .3401."""
    folder = shared / "data" / "serenade"
    train, test = (read_sessions(folder / f"{name}.txt", DataOptions())[0] for name in ("train", "test"))
    vocabulary = Vocabulary.from_sessions(train)
    encode = Encoder(vocabulary)
    training = Training([encode(session) for session in train], len(vocabulary))
    (found,) = measure(
        [VMISKNN(training)],
        [encode(session) for session in test],
        lambda: Tally((20,), len(vocabulary), None, torch.from_numpy(training.counts)),
        num_items=len(vocabulary),
        unknown=None,
    )
    figures = found.figures()
    assert figures["predictions"] == 931
    assert figures["without_current"]["hit@20"] > 0.66
    assert figures["without_current"]["mrr@20"] > 0.34
