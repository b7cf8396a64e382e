"""What is minimised: held against loops by hand, and the sample against all items."""

import math

import pytest
import torch
from torch.nn import functional as F

from arraylstm import LSTM2002, NextItemModel
from arraylstm.training import TrainingOptions, losses
from arraylstm.training.losses import Predictions, Sample, Scores, bpr_max, gbce, learn, make_objective, sampled

SESSIONS = [[0, 1, 2, 3, 4, 0, 1], [2, 3], [4, 4, 1, 0], [1, 1, 1, 1]]


def make(**sizes):
    torch.manual_seed(3)
    model = NextItemModel("lstm", 9, 6, **({"embedding_size": 5, "repeat_bias": True} | sizes)).eval()
    with torch.no_grad():
        model.repeat.fill_(-0.7)
        model._rows()[1].normal_()
    return model


def predictions(n=4):
    torch.manual_seed(1)
    items = torch.randint(9, (2, n))
    return Predictions(torch.randn(n, 6), items[0], items[1])


@pytest.mark.parametrize("sizes", [{}, {"tied": True}, {"tied": True, "scale": 3.0}], ids=str)
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_sampled_sum_is_right_in_the_mean(sizes, power):
    """The sum over exp(score), the target's exact and the others' estimated, is that over all items."""
    model, given = make(**sizes), predictions()
    sample = Sample(model, SESSIONS, 20_000, power, weighted=True)
    torch.manual_seed(0)
    with torch.no_grad():
        scores = sample.scores(given)
        every = model.score(given.h, given.items)
        torch.testing.assert_close(scores.positive, every.gather(1, given.targets[:, None])[:, 0])
        expected = F.cross_entropy(every, given.targets, reduction="sum").item()
        assert sampled(scores).item() == pytest.approx(expected, rel=0.02)


def all_items(model, given):
    """Scores of a sample in which every item stands once."""
    every = model.score(given.h, given.items)
    positive = every.gather(1, given.targets[:, None])[:, 0]
    return Scores(positive, every, given.targets[:, None] == torch.arange(9), torch.zeros(9), 9)


def test_a_sample_of_all_items_is_the_full_softmax():
    """Drawn targets count for nothing, as the target is there already."""
    model, given = make(), predictions()
    every = model.score(given.h, given.items)
    expected = F.cross_entropy(every, given.targets, reduction="sum")
    torch.testing.assert_close(sampled(all_items(model, given)), expected)
    spread = sum(
        -every[row].log_softmax(0)[item] / 8 for row in range(4) for item in range(9) if item != given.targets[row]
    )
    torch.testing.assert_close(sampled(all_items(model, given), 0.3), 0.7 * expected + 0.3 * spread)


def test_gbce_and_bpr_max_are_those_of_loops_by_hand():
    """Over every target and every drawn item that is another."""
    model, given = make(), predictions()
    scores = all_items(model, given)._replace(num_items=31)
    beta = 0.3 * (0.75 * (1 - 1 / 0.3) + 1 / 0.3)
    by_gbce = by_bpr = 0.0
    for row, target in enumerate(given.targets.tolist()):
        s = scores.negative[row].tolist()
        others = [s[item] for item in range(9) if item != target]
        p = torch.tensor(others).softmax(0).tolist()
        sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
        by_gbce -= beta * math.log(sigmoid(s[target])) + sum(math.log(1 - sigmoid(other)) for other in others)
        by_bpr -= math.log(sum(share * sigmoid(s[target] - other) for share, other in zip(p, others)))
        by_bpr += 0.5 * sum(share * other**2 for share, other in zip(p, others))
    assert gbce(scores, 0.75).item() == pytest.approx(by_gbce, rel=1e-5)
    assert bpr_max(scores, 0.5).item() == pytest.approx(by_bpr, rel=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"tied": True, "scale": 3.0}], ids=str)
def test_learning_part_by_part_gives_the_same_gradients(sizes, monkeypatch):
    """And never more scores at once than the bound says."""
    seen = []

    def gradients():
        model, given = make(**sizes), predictions(10)
        h = given.h.clone().requires_grad_()
        score = model.score
        monkeypatch.setattr(model, "score", lambda *args: seen.append(score(*args)) or seen[-1])
        objective = make_objective(model, SESSIONS, TrainingOptions(loss="full", label_smoothing=0.1))
        nats = learn(objective, 9, given._replace(h=h * 2))
        return [nats, h.grad, *(weight.grad for weight in model.parameters() if weight.grad is not None)]

    whole = gradients()
    monkeypatch.setattr(losses, "LARGEST_SCORES", 30)
    seen.clear()
    for one, other in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, other)
    assert max(scores.numel() for scores in seen) <= 30


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("lstm2002", {"loss": "sampled"}, "loss sampled needs a NextItemModel, got LSTM2002: take full"),
        ("lstm2002", {"loss": "full", "label_smoothing": 0.1}, "is an argument of LSTM2002 itself; give it there"),
        ("next", {"loss": "gbce", "label_smoothing": 0.1}, "goes with full and sampled, not with gbce"),
        ("next", {"loss": "ctc"}, "loss must be one of full, sampled, gbce, bpr-max, got 'ctc'"),
        ("next", {"negatives": 0}, "negatives must be an integer of at least 1, got 0"),
        ("next", {"negatives_power": 1.5}, "negatives_power must be from 0 to 1.0, got 1.5"),
        ("next", {"average": 1.0}, "average must be from 0 to below 1.0, got 1.0"),
        ("next", {"reverse": -0.5}, "reverse must be from 0 to 1.0, got -0.5"),
        ("next", {"patience": -1}, "patience must be at least 0, got -1"),
        ("next", {"keep_by": "f1"}, "keep_by must be one of loss, mrr@20, hit@20, got 'f1'"),
    ],
)
def test_options_that_do_not_go_together_are_refused_by_name(model, options, message):
    """ValueError says what was given and what is allowed."""
    made = make() if model == "next" else LSTM2002(tknzr=type("T", (), {"vocab_size": 8})(), d_blk=2, n_blk=2, d_emb=3)
    with pytest.raises(ValueError, match=message):
        make_objective(made, SESSIONS, TrainingOptions(**options))
