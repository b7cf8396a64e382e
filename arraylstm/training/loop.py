"""`fit`: an epoch after the other, the best one kept, an interrupted one resumed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from arraylstm.errors import DataError
from arraylstm.model import ItemModel
from arraylstm.nextitem import NextItemModel
from arraylstm.training.batches import Batches, Piece
from arraylstm.training.calibrate import calibrate
from arraylstm.training.choosing import Best
from arraylstm.training.forward import Forward
from arraylstm.training.losses import LARGEST_SCORES, Predictions, learn, make_objective
from arraylstm.training.measure import count_predictions, evaluate
from arraylstm.training.memory import explained
from arraylstm.training.options import RANKING, TrainingOptions
from arraylstm.training.progress import Outcome, Progress
from arraylstm.training.recipes import settled
from arraylstm.training.schedules import Average, make_optimiser, share_of_rate
from arraylstm.training.snapshots import Snapshots, describe_run, random_state, set_random_state

Sessions = Sequence[Sequence[int]]
REPORT_EVERY = {"cpu": 1}
"""Batches from one report to the next: reading a loss waits for a GPU, and on a CPU there is nothing to wait for."""
REPORT_SELDOM = 50


def fit(
    model: ItemModel,
    train: Sessions,
    validation: Sessions,
    options: TrainingOptions = TrainingOptions(),
    on_progress: Callable[[Progress], None] = lambda progress: None,
    snapshots: Snapshots | None = None,
) -> Outcome:
    """Train on sessions of item ids, in place, where the model lies, and keep the weights of the best epoch.

    The best epoch is the first with the best figure of `evaluate` on the validation sessions, by `options.keep_by`. The
    weights start as they are; dropout, lanes and samples are drawn from torch's own generator. Options that are None
    are chosen by the data (`arraylstm.training.recipes`). At the end, the scores of a `NextItemModel` are calibrated on
    the validation sessions if `options.calibrate` says so.

    A fit that goes on from a snapshot ends with the weights, bit for bit, that it would have had without the break, on
    the same machine. Ctrl-C ends it early, with the best epoch so far; before the first it raises KeyboardInterrupt.

    Args:
        model: the model.
        train: sessions to learn from.
        validation: sessions to choose the epoch by.
        options: how it is fitted.
        on_progress: is told how far it is, after a batch (on a GPU after some) and at the end of an epoch.
        snapshots: where the state is kept from time to time, to resume from.

    Raises:
        DataError: no session has a second item to predict, the loss became NaN, or a snapshot is of another fit.
        ValueError: the options do not go with the model.
        MemoryShortError: there is not enough memory; the message says what to lower.
    """
    total, _ = count_predictions(train, model.padding), count_predictions(validation, model.padding)
    options, _ = settled(options, model.num_items, train, validation, isinstance(model, NextItemModel))
    with explained(model, options):
        run = _Run(model, train, validation, options, total, on_progress, snapshots)
        interrupted = run.to_its_end()
        model.load_state_dict(run.best.weights)
        model.eval()
        factor = 1.0
        if options.calibrate and isinstance(model, NextItemModel):
            factor = calibrate(model, train, validation, only_ranks=options.loss in RANKING)
    return Outcome(run.best.epoch, run.epoch, interrupted, factor)


class _Run:
    """One fit: everything that changes while it runs, and what it needs for that."""

    def __init__(
        self,
        model: ItemModel,
        train: Sessions,
        validation: Sessions,
        options: TrainingOptions,
        total: int,
        on_progress: Callable[[Progress], None],
        snapshots: Snapshots | None,
    ) -> None:
        assert options.epochs is not None
        assert options.batch_size is not None
        assert options.keep_by is not None
        self.model, self.options = model, options
        self.validation, self.total, self.on_progress = validation, total, on_progress
        tokens = max(1, min(options.batch_tokens, LARGEST_SCORES // model.layers.input_size))
        self.batches = Batches(train, model.padding, options.batch_size, tokens, options.bptt)
        self.batch_size, self.epochs = options.batch_size, options.epochs
        self.objective = make_objective(model, train, options)
        self.width = model.num_items if options.loss == "full" else options.negatives + 1
        self.forward = Forward(model, options)
        self.optimiser = make_optimiser(model, options)
        self.average = Average(model, options.average)
        self.best = Best(options.keep_by, options.patience)
        self.epoch, self.piece, self.done = 0, 0, 0  # epochs that have ended, and pieces and predictions since then
        self.nats = torch.zeros((), dtype=torch.float64, device=self.forward.device)
        self.snapshots = snapshots
        self.run = describe_run(model, train, validation, options) if snapshots else {}
        state = snapshots.read(self.run) if snapshots else None
        if state is not None:
            self._restore(state)

    def to_its_end(self) -> bool:
        """Run epochs until the last one or until patience ends; tell whether Ctrl-C came first."""
        try:
            with self.forward.compiled():
                while self.epoch < self.epochs and not self.best.waited_long_enough(self.epoch):
                    self._run_epoch()
        except KeyboardInterrupt:
            if self.best.epoch == 0:
                raise
            return True
        if self.best.epoch == 0:
            loss = self.nats.item() / max(1, self.done)
            rate = self.options.learning_rate
            raise DataError(f"the loss became {loss}; try a smaller learning rate than {rate}")
        return False

    def _run_epoch(self) -> None:
        """Learn from every piece that is left of an epoch, then measure."""
        self.model.train()
        reverse = self.options.reverse or 0.0
        for at, piece in enumerate(self.batches.shuffled(self.options.seed, self.epoch, reverse)):
            if at >= self.piece:
                self._learn(piece)
                self._report()
                self._keep_snapshot()
        self._measure()

    def _learn(self, piece: Piece) -> None:
        """Take one step of the optimiser."""
        step = self.epoch * len(self.batches) + self.piece
        share = share_of_rate(step, self.epochs * len(self.batches), self.options.warm_up, self.options.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate * share * group["pace"] if self.options.learning_rate else 0.0
        count = piece.targets.size(0)
        piece = piece.to(self.forward.device)
        self.optimiser.zero_grad()
        with self.forward.precision():
            h = self.forward.outputs(piece.items, piece.begins).flatten(0, 1)
            read = piece.items.flatten()[piece.places]
            nats = learn(self.objective, self.width, Predictions(h.index_select(0, piece.places), read, piece.targets))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimiser.step()
        self.average.update(step)
        self.nats += nats
        self.piece, self.done = self.piece + 1, self.done + count

    def _report(self) -> None:
        every = REPORT_EVERY.get(self.forward.device.type, REPORT_SELDOM)
        if self.piece % every == 0:
            self.on_progress(Progress(self.epoch + 1, self.done, self.total, self.nats.item() / max(1, self.done)))

    def _measure(self) -> None:
        """End an epoch: measure the averaged weights, and keep them if they are the best."""
        self.average.swap()
        metrics = evaluate(self.model, self.validation, self.batch_size)
        self.best.consider(self.epoch + 1, metrics, self.model)
        self.average.swap()
        self.epoch += 1
        self.on_progress(Progress(self.epoch, self.done, self.total, self.nats.item() / self.done, metrics))
        if self.epoch < self.epochs:
            self.piece, self.done = 0, 0
            self.nats.zero_()
        self._keep_snapshot()

    # -- snapshots ------------------------------------------------------------------------------------------------

    def _keep_snapshot(self) -> None:
        if self.snapshots and self.snapshots.due():
            self.snapshots.write(self.run, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "place": [self.epoch, self.piece, self.done],
            "nats": self.nats,
            "weights": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.values,
            "best": self.best.state(),
            "carried": self.forward.state,
            "random": random_state(self.forward.device),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.epoch, self.piece, self.done = state["place"]
        self.nats.copy_(state["nats"])
        self.model.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.restore(state["average"])
        self.best.restore(state["best"])
        self.forward.state = [tensor.to(self.forward.device) for tensor in state["carried"]]
        set_random_state(state["random"], self.forward.device)
