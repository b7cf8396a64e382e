"""What a bundle must be for the server to start."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve import Bundle
from arraylstm_serve.engine.step_graph import open_graph
from arraylstm_serve.errors import BundleError, StartupError

from .bundles import FINGERPRINT, STATES, describe, signature, step_model, write_bundle, write_manifest


def opened(path: Path) -> Bundle:
    """The bundle, checked as a starting server checks it."""
    bundle = Bundle.load(path)
    open_graph(bundle, 1)
    return bundle


def edit(path: Path, **changes: Any) -> None:
    """Change fields of the manifest."""
    manifest = json.loads((path / "manifest.json").read_text())
    write_manifest(path, json.dumps(manifest | changes).encode())


def listed(path: Path) -> dict[str, Any]:
    """What the manifest says of the files that the server needs."""
    return {name: describe(path / name) for name in ("step.onnx", "vocabulary.json")}


def test_a_whole_bundle_opens(bundle_path: Path) -> None:
    """A bundle as the exporter writes it opens, and its manifest is kept byte for byte."""
    bundle = opened(bundle_path)
    assert bundle.fingerprint == FINGERPRINT
    assert bundle.document == (bundle_path / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "step.onnx", "vocabulary.json"])
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
    with pytest.raises(StartupError, match=rf"{name} has sha256 \w+\.\.\.; the manifest says"):
        opened(bundle_path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "step.onnx", "vocabulary.json"])
def test_no_flipped_bit_passes(bundle_path: Path, name: str) -> None:
    """Any one bit flipped in a file of the bundle keeps the server from starting."""
    content = (bundle_path / name).read_bytes()
    for bit in range(0, 8 * len(content), max(1, 8 * len(content) // 499)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (bundle_path / name).write_bytes(flipped)
        with pytest.raises(BundleError):
            Bundle.load(bundle_path)


def test_the_manifests_checksum_is_what_sha256sum_reads(bundle_path: Path) -> None:
    """`sha256sum -c manifest.sha256` vouches for the manifest."""
    subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=bundle_path, check=True, capture_output=True)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../bundle/step.onnx", "a/../step.onnx", "a\0b", "a\nb", "C:x", r"\x", r"a\..\..\x", r"\\host\x"],
)
def test_a_bundle_lists_no_files_of_others(bundle_path: Path, name: str) -> None:
    """A file listed outside the bundle on any system, or under no printable name, is refused before it is looked at."""
    edit(bundle_path, files=listed(bundle_path) | {name: describe(bundle_path / "step.onnx")})
    with pytest.raises(BundleError, match=r"every file must lie inside the bundle"):
        opened(bundle_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("x" * 300, "cannot be read: File name too long"),
        ("step.onnx/x", "cannot be read: Not a directory"),
    ],
)
def test_a_listed_file_is_a_regular_one(bundle_path: Path, name: str, message: str) -> None:
    """What is listed but is a folder, a pipe or no possible file is refused without waiting for it."""
    os.mkfifo(bundle_path / "pipe")
    edit(bundle_path, files=listed(bundle_path) | {name: describe(bundle_path / "step.onnx")})
    with pytest.raises(BundleError, match=message):
        opened(bundle_path)


def test_a_files_size_is_held_against_the_manifest(bundle_path: Path) -> None:
    """A file of another size is told by both sizes."""
    with (bundle_path / "step.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(BundleError, match=r"step\.onnx has \d+ bytes; the manifest says \d+"):
        opened(bundle_path)


def test_every_graph_is_a_listed_file(bundle_path: Path) -> None:
    """A graph that the manifest describes but does not vouch for is refused."""
    edit(bundle_path, graphs={"step.onnx": signature(), "sequence.onnx": signature()})
    with pytest.raises(BundleError, match=r'lists no "sequence\.onnx" in files'):
        opened(bundle_path)


def test_every_listed_file_is_verified(bundle_path: Path) -> None:
    """Files that the server does not use are verified too."""
    report = bundle_path / "parity.md"
    report.write_text("fine")
    edit(bundle_path, files=listed(bundle_path) | {"parity.md": describe(report)})
    opened(bundle_path)
    report.write_text("fake")
    with pytest.raises(StartupError, match=r"parity\.md has sha256"):
        opened(bundle_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"manifest\.json is not valid JSON"),
        (b"\xff", r"manifest\.json is not valid JSON"),
        (b"[" * 100_000, r"manifest\.json "),
        (b'{"x": ' + b"[" * 100_000, r"manifest\.json is not valid JSON"),
        (b"[]", r"manifest\.json does not have the expected fields: Expected `object`"),
        (b"{}", "missing required field `schema_version`"),
        (b'{"schema_version": 1}', "missing required field `fingerprint`"),
        (b'{"schema_version": "1"}', "Expected `int`, got `str`"),
        (b'{"schema_version": 3, "all": "new"}', "has schema_version 3; this server reads 1 and 2"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(bundle_path: Path, content: bytes, message: str) -> None:
    """A manifest that is no JSON, lacks fields or is of another version is told apart."""
    write_manifest(bundle_path, content)
    with pytest.raises(StartupError, match=message):
        opened(bundle_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"cell": "tiny", "num_items": 0}}, r"Expected `int` >= 1 - at `\$\.model\.num_items`"),
        ({"model": {"cell": "tiny", "num_items": 8}}, r"vocabulary\.json does not fit the model: 7 labels"),
        ({"graphs": {}}, r"describes no step\.onnx in graphs"),
        ({"files": {}}, r'lists no "step\.onnx" in files'),
        ({"fingerprint": "sha256:" + "f" * 64}, f"carries the fingerprint {FINGERPRINT}; the manifest says"),
        ({"states": STATES[:1]}, r"does not have the inputs of the manifest: .*state_m"),
        ({"states": STATES[::-1]}, "carries the states .* the manifest says"),
        ({"states": [STATES[0] | {"initial": "ones"}, STATES[1]]}, "state h as float32, initially ones"),
        ({"states": [STATES[0] | {"initial": [0.5] * 4}, STATES[1]]}, "initially 4 numbers; .* the 5 finite numbers"),
        ({"states": [STATES[0] | {"initial": [1e39] * 5}, STATES[1]]}, "initially 5 numbers; .* finite numbers"),
        ({"states": [STATES[0] | {"initial": ["x"] * 5}, STATES[1]]}, "Expected `float`, got `str`"),
        (
            {"schema_version": 2, "states": [STATES[0] | {"initial": [0.5] * 5}, STATES[1]]},
            "carries the states .* the manifest says",
        ),
        ({"states": [STATES[0] | {"initial": [0.5] * 5}, STATES[1]]}, "schema_version 1, in which all states start"),
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
    edit(bundle_path, files=listed(bundle_path))
    with pytest.raises(StartupError, match=r"step\.onnx is not an ONNX graph"):
        opened(bundle_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A path that is no directory is named with what was expected there."""
    with pytest.raises(StartupError, match=r"nowhere is not a directory; expected a bundle"):
        opened(tmp_path / "nowhere")


def test_integer_items_need_no_labels(tmp_path: Path) -> None:
    """A bundle without labels serves the ids themselves."""
    assert opened(write_bundle(tmp_path / "bundle", labels=None)).vocabulary.labels[6] == 6
