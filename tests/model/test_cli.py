"""`arraylstm-train`: what it writes, and what it refuses before it reads any data."""

import re

import pytest

import arraylstm
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
        (["-o", "there.pt"], "exists; training resumes nothing: pass --overwrite"),
        (["missing.txt", "-o", "model.pt"], "missing.txt: No such file"),
        (["-o", "model.pt", "--cell", "gru"], "unknown cell 'gru'; known cells: lstm, array"),
        (["-o", "folder.pt", "--overwrite"], "--output 'folder.pt' is a folder; name a file in it"),
        (["-o", "/proc/model.pt"], "--output '/proc/model.pt' cannot be written"),
        (["-o", "model.pt", "--embedding-size", "-3"], "embedding_size must be an integer of at least 1, got -3"),
        (["-o", "model.pt", "--text-length", "0"], "text_length must be an integer of at least 1, got 0"),
        (["-o", "model.pt", "--seed", "-1"], "seed must be at least 0 and below 2**63, got -1"),
        (["-o", "model.pt", "--epochs", "0"], "epochs must be an integer of at least 1, got 0"),
        (["-o", "model.pt", "--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
        (["-o", "model.pt", "--holdout", "1.5"], "holdout must lie between 0 and 1, got 1.5"),
        (["-o", "model.pt", "--epochs", "many"], "unable to convert"),
        ([], "--output"),
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
