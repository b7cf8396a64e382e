"""A fit that was killed goes on to the result that it would have had, and Ctrl-C keeps the best epoch."""

import pytest
import torch

from arraylstm import DataError, NextItemModel
from arraylstm.training import TrainingOptions, fit
from arraylstm.training.snapshots import Snapshots

SESSIONS = [[(start + step) % 5 for step in range(3 + 2 * start)] for start in range(5)] * 3
OPTIONS = TrainingOptions(
    epochs=3, batch_size=4, bptt=3, loss="sampled", negatives=4, average=0.9, reverse=0.5, warm_up=0.1, keep_by="mrr@20"
)


class Killed(BaseException):
    """The process ended here."""


def make():
    torch.manual_seed(4)
    recipe = {"dropout": 0.2, "embedding_dropout": 0.2, "item_dropout": 0.2, "repeat_bias": True}
    return NextItemModel("stochastic", 5, 6, k=2, embedding_size=4, tied=True, scale=4.0, **recipe)


def run(model, snapshots=None, options=OPTIONS, stop=None, error=Killed, train=SESSIONS):
    """Fit, and raise the error at the call of this number; return the losses that were reported."""
    seen = []

    def on_progress(progress):
        seen.append((progress.epoch, progress.done, progress.loss))
        if stop is not None and len(seen) == stop:
            raise error

    outcome = fit(model, train, SESSIONS, options, on_progress, snapshots)
    return outcome, seen


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["with a snapshot", "before the first"])
def test_a_fit_that_was_killed_ends_bit_for_bit_as_if_it_had_not_been(tmp_path, seconds):
    """Wherever it is killed: in the middle of an epoch and of a session, at an epoch's end, twice."""
    whole = make()
    outcome, seen = run(whole)
    path = tmp_path / "model.resume"
    for stops in ([2], [len(seen) // 2, 3], [len(seen)]):
        for stop in stops:
            with pytest.raises(Killed):
                run(make(), Snapshots(path, seconds, resume=stop != stops[0]), stop=stop)
        torch.rand(3)  # what a new process has drawn is another thing
        again = make()
        resumed, after = run(again, Snapshots(path, seconds, resume=True))
        assert resumed == outcome
        assert after == seen[len(seen) - len(after) :]
        assert (len(after) < len(seen)) == (seconds == 0)
        for name, weight in whole.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name]), name
        path.unlink(missing_ok=True)


def test_a_snapshot_of_an_older_format_is_refused(tmp_path):
    """Its optimiser has other groups of weights."""
    path = tmp_path / "model.resume"
    with pytest.raises(Killed):
        run(make(), Snapshots(path, 0.0), stop=4)
    torch.save(torch.load(path, weights_only=True) | {"format": 1}, path)
    with pytest.raises(DataError, match="is of another training, with another format; resume with the same settings"):
        run(make(), Snapshots(path, resume=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"options": TrainingOptions(epochs=4)},
            r"is of another training, with epochs 3, not 4, .*; resume with the same",
        ),
        ({"train": SESSIONS[1:]}, "is of another training, with sessions '[0-9a-f]+', not '[0-9a-f]+'; resume"),
    ],
    ids=["options", "sessions"],
)
def test_a_snapshot_of_another_fit_is_refused(tmp_path, change, message):
    """The message says what differs."""
    path = tmp_path / "model.resume"
    with pytest.raises(Killed):
        run(make(), Snapshots(path, 0.0), stop=4)
    with pytest.raises(DataError, match=message):
        run(make(), Snapshots(path, 0.0, resume=True), **change)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_file_that_is_no_snapshot_is_refused(tmp_path, content):
    """As one sentence."""
    path = tmp_path / "model.resume"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is no snapshot of a training that can be read"):
        run(make(), Snapshots(path, resume=True))


def test_a_kill_while_a_snapshot_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    """What is left of the other goes with it in the end."""
    path, save = tmp_path / "model.resume", torch.save
    with pytest.raises(Killed):
        run(make(), Snapshots(path, 0.0), stop=4)
    before = path.read_bytes()

    def half(content, file):
        save(content, file)
        file.truncate(100)
        raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        run(make(), Snapshots(path, 0.0, resume=True))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    snapshots = Snapshots(path, 1e9, resume=True)
    run(make(), snapshots)
    snapshots.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_that_cannot_be_written_ends_no_fit(tmp_path):
    """It is said why."""
    snapshots = Snapshots(tmp_path / "missing" / "model.resume", 0.0)
    outcome, _ = run(make(), snapshots)
    assert outcome.epochs == 3
    assert "No such file" in snapshots.fault


def test_ctrl_c_keeps_the_best_epoch_so_far():
    """In the middle of the third epoch the model gets the weights of the better of the first two."""
    _, seen = run(make())
    third = next(number for number, (epoch, *_) in enumerate(seen, start=1) if epoch == 3) + 1
    model = make()
    outcome, _ = run(model, stop=third, error=KeyboardInterrupt)
    assert (outcome.interrupted, outcome.epochs) == (True, 2)
    states = []

    def note(progress):
        if progress.validation is not None:
            states.append(progress.epoch)
        if len(states) == 2:
            raise KeyboardInterrupt

    shorter = make()
    assert fit(shorter, SESSIONS, SESSIONS, OPTIONS, note).best_epoch == outcome.best_epoch
    for one, other in zip(model.parameters(), shorter.parameters(), strict=True):
        assert torch.equal(one, other)


def test_ctrl_c_before_there_is_an_epoch_ends_all():
    """There is nothing to keep."""
    with pytest.raises(KeyboardInterrupt):
        run(make(), stop=1, error=KeyboardInterrupt)
