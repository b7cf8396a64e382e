"""Settings by the data, step sizes, averages, the epoch that is kept, probabilities, and memory."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from arraylstm import LSTM2002, NextItemModel
from arraylstm.training import Metrics, TrainingOptions, evaluate, fit
from arraylstm.training.batches import Batches
from arraylstm.training.calibrate import calibrate
from arraylstm.training.choosing import Best
from arraylstm.training.memory import MemoryShortError
from arraylstm.training.recipes import settled, symmetry
from arraylstm.training.schedules import Average, share_of_rate

CYCLE = [[(start + step) % 5 for step in range(3 + start)] for start in range(5)] * 8


class TestSettings:
    """What is None is chosen by the data."""

    BROWSING = ([[1, 2, 3], [3, 4]], [[2, 1], [2, 3]])
    LOG = ([[1, 2, 3], [3, 4]], [[1, 2], [2, 3]])

    def test_many_items_are_sampled_and_ranked(self):
        """The reasons are told."""
        options, reasons = settled(TrainingOptions(), 20_000, *self.BROWSING)
        assert (options.loss, options.keep_by, options.batch_size) == ("sampled", "mrr@20", 128)
        assert (options.reverse, options.calibrate) == (0.5, True)
        assert reasons[0].startswith("1,000 items or more, most of them rare: epochs ")
        assert "50% were seen in training in this order and 50% in the other: reverse 0.5" in reasons[1]

    def test_few_items_are_scored_all(self):
        """Their sessions are never reversed: event logs have a direction."""
        options, _ = settled(TrainingOptions(), 999, *self.BROWSING)
        assert (options.loss, options.keep_by, options.reverse) == ("full", "loss", 0.0)

    @pytest.mark.parametrize(("loss", "calibrate"), [("full", False), ("gbce", True), ("bpr-max", True)])
    def test_scores_that_only_rank_are_calibrated(self, loss, calibrate):
        """However few items there are."""
        assert settled(TrainingOptions(loss=loss), 9, *self.LOG)[0].calibrate == calibrate

    def test_sessions_with_a_direction_are_not_reversed(self):
        """Pairs of a log are seldom seen the other way round."""
        assert settled(TrainingOptions(), 20_000, *self.LOG)[0].reverse == 0.0
        assert vars(symmetry(*self.LOG)) == {"forwards": 1.0, "backwards": 0.0}

    def test_what_the_user_says_stands(self):
        """A setting that suits the data comes only in the place of none."""
        given = TrainingOptions(epochs=3, batch_size=7, learning_rate=0.1, loss="full", keep_by="hit@20", reverse=0.25)
        given = replace(given, calibrate=False)
        assert settled(given, 20_000, *self.BROWSING) == (given, [])


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_step_sizes_rise_and_fall(schedule, middle):
    """From a tenth of the warm-up's end to all, and then to a tenth of that."""
    shares = [share_of_rate(step, 110, 1 / 11, schedule) for step in range(111)]
    assert shares[:10] == pytest.approx([at / 10 for at in range(1, 11)])
    assert (shares[10], shares[60]) == pytest.approx((1.0, middle))
    assert shares[110] == pytest.approx(1.0 if schedule == "constant" else 0.1)


def test_a_repeat_bias_moves_ten_times_as_fast():
    """It has to go as far as scores reach; Adam's first step is the step size, whatever the gradient."""
    torch.manual_seed(0)
    model = NextItemModel("lstm", 5, 4, embedding_size=4, repeat_bias=True)
    bias = model.linear.bias.detach().clone()
    fit(model, [[0, 1, 2]], [[0, 1]], TrainingOptions(epochs=1, learning_rate=0.01))
    assert model.repeat.item() == pytest.approx(-0.1, rel=1e-3)
    assert (model.linear.bias - bias).abs().max().item() == pytest.approx(0.01, rel=1e-3)


def test_an_average_follows_the_weights_and_can_stand_in_for_them():
    """As by hand: at first it forgets fast."""
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
        average, by_hand = Average(layer, 0.5), 0.0
        for step in range(20):
            layer.weight.fill_(step + 1.0)
            average.update(step)
            share = min(0.5, (1 + step) / (10 + step))
            by_hand = share * by_hand + (1 - share) * (step + 1)
    average.swap()
    assert layer.weight.item() == pytest.approx(by_hand)
    average.swap()
    assert layer.weight.item() == 20.0


@pytest.mark.parametrize(("keep_by", "kept"), [("loss", 1), ("mrr@20", 2), ("hit@20", 3)])
def test_the_epoch_with_the_best_figure_is_kept(keep_by, kept):
    """By the figure that was named; figures that are no numbers are never the best."""
    figures = [(2.0, 0.1, 0.1), (3.0, 0.2, 0.3), (4.0, 0.3, 0.1), (math.nan, 1.0, 1.0)]
    best, layer = Best(keep_by, patience=2), nn.Linear(1, 1)
    waited = []
    for epoch, (loss, hit20, mrr20) in enumerate(figures, start=1):
        with torch.no_grad():
            layer.bias.fill_(float(epoch))
        best.consider(epoch, Metrics(1, 0.0, 0.0, 0.0, 0.0, loss, hit20, mrr20), layer)
        waited.append(best.waited_long_enough(epoch))
    assert (best.epoch, best.weights["bias"].item()) == (kept, kept)
    assert waited.index(True) + 1 == kept + 2 if kept < 3 else not any(waited)


def test_patience_ends_a_fit():
    """A step size that learns nothing gives no better epoch."""
    model = NextItemModel("lstm", 5, 4)
    outcome = fit(model, CYCLE, CYCLE, TrainingOptions(epochs=50, learning_rate=1e-12, patience=3, keep_by="hit@20"))
    assert (outcome.best_epoch, outcome.epochs) == (1, 4)


@pytest.mark.parametrize("loss", ["sampled", "gbce", "bpr-max"])
def test_every_loss_learns_and_gives_probabilities(loss):
    """A sequence that follows from itself is predicted, and the loss in nats is far below that of a guess."""
    torch.manual_seed(0)
    model = NextItemModel("lstm", 5, 16, embedding_size=8, tied=True, scale=8.0)
    options = TrainingOptions(epochs=20, batch_size=8, learning_rate=0.03, loss=loss, negatives=8, bpr_penalty=0.1)
    fit(model, CYCLE, CYCLE, options)
    metrics = evaluate(model, CYCLE)
    assert metrics.top1 == 1.0
    assert metrics.loss < 0.3


def test_a_model_that_cannot_score_a_sample_scores_all():
    """By default, however many tokens it has."""
    model = LSTM2002(tknzr=SimpleNamespace(vocab_size=1200), d_blk=2, n_blk=2, d_emb=3)
    assert fit(model, [[3, 4, 5], [1100, 6]], [[3, 4]], TrainingOptions(epochs=1)).epochs == 1


def test_few_predictions_calibrate_nothing_and_no_factor_is_extreme():
    """A model that knows nothing is not taken for one whose scores all mean the same."""
    torch.manual_seed(0)
    model = NextItemModel("lstm", 50, 8, embedding_size=4)
    sessions = [[at % 50, at * 7 % 50] for at in range(99)]
    assert calibrate(model, sessions, sessions, only_ranks=False) == 1.0
    model.rescale(1000.0, torch.zeros(50))
    assert calibrate(model, sessions, sessions * 2, only_ranks=False) == pytest.approx(1 / 20)


@pytest.mark.parametrize("sizes", [{}, {"tied": True, "scale": 4.0}], ids=str)
def test_calibration_finds_the_factor_that_was_lost(sizes):
    """Logarithms of the items' shares, multiplied by 5, lose their meaning, and get it back; ranks stay."""
    shares = torch.tensor([16, 8, 4, 2, 2]) / 32
    model = NextItemModel("lstm", 5, 8, embedding_size=4, **sizes)
    with torch.no_grad():
        model.linear.weight.zero_()
        model.linear.bias.zero_()
        model._rows()[1].copy_(shares.log())
    sessions = [[0, item] for item in range(5) for _ in range(int(128 * shares[item]))]
    before = evaluate(model, sessions)
    model.rescale(5.0, torch.zeros(5))
    assert evaluate(model, sessions).loss > before.loss + 0.5
    assert calibrate(model, sessions, sessions, only_ranks=False) == pytest.approx(0.2, rel=1e-3)
    after = evaluate(model, sessions)
    assert after.loss == pytest.approx(before.loss, abs=1e-4)
    assert after.mrr == before.mrr


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_a_sentence_that_says_what_to_lower(error, monkeypatch):
    """Whatever runs out."""

    def fail(*_):
        raise error

    monkeypatch.setattr(Batches, "shuffled", fail)
    options = TrainingOptions(epochs=1, loss="sampled", batch_tokens=4096)
    with pytest.raises(
        MemoryShortError, match="ran out of memory.* lower one of batch_tokens 4096, bptt 128, negatives"
    ):
        fit(NextItemModel("lstm", 5, 4, embedding_size=3), CYCLE, CYCLE, options)


def test_another_error_is_not_taken_for_it(monkeypatch):
    """It stays what it is."""
    monkeypatch.setattr(Batches, "shuffled", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fit(NextItemModel("lstm", 5, 4), CYCLE, CYCLE, TrainingOptions(epochs=1))
