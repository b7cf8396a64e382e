"""From event files to parts of sessions: how they are split, which items there are, and what a checkpoint keeps."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

import arraylstm
from arraylstm import CheckpointError, DataError, NextItemModel
from arraylstm.cli import main
from arraylstm.cli_options import ItemOptions, SplitOptions
from arraylstm.data import DataOptions
from arraylstm.preparing import prepare


@pytest.fixture
def prepared(tmp_path):
    """Prepare a file's sessions."""

    def prepared(content, reading=None, seed=0, min_count=1, **held_out):
        path = tmp_path / "events"
        path.write_text(content)
        items = ItemOptions(min_count=min_count)
        return prepare([path], DataOptions(**reading or {}), items, SplitOptions(**held_out), seed)

    return prepared


def labels(prepared):
    """The labels of each part's sessions."""
    return [[prepared.vocabulary.decode(session) for session in part] for part in prepared.parts]


TIMED = "SessionId,ItemId,Time\n" + "".join(
    f"s{number},a,{900 - 10 * number}\ns{number},b,{1000 - 10 * number}\n" for number in range(10)
)


def test_a_split_by_time_keeps_the_latest_sessions_for_the_test(prepared):
    """Those before them choose; the file's order and the seed do not matter."""
    long = TIMED + "s9,c,5000\n"  # the session that begins first ends last
    for seed in (0, 1):
        found = prepared(long, split="time", validation=0.2, holdout=0.1, seed=seed)
        assert [len(part) for part in found.parts] == [7, 2, 1]
        assert labels(found)[2] == [["a", "b"]]  # c is in no session for training
        assert found.record["left_out"] == 1
        assert found.record["split"] == {
            "by": "time",
            "seed": None,
            "shares": {"validation": 0.2, "test": 0.1},
            "sessions": {"train": 7, "validation": 2, "test": 1},
        }
    assert "Sessions split by the time of their last event" in found.words


def test_the_order_of_a_split_by_time_is_that_of_the_last_events(prepared):
    """Also where ISO times and sessions cut at gaps decide."""
    rows = "".join(f"u{user},{day},2024-01-{day:02}\n" for user in "ab" for day in (9, 1, 3, 5, 7))
    reading = {"user_column": "user", "item_column": "page", "time_column": "at", "session_gap": "24h"}
    found = prepared(f"user,page,at\n{rows}", reading, split="time", validation=0.2, holdout=0.2, min_count=2)
    assert labels(found) == [[[day] for day in "113355"], [["<unk>"]] * 2, [["<unk>"]] * 2]


def test_a_split_by_time_needs_times(prepared):
    """And shares that are split off."""
    with pytest.raises(DataError, match="events: has no times to split by: give --time-column, --split random, or"):
        prepared("a b\n" * 9, split="time")
    with pytest.raises(ValueError, match="validation and holdout are both files"):
        SplitOptions(split="time", validation=Path("v"), holdout=Path("t"))
    with pytest.raises(DataError, match="the generated log: has no times"):
        prepare([], DataOptions(), ItemOptions(generated_sessions=20), SplitOptions(split="time"), 0)


@pytest.mark.parametrize("held_out", [{}, {"split": "time"}])
@pytest.mark.parametrize("min_count", [1, 2])
def test_only_the_training_part_makes_the_vocabulary(prepared, held_out, min_count):
    """Items of other parts are unknown: they count as the unknown item or, without one, are left out and counted."""
    rows = "".join(f"s{n},common,{n}\ns{n},common,{n}\ns{n},own{n},{n}\n" for n in range(20))
    found = prepared("SessionId,ItemId,Time\n" + rows, min_count=min_count, **held_out)
    train, *others = labels(found)
    own = {item for session in train for item in session} - {"common", "<unk>"}
    assert len(train) == 14
    assert len(own) == (14 if min_count == 1 else 0)
    assert set(found.vocabulary.labels) == own | {"common"} | ({"<unk>"} if min_count == 2 else set())
    tail = ["<unk>"] if min_count == 2 else []
    assert all(session == ["common", "common", *tail] for part in others for session in part)
    assert found.record["left_out"] == (6 if min_count == 1 else 0)


def test_a_vocabulary_counts_only_what_is_seen_in_training(prepared):
    """An item that reaches the count with the help of held-out sessions is unknown."""
    rows = "".join(f"s{n},x,{n}\ns{n},rare{n // 18},{n}\n" for n in range(20))
    found = prepared("SessionId,ItemId,Time\n" + rows, split="time", min_count=2, validation=0.05, holdout=0.05)
    assert set(found.vocabulary.labels) == {"x", "rare0", "<unk>"}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_keeps_what_was_read_and_done(run_here, tmp_path, suffix):
    """The files in their order, the options, the counts and the split; loading and saving again loses nothing."""
    for name in "12":
        rows = "".join(f"{name}{n},a,{n}\n{name}{n},b,{n}\n{name}{n},b,{n}\n" for n in range(10))
        (tmp_path / f"{name}.csv").write_text(f"SessionId,ItemId,Time\n{rows}bad\n")
    options = ("--bad-rows", 3, "--drop-repeats", "--session-end", "end", "--split", "time", "--validation", "1.csv")
    done = run_here(main, "2.csv", "1.csv", *options, "--epochs", 1, "--hidden-size", 4, "-o", f"model{suffix}")
    assert (done.returncode, done.stderr) == (0, "")
    printed = " ".join(done.stdout.split())
    assert "2.csv, 1.csv, read as a table, ordered by 'Time', 20 duplicates" in printed
    assert "2 bad rows left out (2.csv, line 32 has 1 field, the header 3: 'bad'; 1.csv, line 32" in printed
    assert "--validation 1.csv, read as a table" in printed
    assert "Sessions split by the time of their last event" in printed
    kept = arraylstm.load(tmp_path / f"model{suffix}").trained_on
    assert kept["data"] == {
        "files": ["2.csv", "1.csv"],
        "read_as": "a table, ordered by 'Time'",
        "options": {"bad_rows": 3, "drop_repeats": True, "session_end": "end"},
        "sessions": 20,
        "events": 60,
        "bad_rows": 2,
        "duplicates": 20,
        "repeats": 20,
    }
    assert kept["validation"]["files"] == ["1.csv"]
    assert kept["split"]["shares"] == {"test": 0.2}
    assert kept["split"]["sessions"] == {"train": 16, "validation": 10, "test": 4}
    assert json.loads(json.dumps(kept)) == kept
    again = tmp_path / f"again{suffix}"
    arraylstm.save(arraylstm.load(tmp_path / f"model{suffix}"), again)
    assert arraylstm.load(again).trained_on == kept


def test_a_checkpoint_without_a_record_has_none(tmp_path):
    """As those of before; a damaged one is refused."""
    arraylstm.save(NextItemModel("lstm", 3, 4), tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert "trained_on" not in content
    assert arraylstm.load(tmp_path / "model.pt").trained_on is None
    torch.save(content | {"trained_on": [1]}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="must have a dict as trained_on, got list"):
        arraylstm.load(tmp_path / "model.pt")


def test_the_standard_input_can_be_trained_on_once(run_here, monkeypatch, tmp_path):
    """As the data, or as one of the parts."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a b c\n" * 20)))
    refused = run_here(main, "-", "--test=-")
    assert "- is the standard input, which can be read once" in refused.stderr
    assert "--session-end requires an argument" in " ".join(run_here(main, "-", "--session-end", "-").stderr.split())
    done = run_here(main, "-", "--epochs", 1, "--hidden-size", 4)
    assert (done.returncode, done.stderr) == (0, "")
    assert arraylstm.load(tmp_path / "model.pt").trained_on["data"]["files"] == ["-"]
