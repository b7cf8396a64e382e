"""`arraylstm-train`: what it writes, and what it refuses before it reads any data."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

import arraylstm
from arraylstm import saving, training
from arraylstm.cli import app, main

from ..devices import Chosen


def test_it_trains_on_a_file_reports_and_writes_a_model_that_loads(run_program, tmp_path):
    """The report has the promised figures; the model carries the file's labels."""
    sessions = ["login view", "login view buy", "login view buy logout"] * 20
    (tmp_path / "log.txt").write_text("\n".join(sessions))
    options = ["--epochs", 2, "--hidden-size", 4, "--device", Chosen.device]
    done = run_program("arraylstm-train", "log.txt", "-o", "model.pt", *options)
    assert (done.returncode, done.stderr) == (0, "")
    for figure in ("top-1", "top-5", "top-10", "MRR", "perplexity", "60 sessions", "epoch   2"):
        assert figure in done.stdout
    assert set(arraylstm.load(tmp_path / "model.pt").vocabulary.labels) == {"login", "view", "buy", "logout"}


def test_without_data_it_trains_on_the_generated_log(run_here, tmp_path):
    """Nothing has to be downloaded for a first try; a rare item hides behind the unknown one on request."""
    options = ["--epochs", 1, "--hidden-size", 8, "--generated-sessions", 200, "--min-count", 3]
    done = run_here(main, "-o", "model.safetensors", *options)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Generated log: 200 sessions \(140 train, 20 validation, 40 held out\)", done.stdout)
    assert arraylstm.load(tmp_path / "model.safetensors").vocabulary.unknown == "<unk>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "model.onnx"], "--output must end in .pt or .safetensors, got 'model.onnx'"),
        (["-o", "nowhere/model.pt"], "there is no folder 'nowhere'"),
        (["-o", "there.pt"], "exists: pass --overwrite to replace it, or --output FILE"),
        (["missing.txt", "-o", "model.pt"], "missing.txt: No such file"),
        (["-o", "model.pt", "--cell", "gru"], "unknown cell 'gru'; known cells: lstm, array"),
        (["-o", "folder.pt", "--overwrite"], "--output 'folder.pt' is a folder; name a file in it"),
        (["-o", "/proc/model.pt"], "--output '/proc/model.pt' cannot be written"),
        (["-o", "model.pt", "--embedding-size", "-3"], "embedding_size must be an integer of at least 1, got -3"),
        (["-o", "model.pt", "--text-length", "0"], "text_length must be an integer of at least 1, got 0"),
        (["-o", "model.pt", "--seed", "-1"], "seed must be at least 0 and below 2**63, got -1"),
        (["-o", "model.pt", "--epochs", "0"], "epochs must be an integer of at least 1, got 0"),
        (["-o", "model.pt", "--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["-o", "model.pt", "--holdout", "1.5"], "holdout must be a file or lie between 0 and 1, got 1.5"),
        (["-o", "model.pt", "--epochs", "many"], "unable to convert"),
        (["missing.txt"], "missing.txt: No such file"),
        (["--session-column", "user"], "--session-column describes an event file: give one, or leave it out"),
        (["--format", "lines"], "--format describes an event file: give one, or leave it out"),
    ],
)
def test_bad_input_is_one_clear_message_and_status_2(run_here, tmp_path, arguments, message):
    """No traceback, nothing written, nothing replaced."""
    (tmp_path / "there.pt").write_text("precious")
    (tmp_path / "folder.pt").mkdir()
    done = run_here(main, *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"there.pt", "folder.pt"}
    assert (tmp_path / "there.pt").read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num-layers 0", "num_layers must be an integer of at least 1, got 0"),
        ("--tied --embedding-size 0", "tied needs an embedding to tie the scores to"),
        ("--cell lstm2002 --hidden-size 10 --k 4", "hidden_size must be .* k=4"),
        ("--cell gru", "unknown cell 'gru'"),
        ("--dropout 1", "dropout must"),
    ],
)
def test_a_models_options_are_refused_before_the_data_are_read(options, message, tmp_path):
    """The user hears of them first, not of a data file that is missing."""
    with pytest.raises(ValueError, match=message):
        app([str(tmp_path / "missing.txt"), "-o", str(tmp_path / "model.pt"), *options.split()])


def test_shares_that_leave_no_session_to_train_on_are_refused_before_the_data_are_read(run_program, tmp_path):
    """Each lies between 0 and 1, and both together must."""
    done = run_program("arraylstm-train", "missing.txt", "-o", "model.pt", "--holdout", 0.6, "--validation", 0.4)
    assert done.returncode == 2
    assert "must leave sessions to train on, got 0.6 and 0.4" in " ".join(done.stderr.replace("│", " ").split())


SMALL = ("--epochs", 1, "--hidden-size", 8, "--generated-sessions", 100)


def test_without_a_name_the_model_is_model_pt_here_and_replaces_nothing(run_here, tmp_path):
    """The last line names the next command; a second training is refused at once, and --overwrite lets it."""
    done = run_here(main, *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "Wrote model.pt. Next: arraylstm-export model.pt"
    before = (tmp_path / "model.pt").read_bytes()
    refused = run_here(main, *SMALL, "--seed", 1)
    assert refused.returncode == 2
    assert "'model.pt' exists: pass --overwrite to replace it, or --output" in refused.stderr
    assert (tmp_path / "model.pt").read_bytes() == before
    assert run_here(main, *SMALL, "--seed", 1, "--overwrite").returncode == 0
    assert (tmp_path / "model.pt").read_bytes() != before


def test_the_time_column_can_be_switched_off(run_here, tmp_path):
    """A column Time that holds no times is refused with the flag, and then the file's order is kept, which is said."""
    rows = [f"{session},{item},noon" for session in range(10) for item in "ab"]
    (tmp_path / "log.csv").write_text("\n".join(["SessionId,ItemId,Time", *rows]))
    refused = run_here(main, "log.csv")
    assert refused.returncode == 2
    assert "line 2 has the time 'noon'" in refused.stderr
    assert "give --time-column another column, or none to keep the file's order" in refused.stderr
    done = run_here(main, "log.csv", "--time-column", "none", "--epochs", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "log.csv, read as a table, in the file's order: 10 sessions" in done.stdout


def test_the_next_command_can_be_pasted_whatever_the_name(run_here):
    """A name with a blank is quoted."""
    done = run_here(main, *SMALL, "-o", "my model.pt")
    assert done.stdout.splitlines()[-1] == "Wrote my model.pt. Next: arraylstm-export 'my model.pt'"


def test_held_out_sessions_without_predictions_are_refused_before_the_training(run_here, tmp_path, monkeypatch):
    """They would be refused at its end."""
    (tmp_path / "log.txt").write_text("a b\n" * 5 + "a\n" * 5)
    monkeypatch.setattr("arraylstm.preparing.split", lambda sessions, *_: (sessions[:4], sessions[4:5], sessions[5:]))
    monkeypatch.setattr("arraylstm.training.fit", lambda *_: pytest.fail("trained"))
    done = run_here(main, "log.txt")
    assert done.returncode == 2
    assert "none of 5 sessions has a second item to predict" in done.stderr


def test_an_interrupted_training_keeps_the_best_epoch_and_can_be_resumed(run_here, tmp_path, monkeypatch):
    """It says so, with the status of an interrupt; resumed, it writes the file that it would have written."""
    command = ("--epochs", 3, "--hidden-size", 8, "--generated-sessions", 60)
    assert run_here(main, *command, "-o", "whole.pt").returncode == 0
    snapshots, measure = training.loop.Snapshots, training.loop.evaluate
    monkeypatch.setattr("arraylstm.cli.Snapshots", lambda path, resume: snapshots(path, 0.0, resume))
    measured = []

    def interrupt(*arguments):
        measured.append(arguments)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(training.loop, "evaluate", interrupt)
    done = run_here(main, *command)
    assert done.returncode == 130, done.stderr
    assert "Interrupted after epoch 1 of 3: the model has the weights of epoch 1; the same command with --resume" in (
        " ".join(done.stdout.split())
    )
    assert arraylstm.load(tmp_path / "model.pt").num_items > 20
    refused = run_here(main, *command, "--resume", "--bptt", 5)
    assert "Going on from model.pt.resume" in refused.stdout
    assert refused.returncode == 2
    assert "model.pt.resume: is of another training, with bptt 128, not 5" in refused.stderr
    done = run_here(main, *command, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    weights = [arraylstm.load(tmp_path / name).state_dict() for name in ("whole.pt", "model.pt")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "whole.pt"]


def test_parts_may_be_files(run_here, tmp_path):
    """What is in them is measured; events of items that the training part lacks are left out, and counted."""
    for name, text in {"log": "a b c\n" * 9, "valid": "a b c\nb c\n", "test": "a b x c\na\nb c x\n"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    done = run_here(main, "log.txt", "--validation", "valid.txt", "--test", "test.txt", "--epochs", 1)
    assert (done.returncode, done.stderr) == (0, "")
    printed = " ".join(done.stdout.split())
    assert "14 sessions (9 train, 2 validation, 3 held out)" in printed
    assert "3 items; 2 events left out, whose items the training part lacks" in printed
    assert set(arraylstm.load(tmp_path / "model.pt").vocabulary.labels) == {"a", "b", "c"}


def test_defaults_suit_the_number_of_items_and_are_printed_with_the_reason(run_here, tmp_path):
    """What the user gives is not among them."""
    sessions = 5 * [f"{at} {at + 1} {at}" for at in range(0, 1100, 2)]
    (tmp_path / "log.txt").write_text("\n".join(sessions))
    few = ("--epochs", 1, "--hidden-size", 8, "--embedding-size", 8, "--negatives", 8)
    done = run_here(main, "log.txt", "--format", "lines", *few)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1,000 items or more, most of them rare: k 2, tied True, dropout 0.2" in done.stdout
    assert "rare: batch_size 128, learning_rate 0.005, loss sampled, keep_by mrr@20" in done.stdout
    config = arraylstm.load(tmp_path / "model.pt").config
    assert (config["tied"], config["scale"], config["hidden_size"]) == (True, 16.0, 8)


@pytest.mark.parametrize("kind", ["a full disk", "a closed pipe"])
def test_output_that_cannot_be_written_ends_no_training(tmp_path, kind):
    """The report is lost, and the model is not."""
    if kind == "a full disk":
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full here")
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        read, output = os.pipe()
        os.close(read)
    command = [sys.executable, "-c", "from arraylstm.cli import main; main()", *map(str, SMALL)]
    done = subprocess.run(command, cwd=tmp_path, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    os.close(output)
    assert done.returncode == 0
    assert re.fullmatch("standard output cannot be written, so it ends here: [A-Z][a-z ]+\n", done.stderr)
    assert arraylstm.load(tmp_path / "model.pt").num_items > 20


def test_a_terminal_that_lacks_characters_ends_no_training(tmp_path):
    """Names and rules that it cannot show are written in ASCII."""
    (tmp_path / "événements.txt").write_text("a b c\n" * 20, encoding="utf-8")
    command = [sys.executable, "-c", "from arraylstm.cli import main; main()", "événements.txt", "--epochs", "1"]
    narrow = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}
    done = subprocess.run(command, cwd=tmp_path, env=narrow, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9v\\xe9nements.txt" in done.stdout
    assert (tmp_path / "model.pt").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=300k", "none", folder]
    if not mount or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: it needs Linux and root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk):
    """Leave no room on a file system."""
    with (disk / "other").open("wb", buffering=0) as file:
        for _ in range(1000):
            file.write(bytes(4096))


def fill_when_trained(disk, monkeypatch):
    """Let somebody else fill the disk during the training."""
    write = saving.write

    def late(model, target):
        with pytest.raises(OSError, match="No space"):
            fill(disk)
        write(model, target)

    monkeypatch.setattr(saving, "write", late)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
class TestAFullDisk:
    """Training costs hours, and must not be lost for lack of room."""

    def test_is_seen_before_the_training(self, run_here, small_disk, suffix, monkeypatch):
        """The message has the cause; nothing is left behind."""
        monkeypatch.setattr("arraylstm.training.fit", lambda *_: pytest.fail("trained"))
        done = run_here(main, *SMALL, "--embedding-size", 1024, "-o", small_disk / f"model{suffix}")
        assert done.returncode == 2
        assert "cannot be written: No space left on device, for " in " ".join(done.stderr.split())
        assert list(small_disk.iterdir()) == []

    @pytest.mark.parametrize("temporary", ["there", "on the full disk"])
    def test_at_the_end_leaves_the_model_elsewhere(
        self, run_here, small_disk, suffix, monkeypatch, tmp_path, temporary
    ):
        """In the temporary folder or, if that is full too, at home; the message says where, and why."""
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk if temporary != "there" else tmp_path))
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        fill_when_trained(small_disk, monkeypatch)
        done = run_here(main, *SMALL, "-o", small_disk / f"model{suffix}")
        assert done.returncode == 2
        assert "could not be written: No space left on device; the trained model is in" in done.stderr
        (kept,) = tmp_path.glob(f"arraylstm-train-*/model{suffix}")
        assert str(kept) in done.stderr
        assert "session.start" in arraylstm.load(kept).vocabulary.labels
        assert [path.name for path in small_disk.iterdir()] == ["other"]

    def test_with_no_room_anywhere_the_terminals_user_is_asked(
        self, run_here, small_disk, suffix, monkeypatch, tmp_path
    ):
        """Until an answer is a place that takes the model."""
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
        monkeypatch.setattr(Path, "home", lambda: small_disk)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        (tmp_path / "there").write_text("precious")
        answers = [small_disk / f"again{suffix}", tmp_path / "there", tmp_path / f"kept{suffix}"]
        monkeypatch.setattr("builtins.input", lambda _: str(answers.pop(0)))
        fill_when_trained(small_disk, monkeypatch)
        done = run_here(main, *SMALL, "-o", small_disk / f"model{suffix}")
        assert f"the trained model is in '{tmp_path}/kept{suffix}'" in done.stderr
        assert (done.returncode, answers) == (2, [])
        assert arraylstm.load(tmp_path / f"kept{suffix}").num_items > 20
        assert (tmp_path / "there").read_text() == "precious"

    def test_a_limit_on_files_is_seen_before_the_training(self, tmp_path, suffix):
        """A limit of the process or a quota shows only when it is tried: the free space says nothing of it."""
        resource = pytest.importorskip("resource", reason="limits of processes are Unix's")
        program = (
            "import resource; from arraylstm import cli, training\n"
            "training.fit = lambda *_: print('trained')\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY})); cli.main()"
        )
        command = [sys.executable, "-c", program, *map(str, SMALL), "-o", tmp_path / f"model{suffix}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "trained" in done.stdout) == (2, False)
        assert "cannot be written: File too large, for " in done.stderr
        assert list(tmp_path.iterdir()) == []
