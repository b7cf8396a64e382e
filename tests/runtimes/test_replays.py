"""What every replay program promises, whatever its language: the numbers of a bundle, or one sentence."""

import json
import shutil

import numpy as np
import pytest

from .programs import assert_bad_input, read_report

NOTES = {
    ("openvino", "lstm"): "sequence.onnx: not supported: OpenVINO's CPU device ignores the lengths of an LSTM operator "
    "whose shapes are dynamic; take step.onnx, or fix B and S by ov::Model::reshape",
    ("reference", "lstm"): "sequence.onnx: only full rows were compared, for onnx.reference ignores an LSTM operator's "
    "sequence_lens",
}
"""What a program says it cannot do for a cell."""


def change_manifest(bundle, change):
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def test_a_program_gives_the_numbers_of_the_bundle(replay, cell, bundle):
    """Every vector is met, at once and item by item, diagnostics included; what a runtime cannot run is said."""
    done = replay(bundle)
    assert (done.returncode, done.stderr) == (0, "")
    found, notes = read_report(done)
    assert notes == [note for key, note in NOTES.items() if key == (replay.name, cell)]
    refused = [note.partition(": not supported")[0] for note in notes]
    assert list(found) == [form for form in replay.forms if form not in refused]
    assert max(found.values())[0] < 1e-5


@pytest.mark.parametrize(
    ("graph", "tensor", "wrong"),
    [
        ("step", "logits", [True, False, False]),
        ("step", "next_state_c_l1", [True, False, False]),
        ("sequence", "logits", [False, True, True]),
        ("sequence", "next_state_h_l0", [False, True, True]),
    ],
)
def test_a_program_finds_a_wrong_number(replay, spoiled_bundle, graph, tensor, wrong):
    """One wrong number anywhere is an exit status of 1, and the report says where, at once and item by item."""
    done = replay(spoiled_bundle(graph, tensor))
    assert (done.returncode, done.stderr) == (1, "")
    found, _ = read_report(done)
    assert [each == (1e-3, f"{tensor} of test_data_set_1.npz") for each in found.values()] == wrong


def test_a_bundle_that_was_allowed_more_is_held_to_that(replay, spoiled_bundle):
    """The tolerance is the manifest's, not the program's."""
    bundle = spoiled_bundle("step", "logits")
    change_manifest(bundle, lambda manifest: manifest["tolerance"].update(allowed=2e-3))
    assert replay(bundle).returncode == 0


def test_no_bundle(replay, tmp_path):
    """A folder without a bundle is named in a sentence."""
    assert_bad_input(replay(tmp_path), str(tmp_path), "manifest.json")


def test_no_argument(replay):
    """Without a bundle the program says that it wants one."""
    done = replay()
    assert (done.returncode, done.stdout) == (2, "")
    assert "bundle" in done.stderr.lower()


@pytest.mark.parametrize("halves", [0, 1])
@pytest.mark.parametrize("kind", ["manifest", "model", "vector"])
def test_a_file_that_cannot_be_read(replay, copied_bundle, kind, halves):
    """A file that is empty or cut off half-way is named in a sentence."""
    files = {"manifest": "manifest.json", "model": replay.model_file, "vector": "vectors/step/test_data_set_0.npz"}
    path = copied_bundle / files[kind]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 * halves])
    assert_bad_input(replay(copied_bundle), files[kind])


def test_no_vectors(replay, copied_bundle):
    """A bundle without vectors proves nothing, and is refused in words."""
    shutil.rmtree(copied_bundle / "vectors" / "sequence")
    assert_bad_input(replay(copied_bundle), "vectors/sequence")


def test_a_bundle_of_another_time(replay, copied_bundle):
    """A manifest whose fields may mean something else is refused."""
    change_manifest(copied_bundle, lambda manifest: manifest.update(schema_version=7))
    assert_bad_input(replay(copied_bundle), "manifest.json", "schema_version 7", "reads 1 and 2")


@pytest.mark.parametrize(("field", "value", "known"), [("dtype", "float16", "float32"), ("initial", "ones", "zeros")])
def test_a_state_of_another_kind(replay, copied_bundle, field, value, known):
    """A state that the program would not start or keep rightly is refused."""
    change_manifest(copied_bundle, lambda manifest: manifest["states"][1].update({field: value}))
    assert_bad_input(replay(copied_bundle), "c_l0", value, known)


def test_a_start_of_another_size(replay, copied_bundle):
    """A row of the state needs as many numbers as it has."""
    change_manifest(copied_bundle, lambda manifest: manifest["states"][1].update(initial=[0.5] * 17))
    assert_bad_input(replay(copied_bundle), "c_l0", "17", "18")


def test_a_program_that_starts_elsewhere_finds_a_difference(replay, bundle_of, tmp_path):
    """It takes the start from the bundle, so that another start is seen; TorchScript has its own."""
    copied = shutil.copytree(bundle_of("started"), tmp_path / "started")
    change_manifest(copied, lambda manifest: manifest["states"][1].update(initial="zeros"))
    assert replay(copied).returncode == (0 if replay.name == "libtorch" else 1)


@pytest.fixture(scope="session", params=["libtorch", "openvino"])
def cpp_replay(request):
    """The replay programs in C++, where what other languages raise as an error has to be checked for."""
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("lengths", np.array([4, 0, 8]), "lengths must lie between 0 and 7"),
        ("lengths", np.array([4]), "lengths is (1), but has to be (3)"),
        ("state_h_l0", np.ones((1, 6), np.float32), "state_h_l0 is (1, 6), but has to be (3, 6)"),
        ("items", np.array([1, 2, 3]), "items has 1 axes, but has to have 2"),
        ("logits", np.ones((3, 7, 1), np.float64), "'descr': '<f8'"),
    ],
)
def test_a_vector_that_does_not_fit(cpp_replay, copied_bundle, name, array, words):
    """A vector whose arrays contradict each other is refused rather than read past its end."""
    path = copied_bundle / "vectors" / "sequence" / "test_data_set_1.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {name: array})
    assert_bad_input(cpp_replay(copied_bundle), str(path), words)
