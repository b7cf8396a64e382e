"""What a bundle must be for the server to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve import Bundle
from arraylstm_serve.engine import open_engine
from arraylstm_serve.errors import StartupError

from .bundles import FINGERPRINT, STATES, describe, signature, step_model, write_bundle


def opened(path: Path) -> Bundle:
    """The bundle, checked as a starting server checks it."""
    bundle = Bundle.load(path)
    open_engine(bundle, "cpu", 1)
    return bundle


def edit(path: Path, **changes: Any) -> None:
    """Change fields of the manifest."""
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_whole_bundle_opens(bundle_path: Path) -> None:
    """A bundle as the exporter writes it opens, and its manifest is kept byte for byte."""
    bundle = opened(bundle_path)
    assert bundle.fingerprint == FINGERPRINT
    assert bundle.document == (bundle_path / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "step.onnx", "vocabulary.json"])
def test_a_missing_file_is_named(bundle_path: Path, name: str) -> None:
    """A file that is not there is named in one sentence."""
    (bundle_path / name).unlink()
    with pytest.raises(StartupError, match=rf"{name} cannot be read: No such file"):
        opened(bundle_path)


@pytest.mark.parametrize("name", ["step.onnx", "vocabulary.json"])
def test_a_changed_file_is_noticed(bundle_path: Path, name: str) -> None:
    """One byte changed in a listed file is told with the hash seen and the hash expected."""
    content = bytearray((bundle_path / name).read_bytes())
    content[-1] ^= 1
    (bundle_path / name).write_bytes(content)
    with pytest.raises(StartupError, match=rf"{name} has sha256 \w+\.\.\. and .* the manifest says"):
        opened(bundle_path)


def test_every_listed_file_is_verified(bundle_path: Path) -> None:
    """Files that the server does not use are verified too."""
    report = bundle_path / "parity.md"
    report.write_text("fine")
    files = {file.name: describe(file) for file in bundle_path.iterdir() if file.name != "manifest.json"}
    edit(bundle_path, files=files)
    opened(bundle_path)
    report.write_text("fake")
    with pytest.raises(StartupError, match=r"parity\.md has sha256"):
        opened(bundle_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"manifest\.json is not valid JSON"),
        (b"\xff", r"manifest\.json is not valid JSON"),
        (b"[]", r"manifest\.json does not have the expected fields: Expected `object`"),
        (b"{}", "missing required field `schema_version`"),
        (b'{"schema_version": 1}', "missing required field `fingerprint`"),
        (b'{"schema_version": "1"}', "Expected `int`, got `str`"),
        (b'{"schema_version": 2, "all": "new"}', "has schema_version 2; this server reads 1"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(bundle_path: Path, content: bytes, message: str) -> None:
    """A manifest that is no JSON, lacks fields or is of another version is told apart."""
    (bundle_path / "manifest.json").write_bytes(content)
    with pytest.raises(StartupError, match=message):
        opened(bundle_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"cell": "tiny", "num_items": 0}}, r"Expected `int` >= 1 - at `\$\.model\.num_items`"),
        ({"model": {"cell": "tiny", "num_items": 8}}, r"vocabulary\.json does not fit the model: 7 labels"),
        ({"graphs": {}}, r"describes no step\.onnx in graphs"),
        ({"files": {}}, r"lists no step\.onnx in files"),
        ({"fingerprint": "sha256:" + "f" * 64}, f"carries the fingerprint {FINGERPRINT}; the manifest says"),
        ({"states": STATES[:1]}, r"does not have the inputs of the manifest: .*state_m"),
        ({"states": STATES[::-1]}, "carries the states .* the manifest says"),
        ({"states": [STATES[0] | {"initial": "ones"}, STATES[1]]}, "state h as float32, initially ones"),
        ({"graphs": {"step.onnx": signature() | {"outputs": []}}}, "does not have the outputs"),
    ],
)
def test_a_manifest_unlike_its_files_is_refused(bundle_path: Path, changes: dict[str, Any], message: str) -> None:
    """Each statement of the manifest is held against the file it speaks of."""
    edit(bundle_path, **changes)
    with pytest.raises(StartupError, match=message):
        opened(bundle_path)


def test_a_graph_without_metadata_is_refused(tmp_path: Path) -> None:
    """A graph that does not say which model it is cannot be trusted to be the manifest's."""
    path = write_bundle(tmp_path / "bundle", model=step_model(**{"arraylstm.fingerprint": ""}))
    with pytest.raises(StartupError, match="carries the fingerprint"):
        opened(path)


@pytest.mark.parametrize("states", ["", "no JSON", "[]"])
def test_a_graph_of_other_states_is_refused(tmp_path: Path, states: str) -> None:
    """States in the graph's metadata that are unreadable or others are a fault of the bundle."""
    path = write_bundle(tmp_path / "bundle", model=step_model(**{"arraylstm.states": states}))
    with pytest.raises(StartupError, match="carries the states"):
        opened(path)


def test_a_file_that_is_no_graph_is_refused(bundle_path: Path) -> None:
    """A step graph that onnxruntime cannot load is told without a traceback."""
    (bundle_path / "step.onnx").write_bytes(b"no graph")
    files = {name: describe(bundle_path / name) for name in ("step.onnx", "vocabulary.json")}
    edit(bundle_path, files=files)
    with pytest.raises(StartupError, match=r"onnxruntime cannot load .*step\.onnx"):
        opened(bundle_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A path that is no directory is named with what was expected there."""
    with pytest.raises(StartupError, match=r"nowhere is not a directory; expected a bundle"):
        opened(tmp_path / "nowhere")


def test_integer_items_need_no_labels(tmp_path: Path) -> None:
    """A bundle without labels serves the ids themselves."""
    assert opened(write_bundle(tmp_path / "bundle", labels=None)).vocabulary.labels[6] == 6
