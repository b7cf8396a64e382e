"""An export under adversity: the same bytes every time, and a bundle whole or not at all."""

import ctypes
import filecmp
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import arraylstm
import arraylstm_export
from arraylstm import NextItemModel
from arraylstm_export import ExportError, Options
from arraylstm_export.bundle.folder import put_in_place, scratch_beside
from arraylstm_export.graph import build

from ..helpers import QUICK, SMALL, make_model

EVERYTHING = ("--format", "onnx", "--format", "torchscript", "--format", "pt2", "--format", "triton")


def start(cell, target, *arguments):
    """Export a cell's model in a process of its own."""
    program = Path(sys.executable).parent / "arraylstm-export"
    model = target.parent / f"{cell}.pt"
    arraylstm.save(make_model(cell), model)
    command = [program, model, "-o", target, "--horizon", "20", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


EXPORT_ALL = """
import sys
from arraylstm_export.cli import app
for cell in ("array", "lstm", "markov"):
    assert app([f"{cell}.pt", "-o", cell, "--horizon", "20", *sys.argv[1:]]) == 0
"""


def test_exporting_twice_gives_the_same_bytes(tmp_path):
    """Fresh processes, other folders, another order of sets: every file of the bundles is equal, cell by cell."""
    folders, running = (tmp_path / "one", tmp_path / "other"), []
    for seed, folder in enumerate(folders):
        folder.mkdir()
        for cell in ("array", "lstm", "markov"):
            arraylstm.save(make_model(cell), folder / f"{cell}.pt")
        command = [sys.executable, "-c", EXPORT_ALL, *EVERYTHING]
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        running.append(subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        with process:
            assert process.wait() == 0, process.stderr.read()
    one, other = (
        {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()} for folder in folders
    )
    assert one.keys() == other.keys()
    assert {f"{cell}/manifest.json" for cell in ("array", "lstm", "markov")} <= set(map(str, one))
    assert [str(name) for name in one if not filecmp.cmp(one[name], other[name], shallow=False)] == []


class TestKilled:
    """An export that is ended half-way."""

    @pytest.mark.parametrize("stage", ["writing torchscript", "parity"])
    @pytest.mark.parametrize(("how", "left"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, 1)])
    def test_nothing_stands_under_the_targets_name(self, tmp_path, stage, how, left):
        """SIGKILL leaves a hidden folder, which the next export removes."""
        target = tmp_path / "bundle"
        kill = f"lambda name, *_: name == {stage!r} and os.kill(os.getpid(), {how.value})"
        program = (
            "import os, sys; from arraylstm_export import cli; whole = cli.write_bundle\n"
            f"cli.write_bundle = lambda *given: whole(*given[:-1], {kill})\ncli.main()"
        )
        arraylstm.save(make_model("array"), tmp_path / "model.pt")
        command = [sys.executable, "-c", program, tmp_path / "model.pt", "-o", target, "--format", "torchscript"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[how]
        assert "Traceback" not in done.stderr
        assert not target.exists()
        assert len(list(tmp_path.glob(".*"))) == left
        with scratch_beside(target):
            assert len(list(tmp_path.glob(".*"))) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]

    def test_a_bundle_that_was_about_to_be_replaced_is_put_back(self, tmp_path):
        """Killed between the two renamings, an export leaves the older bundle in its scratch folder."""
        target = tmp_path / "bundle"
        killed = tmp_path / ".bundle.arraylstm-export-killed" / "old"
        killed.mkdir(parents=True)
        (killed / "manifest.json").write_text("{}")
        with scratch_beside(target):
            assert (target / "manifest.json").read_text() == "{}"

    def test_the_scratch_folder_of_a_running_export_is_left_alone(self, tmp_path):
        """Two exports to one target do not sweep each other away."""
        with scratch_beside(tmp_path / "bundle") as one, scratch_beside(tmp_path / "bundle") as other:
            assert one.is_dir()
            assert other.is_dir()


def test_of_two_exports_into_one_target_the_last_one_wins_whole(tmp_path):
    """Whichever is done last, all files are of one model."""
    target = tmp_path / "bundle"
    running = [start(cell, target, "--format", "torchscript") for cell in ("array", "lstm")]
    for process in running:
        with process:
            assert process.wait() == 0, process.stderr.read()
    assert arraylstm_export.verify_bundle(target).passed
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "array.pt", "lstm.pt"}


def test_put_in_place_replaces_what_another_export_put_there_meanwhile(tmp_path):
    """The target may have come to be since the export began."""
    target = tmp_path / "bundle"
    for name in ("first", "second"):
        with scratch_beside(target) as folder:
            (folder / name).touch()
            put_in_place(folder, target)
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.fixture
def disk(tmp_path):
    """Mount a file system in memory with the given options; it is gone after the test."""
    libc, mounted = ctypes.CDLL(None, use_errno=True), []

    def mount(options, flags=0):
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        if libc.mount(b"tmpfs", bytes(folder), b"tmpfs", flags, options.encode()) != 0:
            pytest.skip(f"file systems cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        libc.umount(bytes(folder))


READ_ONLY, REMOUNT = 1, 32


class TestDisk:
    """A file system that cannot take a bundle."""

    @pytest.mark.parametrize(
        ("format", "kilobytes"), [("onnx", 8), ("torchscript", 20), ("pt2", 20), ("triton", 8), ("onnx", 200)]
    )
    def test_a_full_one_is_one_sentence_and_nothing_left(self, disk, format, kilobytes):
        """Whatever is being written when it fills up: a format, or the report; the target stays what it was."""
        folder = disk(f"size={kilobytes}k")
        (folder / "bundle").mkdir()
        with pytest.raises(ExportError, match="bundle: cannot be written: No space left on device"):
            arraylstm_export.export(make_model("array"), folder / "bundle", Options(format=(format,), coverage=SMALL))
        assert [path.name for path in folder.rglob("*")] == ["bundle"]

    def test_a_read_only_one_is_one_sentence(self, disk):
        """It is said before anything is computed."""
        folder = disk("size=1m")
        disk("size=1m", READ_ONLY | REMOUNT)
        with pytest.raises(ExportError, match="cannot be written: Read-only file system"):
            arraylstm_export.export(make_model("array"), folder / "bundle", QUICK)


class TestSizes:
    """Models as small as they come, and without labels."""

    @pytest.mark.parametrize("cell", ["array", "lstm", "max-lane"])
    def test_one_item_one_unit_one_lane(self, tmp_path, cell):
        """Every format, without a vocabulary."""
        model = NextItemModel(cell, 1, 1, k=1)
        options = Options(format=("onnx", "torchscript", "pt2", "triton"), coverage=SMALL)
        assert arraylstm_export.export(model, tmp_path / "bundle", options).passed

    @pytest.mark.parametrize("cell", ["stochastic", "max-lane"])
    def test_saturated_gates(self, tmp_path, cell):
        """Weights a hundred times as large: lanes tie, and a different choice at a tie is not an error."""
        model = make_model(cell)
        with torch.no_grad():
            for weight in model.cells.parameters():
                weight.mul_(50)
        assert arraylstm_export.export(model, tmp_path / "bundle", Options(format=("onnx",), coverage=SMALL)).passed

    def test_a_graph_that_no_file_can_hold_is_refused(self, tmp_path, monkeypatch):
        """Protobuf ends at 2 GB; the message says so before time is spent."""
        monkeypatch.setattr(build, "LARGEST", 100)
        with pytest.raises(ExportError, match=r"weights of [\d,]+ bytes; an ONNX file holds at most 100"):
            arraylstm_export.export(make_model("array"), tmp_path / "bundle", QUICK)
