"""arraylstm-evaluate as a user meets it: what it prints and writes, and what it refuses."""

import gzip
import io
import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from arraylstm import Vocabulary
from arraylstm_export import cli as export_cli
from arraylstm_export.bundle.manifest import read_manifest
from arraylstm_export.evaluation import cli, report
from arraylstm_export.evaluation.anomalies import Curves, Detection, Events, choose, expected_alarms
from arraylstm_export.evaluation.sessions import NO_ID, Encoder
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.bundle.vocabulary import Vocabulary as ServedVocabulary

from .conftest import SESSIONS

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # they are in sys.argv


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, model_and_bundle):
    """Run the program in an empty folder with a bundle and event files; return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("known", "lacking"):
        shutil.copytree(model_and_bundle(name)[1], tmp_path / name)
    write("events.txt", SESSIONS)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments, program=cli):
        monkeypatch.setattr(sys, "argv", ["arraylstm-evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            program.main()
        return end.value.code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


def write(name, sessions):
    """An event file with a session a line, in the current folder."""
    with Path(name).open("w") as file:
        file.writelines(" ".join(session) + "\n" for session in sessions)


def test_figures_are_printed_and_written(run, tmp_path):
    """A table with and one without the current item, a verdict against the best baseline, JSON, and a page."""
    status, output, errors = run(
        "known", "events.txt", "--train", "events.txt", "--json", "f.json", "--report", "r.html", "--cutoffs", 3, 7
    )
    assert (status, errors) == (0, "")
    for words in ("All items, @7", "Without current, @7", "VMIS-kNN", "back-off n-gram", "positions"):
        assert words in output
    assert "hit@7: the model is " in output
    found = json.loads((tmp_path / "f.json").read_text())
    names = [each["name"] for each in found["predictors"]]
    assert names == ["model", "popularity", "bigram", "symmetric bigram", "back-off n-gram", "VMIS-kNN"]
    assert {"hit@3", "hit@7", "ndcg@7", "recall@3", "coverage@7", "popularity@7", "mrr"} <= set(
        found["predictors"][0]["all"]
    )
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") == 3
    assert not [loads for loads in ("src=", "<link", "@import", "<script") if loads in page]


def test_a_threshold_from_normal_sessions_alone_goes_into_the_bundle(run, tmp_path):
    """Servers take the bundle, it verifies, its fingerprint stays; later runs judge by that threshold."""
    before = read_manifest(tmp_path / "known").fingerprint
    backwards = [[*reversed(session)] for session in SESSIONS]
    write("odd.txt", backwards)
    status, output, errors = run(
        "known", "--anomalies", "--normal", "events.txt", "--anomalous", "odd.txt", "--false-alarms", 0.2,
        "--json", "f.json", "--report", "r.html", "--scores", "s.jsonl",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    assert "Wrote the threshold into the manifest of known." in output
    kept = read_manifest(tmp_path / "known").content["anomalies"]
    assert (kept["score"], kept["false_alarms"], kept["normal_sessions"]) == ("rank", 0.2, 16)
    assert json.loads(Bundle.load(tmp_path / "known").document)["anomalies"] == kept
    assert read_manifest(tmp_path / "known").fingerprint == before
    found = json.loads((tmp_path / "f.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [[each["item"] for each in line["events"]] for line in lines] == backwards
    for line in lines:
        ranks = [each["rank"] for each in line["events"]]
        assert ranks[0] is None
        assert line["score"] == max(ranks[1:])
        assert line["anomaly"] == (line["score"] > kept["threshold"])
    assert found["detection"]["found"] == sum(line["anomaly"] for line in lines)
    assert found["detection"]["found"] + found["detection"]["missed"] == 16
    assert found["detection"]["false_alarms"] + found["detection"]["passed"] == 16
    assert (tmp_path / "r.html").read_text().count("<svg") == 2
    status, output, _ = run("known", "odd.txt", "--anomalies")
    assert status == 0
    assert f"odd.txt: {found['detection']['found']} of 16 are anomalies." in output
    status, _, errors = run("known", "odd.txt", "--anomalies", "--session-end", "end")
    assert status == 2
    assert "was chosen with other ends of sessions: leave out --session-end" in errors


def test_data_come_from_several_files_and_the_standard_input(run, tmp_path, monkeypatch):
    """The figures are those of one file with the same sessions; each reading is said."""
    options = ("--train", "events.txt", "--json", "f.json")
    whole = run("known", "events.txt", *options)
    figures = json.loads((tmp_path / "f.json").read_text())["predictors"]
    write("1.txt", SESSIONS[:5])
    write("2.txt", SESSIONS[5:])
    packed = gzip.compress(Path("2.txt").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(packed)))
    parted = run("known", "1.txt", "-", *options)
    assert (whole[0], parted[0], parted[2]) == (0, 0, "")
    assert "1.txt, -, read as lines: 16 sessions" in parted[1]
    assert json.loads((tmp_path / "f.json").read_text())["predictors"] == figures


def test_a_threshold_belongs_to_the_starts_of_its_sessions(run):
    """Other starts are refused, as other ends are; bundles of before have none."""
    normal = ("known", "--anomalies", "--normal", "events.txt")
    assert run(*normal, "--session-start", "[in]")[0] == 0
    status, _, errors = run("known", "events.txt", "--anomalies")
    assert status == 2
    assert "was chosen with other starts of sessions: --session-start [in]" in errors
    assert run("known", "events.txt", "--anomalies", "--session-start", "[in]")[0] == 0


def test_items_that_the_model_lacks_have_the_last_rank(run, tmp_path):
    """They are anomalies also as a session's first item, or where all items are unknown."""
    known = read_manifest(tmp_path / "known").interface.num_items
    write("odd.txt", [["zebra", SESSIONS[0][0]], [SESSIONS[0][0], "zebra"], ["zebra"], SESSIONS[0][:1]])
    status, _, errors = run(
        "known", "odd.txt", "--anomalies", "--normal", "events.txt", "--scores", "s.jsonl", "--no-keep"
    )
    assert (status, errors) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert [line["score"] for line in lines] == [known + 1] * 3 + [0.0]
    assert [line["anomaly"] for line in lines] == [True, True, True, False]
    assert "anomalies" not in read_manifest(tmp_path / "known").content


def test_labels_say_which_sessions_are_anomalies(run, tmp_path):
    """One for each session; another number of them, or another word, is refused."""
    write("mixed.txt", [SESSIONS[0], ["zebra", "zebra"], SESSIONS[1]])
    arguments = ("known", "mixed.txt", "--anomalies", "--normal", "events.txt", "--labels", "labels.txt")
    (tmp_path / "labels.txt").write_text("normal\nAnomaly\n0\n")
    assert run(*arguments, "--json", "f.json")[0] == 0
    found = json.loads((tmp_path / "f.json").read_text())["detection"]
    assert (found["found"], found["missed"], found["false_alarms"] + found["passed"]) == (1, 0, 2 + 16)
    (tmp_path / "labels.txt").write_text("0\n1\n")
    assert "has 2 labels, and mixed.txt 3 sessions" in run(*arguments)[2]
    (tmp_path / "labels.txt").write_text("0\n1\nyes\n")
    assert "label 3 is 'yes'; allowed are 1, anomaly" in run(*arguments)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing", "events.txt"], "is not a bundle"),
        (["known"], "give an event file to measure the model on"),
        (["known", "nothing.txt"], "nothing.txt: No such file"),
        (["known", "events.txt", "--cutoffs", "0"], "cutoffs must be"),
        (["known", "events.txt", "--cutoffs", "5000"], "cutoffs must be at most 1000, got 5000"),
        (["known", "events.txt", "--normal", "events.txt"], "--normal: finds anomalies: give --anomalies too"),
        (["known", "events.txt", "--anomalies"], "has no threshold yet: give --normal FILE"),
        (["known", "--anomalies"], "--anomalies needs sessions"),
        (["known", "--anomalies", "--train", "events.txt"], "--train: --anomalies measures no recommendations"),
        (["known", "--anomalies", "--normal", "events.txt", "--false-alarms", "1"], "below 1, got 1.0"),
        (["known", "--anomalies", "--normal", "events.txt", "--labels", "l"], "--labels says which sessions of DATA"),
        (["known", "events.txt", "--json", "no/f.json"], "--json 'no/f.json': must be a file in a folder that exists"),
        (["known", "events.txt", "--report", "."], "--report '.': must be a file in a folder that exists"),
        (["lacking", "events.txt"], "session 1: unknown item 'guest'; the model has"),
        (["known", "events.txt", "--train", "other.txt"], "two items that the model knows"),
        (["known", "short.txt"], "none of 2 sessions has a second item to predict"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run, arguments, message):
    """With status 2 and no traceback."""
    write("other.txt", [["x", "y"], ["z"]])
    write("short.txt", [["home"], ["home"]] if "home" in SESSIONS[0] else [SESSIONS[0][:1]] * 2)
    status, _, errors = run(*arguments)
    assert status == 2
    assert "Traceback" not in errors
    assert message in " ".join(errors.replace("│", " ").split())


def test_a_bundle_that_was_changed_is_not_measured(run, tmp_path):
    """What is served is what is measured, and a server refuses it too."""
    (tmp_path / "known" / "vocabulary.json").write_text('{"labels": ["a"], "unknown": null}')
    status, _, errors = run("known", "events.txt")
    assert status == 2
    assert "vocabulary.json was changed" in errors


def test_a_page_without_matplotlib_is_refused_before_the_work(run, monkeypatch):
    """The message has the extra to install."""
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    status, output, errors = run("known", "events.txt", "--report", "r.html")
    assert (status, output) == (2, "")
    assert 'pip install "arraylstm-serving[plot]"' in errors


def test_a_bundle_with_a_threshold_is_exported_over_and_verified(run, tmp_path):
    """The manifest's new key belongs to the bundle; nothing is left beside it."""
    run("known", "--anomalies", "--normal", "events.txt")
    assert read_manifest(tmp_path / "known").changes(tmp_path / "known") == []
    status, output, _ = run("inspect", "known", program=export_cli)
    assert status == 0
    assert "step.onnx" in output
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".known.arraylstm")) == []


def test_labels_of_both_types_mean_what_they_mean_to_a_server():
    """The integer and its digits are one item unless both are labels; other spellings are other items."""
    labels = [5, "5", 7, "a", "8", "-9", "010", "1" * 30]
    encode, served = Encoder(Vocabulary(labels), "skip"), ServedVocabulary(len(labels), labels)
    for item in [5, "5", 7, "7", "a", 8, "8", -9, "-9", 10, "010", "07", "+7", "1" * 30, int("1" * 18), "-", ""]:
        expected = served.under("skip").encode([item]) or [NO_ID]
        assert encode([item]).tolist() == expected


@pytest.mark.parametrize(("share", "expected"), [(0.0, 9.0), (0.05, 9.0), (0.1, 8.0), (0.25, 7.0), (0.99, 0.0)])
def test_a_threshold_is_the_lowest_that_allows_so_many_false_alarms(share, expected):
    """No more than that share of the scores lies above it."""
    scores = np.arange(10.0)
    assert choose(scores, share) == expected
    assert (scores > choose(scores, share)).mean() <= share


def test_false_alarms_are_counted_on_sessions_that_no_threshold_was_chosen_on():
    """Each half is judged by the other's threshold."""
    scores = np.array([1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0])  # halves of 1 to 4 and 5 to 8
    assert expected_alarms(scores, 0.0) == 4
    assert expected_alarms(scores, 0.25) == 4
    assert expected_alarms(np.array([3.0]), 0.0) == 0


@pytest.mark.parametrize(("score", "expected"), [("rank", 9.0), ("surprise", 4.0), ("both", 18.0)])
def test_a_sessions_score_is_the_highest_of_its_events(score, expected):
    """An event without a prediction counts for nothing, and a session without any has the score 0."""
    events = Events(np.array([np.nan, 9.0, 4.0, 1.0]), np.array([np.nan, 2.0, 4.0, 0.1]))
    assert events.highest(score) == expected
    assert Events(np.array([np.nan]), np.array([np.nan])).highest(score) == 0.0


def test_curves_and_counts_are_those_of_every_threshold():
    """ROC area is the share of pairs in the right order, ties by half; counts are a plain loop's."""
    random = np.random.default_rng(1)
    scores, truth = random.integers(0, 9, 80).astype(float), random.random(80) < 0.4
    scores[:3] = np.inf
    pairs = [(one > other) + (one == other) / 2 for one in scores[truth] for other in scores[~truth]]
    figures = Curves.of(scores, truth).figures()
    assert figures["roc_auc"] == pytest.approx(np.mean(pairs))
    for threshold in range(9):
        counts = Detection.of(scores, truth, threshold)
        assert counts.found == sum(score > threshold for score in scores[truth])
        assert counts.false_alarms == sum(score > threshold for score in scores[~truth])
        figures = counts.figures()
        assert figures["f1"] == pytest.approx(
            2 * counts.found / (2 * counts.found + counts.missed + counts.false_alarms) if counts.found else 0
        )
