"""`arraylstm-train`: what is checked before any data are read."""

import pytest

from arraylstm.cli import app


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
    """A data file that is missing is not what the user is told of first."""
    with pytest.raises(ValueError, match=message):
        app([str(tmp_path / "missing.txt"), "-o", str(tmp_path / "model.pt"), *options.split()])


def test_shares_that_leave_no_session_to_train_on_are_refused_before_the_data_are_read(run_program, tmp_path):
    """Each lies between 0 and 1, and both together must."""
    done = run_program("arraylstm-train", "missing.txt", "-o", "model.pt", "--holdout", 0.6, "--validation", 0.4)
    assert done.returncode == 2
    assert "must leave sessions to train on, got 0.6 and 0.4" in " ".join(done.stderr.replace("│", " ").split())
