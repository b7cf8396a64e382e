"""Fitting a model to sessions, and measuring how well it predicts."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import arraylstm
from arraylstm import DataError, NextItemModel
from arraylstm.training import Metrics, TrainingOptions, evaluate, fit, measure
from arraylstm_serve.engine.ranking import log_sum_exp, observe

CYCLE = [[(start + step) % 5 for step in range(3 + start)] for start in range(5)] * 8
QUICK = TrainingOptions(epochs=30, batch_size=8, learning_rate=0.02)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return NextItemModel("array", 5, 8, k=2, embedding_size=4)


def test_a_deterministic_sequence_is_learned(model):
    """Items that follow from the one before are predicted without error."""
    fit(model, CYCLE, CYCLE, QUICK)
    metrics = evaluate(model, CYCLE)
    assert (metrics.top1, metrics.mrr) == (1.0, 1.0)
    assert metrics.perplexity < 1.1


@pytest.mark.parametrize("bptt", [1, 3])
def test_cutting_the_gradient_still_carries_the_state(model, bptt):
    """With bptt shorter than the sessions every item is still learned from once."""
    seen = []
    fit(model, CYCLE, CYCLE, TrainingOptions(epochs=1, bptt=bptt), seen.append)
    assert seen[-1].done == seen[-1].total == sum(len(session) - 1 for session in CYCLE)


def test_figures_are_those_of_a_count_by_hand(model):
    """top-k, MRR and loss agree with a plain loop over single sessions; padding counts for nothing."""
    sessions = [[0, 1, 2, 3], [4, 0], [2], [1, 1, 1]]
    ranks, nats = [], 0.0
    for session in sessions:
        logits, _ = model.eval()(torch.tensor([session]))
        for scores, target in zip(logits[0], session[1:]):
            ranks.append(1 + int((scores > scores[target]).sum()))
            nats -= scores.log_softmax(0)[target].item()
    expected = Metrics(
        len(ranks),
        *(sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10)),
        sum(1 / rank for rank in ranks) / len(ranks),
        nats / len(ranks),
        1.0,  # there are five items
        sum(1 / rank for rank in ranks) / len(ranks),
    )
    actual = evaluate(model, sessions, batch_size=3)
    assert vars(actual) == pytest.approx(vars(expected), rel=1e-6)
    assert actual.perplexity == pytest.approx(math.exp(nats / len(ranks)))


def test_the_unknown_item_is_no_hit(model):
    """Predicting that something unknown follows predicts nothing; what is known counts as before."""
    sessions = [[0, 1, 4, 4], [2, 4, 3]]
    plain = evaluate(model, sessions)
    model.vocabulary = arraylstm.Vocabulary(["a", "b", "c", "d", "<unk>"], unknown="<unk>")
    honest = evaluate(model, sessions)
    assert plain.top5 == 1.0
    assert honest.top5 == 2 / 5
    assert honest.mrr < plain.mrr
    assert honest.loss == plain.loss


def with_bias(model, bias):
    """The model with these logits whatever went before."""
    with torch.no_grad():
        model.linear.weight.fill_(0.0)
        model.linear.bias.copy_(torch.tensor(bias))
    return model


@pytest.mark.parametrize("bias", [[0.0] * 5, [1.0, 2.0, 2.0, 0.5, 2.0], [3.0, -math.inf, 1.0, 3.0, -math.inf]])
def test_ties_are_ranked_as_the_server_ranks_them(model, bias):
    """Figures are those of the ranks that arraylstm-serve reports; equal scores share the best."""
    sessions = [[4, item] for item in (0, 2, 3)]
    logits = np.tile(np.array(bias, np.float32), (3, 1))
    _, ranks = observe(logits, log_sum_exp(logits), np.array([0, 2, 3]))
    metrics = evaluate(with_bias(model, bias), sessions)
    assert metrics.mrr == pytest.approx((1 / ranks).mean())
    assert metrics.top1 == pytest.approx((ranks == 1).mean())


@pytest.mark.parametrize("bias", [[math.nan] * 5, [0.0, 0.0, math.nan, 0.0, 0.0]])
def test_scores_that_are_no_numbers_hit_nothing(model, bias):
    """Beside a NaN no item has a rank."""
    assert evaluate(with_bias(model, bias), [[0, 1], [0, 3]]).top10 == 0.0


def test_the_figures_do_not_depend_on_the_pieces(model, monkeypatch):
    """Sessions cut where the bound on logits says, down to a step of one row, give the figures of whole ones."""
    whole = evaluate(model, CYCLE)
    for largest in (1, 5, 23, 100):
        monkeypatch.setattr(measure, "LARGEST_LOGITS", largest)
        assert vars(evaluate(model, CYCLE)) == pytest.approx(vars(whole), rel=1e-6)


@pytest.mark.parametrize("embedding_size", [None, 4])
@pytest.mark.parametrize(("num_items", "steps"), [(2_000, 500), (60_000, 8)])
def test_no_tensor_grows_with_sessions_and_items_at_once(num_items, steps, embedding_size):
    """The largest tensor that evaluating 64 long sessions makes is as large as the bound on logits, or smaller."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **kwargs or {})
            for tensor in made if isinstance(made, (tuple, list)) else [made]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return made

    long = NextItemModel("lstm", num_items, 2, embedding_size=embedding_size)
    with Watch():
        evaluate(long, [[0] * steps] * 64)
    assert num_items < largest <= measure.LARGEST_LOGITS


class TestTheModelsOwnLoss:
    """fit by LSTM2002, whose loss has label smoothing and leaves padding out."""

    PAD = 2
    SESSIONS = ((0, 4, 5, 6, 1), (0, 4, 7, 1, PAD), (0, 6, 1, PAD, PAD), (0, PAD), (3, 3, 3))

    @pytest.fixture
    def make(self):
        def make(label_smoothing):
            torch.manual_seed(1)
            return arraylstm.LSTM2002(
                tknzr=SimpleNamespace(vocab_size=8), d_blk=2, n_blk=2, d_emb=3, label_smoothing=label_smoothing
            )

        return make

    @pytest.mark.parametrize("bptt", [1, 128])
    @pytest.mark.parametrize("label_smoothing", [0.0, 0.9])
    def test_a_batch_is_learned_from_as_by_cal_loss(self, make, label_smoothing, bptt):
        """The loss of sessions is cal_loss of them, padded, in pieces or in one; in one, so is each gradient."""
        model, seen = make(label_smoothing), []
        batch = torch.tensor([[*session, *[self.PAD] * (5 - len(session))] for session in self.SESSIONS])
        expected, _ = model.cal_loss(batch[:, :-1], batch[:, 1:])
        gradients = torch.autograd.grad(expected, [*model.parameters()])
        learned = copy.deepcopy(model)
        options = TrainingOptions(epochs=1, bptt=bptt, clip=math.inf, learning_rate=1e-9)
        fit(learned, self.SESSIONS, self.SESSIONS, options, seen.append)
        assert seen[-1].loss == pytest.approx(expected.item(), rel=1e-6)
        assert (seen[-1].done, seen[-1].total) == (11, 11)
        assert seen[-1].validation.predictions == 11
        if bptt > 4:
            for weight, gradient in zip(learned.parameters(), gradients, strict=True):
                torch.testing.assert_close(weight.grad, gradient, rtol=1e-5, atol=1e-8)

    def test_label_smoothing_changes_the_fit_and_not_the_figures_meaning(self, make):
        """Smoothed, the model learns another distribution; what is reported for it is still plain cross-entropy."""
        sessions = [[0, 4, 5, 6, 1, self.PAD]] * 8
        plain, smooth = make(0.0), make(0.9)
        for model in (plain, smooth):
            fit(model, sessions, sessions, TrainingOptions(epochs=150, learning_rate=0.05))
        assert evaluate(plain, sessions).loss < 0.5
        wanted = 0.1 + 0.9 / 8  # the share that smoothing leaves the target
        assert evaluate(smooth, sessions).loss == pytest.approx(-math.log(wanted), abs=0.2)
        p = smooth.pred(torch.tensor(sessions[:1])[:, :-2])[0].log()[0]
        by_hand = -sum(p[t, target].item() for t, target in enumerate(sessions[0][1:-1])) / 4
        assert evaluate(smooth, sessions).loss == pytest.approx(by_hand, rel=1e-5)

    def test_sessions_of_padding_alone_are_refused(self, make):
        """There is nothing to predict in them."""
        with pytest.raises(DataError, match="none of 1 sessions has a second item"):
            fit(make(0.0), [[0, self.PAD, self.PAD]], self.SESSIONS, QUICK)


def test_sessions_to_validate_on_are_checked_before_the_work(model):
    """A validation part in which nothing can be predicted is refused at once."""
    seen = []
    with pytest.raises(DataError, match="none of 1 sessions has a second item"):
        fit(model, CYCLE, [[1]], QUICK, seen.append)
    assert seen == []


def test_the_best_epochs_weights_are_kept(model):
    """After fitting, the validation loss is the lowest that any epoch had."""
    epochs = []
    options = TrainingOptions(epochs=6, learning_rate=1.0)  # jumps about, the last need not be best
    outcome = fit(
        model, CYCLE, CYCLE, options, lambda progress: progress.validation and epochs.append(progress.validation)
    )
    losses = [metrics.loss for metrics in epochs]
    assert losses.index(min(losses)) + 1 == outcome.best_epoch
    assert evaluate(model, CYCLE).loss == pytest.approx(min(losses))


def test_a_seed_repeats_a_fit_bit_for_bit():
    """Same seed, same weights; another seed, others."""

    def weights(seed):
        torch.manual_seed(0)
        model = NextItemModel("stochastic", 5, 8, k=2, dropout=0.1)
        fit(model, CYCLE, CYCLE, TrainingOptions(epochs=2, batch_size=8, seed=seed))
        return model.linear.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_sessions_without_a_second_item_are_refused(model):
    """There is nothing to predict in them."""
    with pytest.raises(DataError, match="none of 2 sessions has a second item"):
        fit(model, [[1], [2]], CYCLE, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1, got -1"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0 and at most 10\.0, got 0\.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and at most 10.0, got nan"),
    ],
)
def test_options_that_train_nothing_are_refused_by_name(options, message):
    """ValueError says what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)
