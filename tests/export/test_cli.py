"""arraylstm-export as a user meets it: what it prints, where, and with which status it ends."""

import gzip
import importlib.metadata
import json
import os
import platform
import pty
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext, suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

import arraylstm
from arraylstm import NextItemModel, Vocabulary
from arraylstm_export import ExportError, cli, runtime
from arraylstm_export.formats.timing import seconds_per_step
from arraylstm_export.interface import Interface

from .helpers import Form, make_model

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # they are in sys.argv


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the program in this process, in an empty folder; return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["arraylstm-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def own_bundle(array_bundle, tmp_path):
    """A copy of the array cell's bundle, to be changed."""
    return shutil.copytree(array_bundle[1], tmp_path / "bundle")


def one_sentence(errors):
    """Return an error's text, which is of one line, or in the frame that cyclopts draws around its own."""
    assert "Traceback" not in errors
    lines = [line.strip("│ ") for line in errors.splitlines() if not line.startswith(("╭", "╰"))]
    assert lines == [line for line in lines if line]
    return " ".join(lines)


def test_an_export_shows_its_files_and_what_comes_next(run_program, model_file, tmp_path):
    """Status 0, a row for every file with its size and difference, nothing on stderr, no colour codes in a pipe."""
    done = run_program("arraylstm-export", model_file.name, "-o", "bundle", "--horizon", "100")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    verdict, *table, last = done.stdout.splitlines()
    assert verdict.startswith("Parity with float64 PyTorch: passed at tolerance 1e-05, largest difference")
    assert last == "Wrote bundle. Next: arraylstm-serve bundle"
    rows = {row.split()[1]: row.split() for row in table if row.startswith((" onnx", " torchscript"))}
    assert list(rows) == ["step.onnx", "sequence.onnx", "model.torchscript.pt"]
    for file, (_, _, size, unit, difference, *_) in rows.items():
        assert unit == "kB"
        assert float(size) == pytest.approx((tmp_path / "bundle" / file).stat().st_size / 1000, abs=0.05)
        assert 0 < float(difference) <= 1e-5


def test_an_export_that_cannot_be_served_says_nothing_of_serving(run_program, model_file):
    """A bundle without the step graph in ONNX is written, and the server is not what comes next."""
    done = run_program(
        "arraylstm-export", model_file.name, "-o", "bundle", "--horizon", "100", "--format", "torchscript"
    )
    assert done.stdout.splitlines()[-1] == "Wrote bundle."


@pytest.mark.parametrize("name", ["model.pt", "best model.safetensors", "epoch=3.loss=0.5.pt"])
def test_without_output_the_bundle_is_beside_the_model_and_has_its_name(run, tmp_path, name):
    """The last line is the command that serves it, as a shell takes it; a second export replaces the first."""
    (tmp_path / "runs").mkdir()
    arraylstm.save(make_model("array"), tmp_path / "runs" / name)
    bundle = f"runs/{name.rsplit('.', 1)[0]}"
    for _ in range(2):
        status, output, errors = run(f"runs/{name}", "--format", "onnx", "--horizon", "50")
        assert (status, errors) == (0, "")
        quoted = f"'{bundle}'" if " " in name else bundle
        assert output.splitlines()[-1] == f"Wrote {bundle}. Next: arraylstm-serve {quoted}"
        assert (tmp_path / bundle / "manifest.json").exists()


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "cp932", "latin-1"])
def test_a_console_without_a_character_does_not_fail_an_export(run_program, monkeypatch, tmp_path, encoding):
    """Lines, names of files and labels show something else in its place; status and bundle are those of any console."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("PYTHONUTF8", "0")
    arraylstm.save(make_model("array"), tmp_path / "größe-模型-Ж.pt")
    done = run_program("arraylstm-export", "größe-模型-Ж.pt", "--horizon", "50", encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Next: arraylstm-serve " in done.stdout
    assert (tmp_path / "größe-模型-Ж" / "manifest.json").exists()
    for arguments in (["inspect", "größe-模型-Ж"], ["--help"]):
        assert run_program("arraylstm-export", *arguments, encoding=encoding).returncode == 0


def test_two_runtimes_at_once_are_refused_with_the_remedy(run, model_file, own_bundle, monkeypatch, tmp_path):
    """Before anything is made or compared."""
    monkeypatch.setattr(runtime, "distribution", lambda name: name)
    for arguments in ([model_file, "-o", "new"], ["--verify", "bundle"]):
        status, output, errors = run(*arguments)
        assert (status, output) == (2, "")
        assert "pip uninstall -y onnxruntime onnxruntime-gpu` and install the one you want" in one_sentence(errors)
    assert not (tmp_path / "new").exists()


def test_either_runtime_will_do(run, model_file, monkeypatch, tmp_path):
    """The version in the manifest is the runtime's own, whatever its distribution is called."""

    def distribution(name):
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return name

    monkeypatch.setattr(runtime, "distribution", distribution)
    monkeypatch.setattr(importlib.metadata, "distribution", without(importlib.metadata.distribution, "onnxruntime"))
    assert run(model_file, "-o", "new", "--format", "torchscript", "--horizon", "50")[0] == 0
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    assert manifest["versions"]["onnxruntime"] == onnxruntime.__version__


def without(find, missing):
    """Return a function that does not find one distribution."""

    def found(name):
        if name == missing:
            raise PackageNotFoundError(name)
        return find(name)

    return found


def test_on_another_machine_it_is_said_that_rows_were_not_compared(run, model_file, monkeypatch, tmp_path):
    """On the terminal and in both reports; TorchScript promises nothing there, so nothing is said of it."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    status, output, _ = run(model_file, "-o", "new", "--horizon", "50")
    assert status == 0
    for text in (output, (tmp_path / "new" / "parity.md").read_text()):
        for form in ("step.onnx", "sequence.onnx"):
            assert (
                f"{form}: whether a row has the same bits in every batch was not checked: this machine is aarch64"
                in text
            )
        assert "torchscript.pt: whether" not in text
    assert set(json.loads((tmp_path / "new" / "parity.json").read_text())["equal_bits_not_checked"]) == {
        "step.onnx",
        "sequence.onnx",
    }


@pytest.fixture
def two_threads():
    """Let torch use two threads for a while."""
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.parametrize("failing", [False, True])
def test_a_step_is_timed_on_one_thread_of_torch(two_threads, failing):
    """Every call has one thread, and torch has its own number again afterwards, even where a call fails."""
    seen = []

    def run(items, lengths, state):
        seen.append(torch.get_num_threads())
        if failing:
            raise ExportError("cannot be run")

    with pytest.raises(ExportError) if failing else nullcontext():
        seconds_per_step(Form(run), Interface.of(make_model("array")))
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_a_terminal_sees_progress_that_goes_away(model_file, tmp_path):
    """Stages are drawn on the terminal while they last, whatever the output is sent into."""
    main, terminal = pty.openpty()
    program = Path(sys.executable).parent / "arraylstm-export"
    command = [program, model_file, "-o", tmp_path / "bundle", "--format", "torchscript", "--horizon", "100"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        drawn = b"".join(pieces_of(main))
        output = process.stdout.read()
    os.close(main)
    assert process.returncode == 0
    assert b"writing torchscript" in drawn
    assert drawn.rstrip(b"\r\n").endswith(b"\x1b[2K")  # the bar's own line, erased
    assert b"\x1b" not in output


def pieces_of(terminal):
    """Yield what is drawn on a terminal until its last user has closed it, which Linux reports as an error."""
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            yield piece


def test_a_tolerance_that_float32_cannot_keep_is_status_1_and_no_bundle(run, model_file, tmp_path):
    """The table shows which form, tensor and scenario failed; nothing stands under the target's name."""
    arguments = "--format", "torchscript", "--tolerance", "1e-12", "--horizon", "50"
    status, output, _ = run(model_file, "-o", "bundle", *arguments)
    assert status == 1
    assert "FAILED at tolerance 1e-12" in output
    row = next(line for line in output.splitlines() if line.startswith(" model.torchscript.pt "))
    assert row.split()[2].startswith(("next_state_", "logits"))
    assert row.endswith("FAILED ")
    assert "Nothing was written to bundle." in output
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_lower_precision_is_written_in_the_formats_that_have_it(run, tmp_path):
    """Int8 without --format is ONNX alone, and what it costs on the held-out file is shown."""
    torch.manual_seed(1)
    arraylstm.save(NextItemModel("array", 40, 32, k=2), tmp_path / "model.pt")
    (tmp_path / "events").write_text("1 2 3\n7 1 39 4\n")
    arguments = "--precision", "int8", "--held-out", "events", "--held-out-format", "lines", "--horizon", "50"
    status, output, _ = run("model.pt", "-o", "bundle", *arguments)
    assert status == 0
    assert "on 5 held-out steps" in output
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["formats"] == ["onnx"]


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [
        (None, [4, 0, 2]),
        (Vocabulary(["a", 4, "4", 0, 2]), [2, 3, 4]),
        (Vocabulary(["2", "00", 4, "rare", 9], unknown="rare"), [2, 3, 0]),
    ],
)
def test_a_held_out_label_is_the_string_else_the_int_it_spells(run, tmp_path, monkeypatch, vocabulary, expected):
    """It is looked up among the model's own labels, which may hold both 4 and "4"; any other label is unknown."""
    measured = []

    def write_bundle(model, output, options, sequences, show):
        measured.extend(sequence.tolist() for sequence in sequences)
        raise ExportError("seen enough")

    monkeypatch.setattr(cli, "write_bundle", write_bundle)
    arraylstm.save(NextItemModel("array", 5, 4, k=2, vocabulary=vocabulary), tmp_path / "model.pt")
    (tmp_path / "events").write_text("4 0 2\n")
    _, _, errors = run("model.pt", "-o", "bundle", "--held-out", "events", "--held-out-format", "lines")
    assert "seen enough" in errors
    assert measured == [expected]


def test_held_out_events_are_read_as_for_training(run, tmp_path, monkeypatch):
    """A folder of packed tables without headers, cut at gaps, a row left out; messages name these flags."""
    measured = []

    def write_bundle(model, output, options, sequences, show):
        measured.extend(sequence.tolist() for sequence in sequences)
        raise ExportError("seen enough")

    monkeypatch.setattr(cli, "write_bundle", write_bundle)
    arraylstm.save(NextItemModel("lstm", 5, 4), tmp_path / "model.pt")
    (tmp_path / "events").mkdir()
    for name, rows in {"1": "u::1::2024-01-01\nu::2::2024-01-02\nbad\n", "2": "u::3::2024-01-09\n"}.items():
        (tmp_path / "events" / name).write_bytes(gzip.compress(rows.encode()))
    flags = {"user-column": 1, "item-column": 2, "time-column": 3, "session-gap": "1d"}
    named = [word for name, value in flags.items() for word in (f"--held-out-{name}", str(value))]
    command = ["model.pt", "-o", "bundle", "--held-out", "events", "--held-out-headerless", *named]
    assert "1: line 3 has 1 field, the first row 3: 'bad'" in run(*command)[2]
    assert "seen enough" in run(*command, "--held-out-bad-rows", "1")[2]
    assert measured == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a model file, such as the model.pt of arraylstm-train; see arraylstm-export --help"),
        (["model"], "model: has no suffix that its bundle's name could lack; name a folder with --output DIR"),
        (["named.pt"], "named: is a folder that holds something other than a bundle"),
        (["missing.pt", "-o", "new"], "missing.pt: no such file"),
        (["broken.pt", "-o", "new"], "broken.pt: not a torch file"),
        (["model.pt", "-o", "broken.pt"], "broken.pt: is a file; name a folder"),
        (["model.pt", "-o", "/"], "/: is a folder that holds something other than a bundle"),
        (["model.pt", "-o", "new", "--format", "tflite"], "unknown format 'tflite'; known: onnx, torchscript"),
        (["model.pt", "-o", "new", "--precision", "int4"], "unknown precision 'int4'; known: fp32, fp16, int8"),
        (["model.pt", "-o", "new", "--opset", "3"], "opset 3: graphs can be written in opset 15 to 25"),
        (["model.pt", "-o", "new", "--opset", "x"], 'unable to convert "x" into int'),
        (["model.pt", "-o", "new", "--ir-version", "99"], "IR version 99: opset 18 can be written in IR version 8"),
        (["model.pt", "-o", "new", "--horizon", "0"], "horizon must be at least 1, got 0"),
        (["model.pt", "-o", "new", "--tolerance", "0"], "tolerance must be a number above 0, got 0.0"),
        (["model.pt", "-o", "new", "--precision", "int8"], "give sessions to measure it on (--held-out FILE)"),
        (
            ["model.pt", "-o", "new", "--precision", "int8", "--format", "torchscript"],
            "format 'torchscript' can be written in fp32, not in 'int8'",
        ),
        (["model.pt", "-o", "new", "--held-out", "strange"], "strange: unknown item 'zzz'; the vocabulary has 7"),
        (["model.pt", "-o", "new", "--held-out", "gone"], "gone: No such file"),
        (["model.pt", "-o", "new", "--diagnostics"], "the cell 'array' has no diagnostics to export"),
        (["model.pt", "-o", "new", "--verify", "bundle"], "give one of them"),
        (["--verify", "bundle", "--opset", "15"], "leave out --opset"),
        (["model.pt", "--verify", "bundle", "--ir-version", "9"], "leave out --ir-version"),
        (["model.pt", "--verify", "bundle", "--diagnostics"], "leave out --diagnostics"),
        (["--verify", "bundle", "--horizon", "3"], "without a model replays a bundle's test vectors: leave out --hor"),
        (["--verify", "bundle", "--strict"], "without a model replays a bundle's test vectors: leave out --strict"),
        (["--verify", "bundle", "--cell", "nonsense"], "--cell describes a model file: give one, or leave out --cell"),
        (["--verify", "bundle", "--vocabulary", "none"], "--vocabulary describes a model file: give one, or leave"),
        (["--verify", "bundle", "--held-out-text-length", "9"], "give one with --held-out FILE, or leave out --held-o"),
        (["model.pt", "-o", "new", "--held-out-format", "text"], "--held-out-format describes an event file: give one"),
        (["--verify", "bundle", "--held-out", "strange"], "leave out --held-out"),
        (["--verify", "empty"], "empty: is not a bundle: manifest.json: No such file"),
        (["--verify", "broken.pt"], "broken.pt: is not a bundle: manifest.json: Not a directory"),
        (["other.pt", "--verify", "bundle"], "was made from another model than this one: their"),
        (["inspect", "gone"], "gone: is not a bundle"),
        (["inspect", "broken.pt"], "broken.pt: is not a graph from arraylstm-export"),
        (["inspect", "bundle/manifest.json"], "bundle/manifest.json: is not a graph from arraylstm-export"),
        (["inspect", "config.pbtxt"], "config.pbtxt: is not a graph from arraylstm-export"),
        (["inspect", "no-opset.onnx"], "no-opset.onnx: is not a graph from arraylstm-export"),
    ],
)
def test_bad_input_is_one_clear_sentence_and_status_2(run, model_file, own_bundle, tmp_path, arguments, message):
    """The value seen and what is allowed, no traceback, and nothing written."""
    (tmp_path / "broken.pt").write_text("not a model")
    (tmp_path / "config.pbtxt").write_text('name: "arraylstm"\n')
    (tmp_path / "no-opset.onnx").write_bytes(without_opset(own_bundle / "step.onnx"))
    (tmp_path / "strange").write_text("a b zzz\n")
    (tmp_path / "empty").mkdir()
    for copy in ("model", "named.pt"):
        shutil.copy(model_file, tmp_path / copy)
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "notes").write_text("mine")
    arraylstm.save(make_model("lstm"), tmp_path / "other.pt")
    before = set(tmp_path.iterdir())
    status, output, errors = run(*arguments)
    assert (status, output) == (2, "")
    assert message in one_sentence(errors)
    assert set(tmp_path.iterdir()) == before


FOREIGN = {"opset": "18", "formats": 1, "graphs": ["step.onnx"], "files": {"step.onnx": None}, "model": [7]}
FOREIGN |= {"states": {"h": 6}, "tolerance": 1e-5, "versions": "0.1"}


@pytest.mark.parametrize("command", ["inspect", "--verify"])
def test_a_manifest_with_a_field_missing_or_foreign_is_no_bundle(run, own_bundle, command):
    """Whichever field it is, inspect and --verify both say that the manifest is not from arraylstm-export."""
    path = own_bundle / "manifest.json"
    whole = json.loads(path.read_text())
    without = ({name: value for name, value in whole.items() if name != field} for field in whole)
    for manifest in [*without, *({**whole, field: value} for field, value in FOREIGN.items())]:
        path.write_text(json.dumps(manifest))
        status, output, errors = run(command, "bundle")
        assert (status, output) == (2, "")
        assert "bundle: is not a bundle: manifest.json is not from arraylstm-export" in one_sentence(errors)


@pytest.mark.parametrize("command", ["inspect", "--verify"])
def test_a_bundle_in_an_unknown_format_is_refused_by_its_name(run, own_bundle, command):
    """A format of a later version is named, with the formats that this version knows."""
    edit(own_bundle / "manifest.json", formats=["onnx", "tflite"])
    status, _, errors = run(command, "bundle")
    assert status == 2
    assert "bundle: is written in the unknown format 'tflite'; known: onnx, torchscript" in one_sentence(errors)


class TestVerify:
    """--verify DIR."""

    @pytest.mark.parametrize(
        ("arguments", "equal_to"),
        [([], "its own test vectors"), (["model.pt", "--horizon", "50", "--strict"], "the model")],
    )
    def test_a_bundle_that_is_whole_passes(self, run, model_file, own_bundle, arguments, equal_to):
        """Status 0, with a model and without."""
        status, output, _ = run("--verify", "bundle", *arguments)
        assert status == 0
        assert output.endswith(f"bundle is unchanged since it was written, and equal to {equal_to}.\n")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda folder: (folder / "notes").write_text(""), "notes does not belong to the bundle"),
            (lambda folder: (folder / "parity.md").unlink(), "parity.md is missing"),
            (lambda folder: (folder / "manifest.sha256").unlink(), "manifest.sha256 is missing"),
            (lambda folder: flip(folder / "sequence.onnx"), "sequence.onnx was changed"),
            (lambda folder: edit(folder / "manifest.json", precision="fp16"), "manifest.json was changed"),
            (lambda folder: edit(folder / "manifest.json", schema_version=9), "has schema version 9; this program"),
        ],
    )
    def test_what_was_changed_is_named(self, run, own_bundle, change, message):
        """A file more, less or other than was written, or a manifest of another time, is status 2."""
        change(own_bundle)
        status, _, errors = run("--verify", "bundle")
        assert status == 2
        assert message in one_sentence(errors)

    def test_a_tolerance_that_is_not_kept_is_status_1(self, run, own_bundle):
        """Another tolerance may be asked for than the bundle was made with."""
        status, output, _ = run("--verify", "bundle", "--tolerance", "1e-12")
        assert status == 1
        assert "Do not use bundle." in output


class TestInspect:
    """inspect PATH."""

    def test_it_shows_a_bundles_model_tensors_and_files(self, run, own_bundle):
        """Nothing is cut off, however narrow the terminal that the output does not go to."""
        status, output, _ = run("inspect", "bundle")
        assert status == 0
        manifest = json.loads((own_bundle / "manifest.json").read_text())
        for expected in ("embedding_size", manifest["fingerprint"], "next_state_c_l1", "[B, 3, 6]", "vectors/", "kB"):
            assert expected in output
        assert "…" not in output

    def test_it_shows_what_a_lone_graph_says_of_itself(self, run, own_bundle):
        """A graph that was copied out of its bundle still names its model, whatever the copy is called."""
        shutil.copy(own_bundle / "sequence.onnx", "graph.json")
        status, output, _ = run("inspect", "graph.json")
        assert status == 0
        for expected in (json.loads((own_bundle / "manifest.json").read_text())["fingerprint"], "lengths", "opset 18"):
            assert expected in output


def without_opset(path):
    """Return a graph that does not say which operators it is made of."""
    model = onnx.load(path)
    del model.opset_import[:]
    return model.SerializeToString()


def flip(path):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path, **fields):
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
