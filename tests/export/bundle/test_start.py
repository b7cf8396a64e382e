"""Models whose sessions start from numbers of their own: what a bundle says of them, and to whom."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format

import arraylstm_export
from arraylstm import LSTM2002, NextItemModel, Vocabulary, save
from arraylstm_export import ExportError, Options, verify_bundle
from arraylstm_export.bundle.manifest import read_manifest
from arraylstm_export.cli import app
from arraylstm_export.formats.triton import write_repository
from arraylstm_export.interface import Interface, State

from ..helpers import QUICK, SMALL, make_step


def started(cell="array"):
    """Return a model of two layers that starts from random numbers."""
    torch.manual_seed(4)
    model = NextItemModel(cell, 7, 6, k=3, num_layers=2, embedding_size=5, learned_start=True).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "start" in name:
                weight.normal_()
    return model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A model and a bundle of it; not to be changed."""
    model, folder = started(), tmp_path_factory.mktemp("started") / "bundle"
    report = arraylstm_export.export(model, folder, Options(format=("onnx", "torchscript", "triton"), coverage=SMALL))
    assert report.passed
    return model, folder


def test_the_manifest_and_every_graph_tell_the_start(bundle):
    """The numbers are the model's own in float32, in a version that older programs refuse; a lone graph tells it."""
    model, folder = bundle
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    for state, expected in zip(manifest["states"], model.initial_state(1), strict=True):
        told = np.array(state["initial"], np.float32).reshape(1, *state["shape"])
        np.testing.assert_array_equal(told, expected.detach())
    for name in ("step.onnx", "sequence.onnx"):
        props = {prop.key: prop.value for prop in onnx.load(folder / name).metadata_props}
        assert json.loads(props["arraylstm.states"]) == manifest["states"]
        assert props["arraylstm.schema_version"] == "2"


def test_a_bundle_that_starts_from_zeros_stays_one_that_older_programs_read(array_bundle):
    """Its version and its words are the ones before."""
    manifest = json.loads((array_bundle[1] / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert {state["initial"] for state in manifest["states"]} == {"zeros"}


def test_the_forms_start_there(bundle):
    """TorchScript says so itself; the graphs from the manifest's numbers give the model's answers."""
    model, folder = bundle
    interface = read_manifest(folder).interface
    scripted = torch.jit.load(folder / "model.torchscript.pt")
    torch.testing.assert_close(scripted.initial_state(3), model.initial_state(3))
    items = np.array([[1, 4, 2]])
    graph = arraylstm_export.runtime.session(folder / "sequence.onnx")
    states = {state.input.name: start for state, start in zip(interface.states, interface.start(1), strict=True)}
    logits, *_ = graph.run(None, {"items": items, "lengths": np.array([3]), **states})
    np.testing.assert_allclose(logits, model(torch.from_numpy(items))[0].detach(), atol=1e-6)


def test_the_first_vectors_start_there(bundle):
    """Whoever replays them meets the start."""
    model, folder = bundle
    for graph in ("step", "sequence"):
        with np.load(folder / "vectors" / graph / "test_data_set_0.npz") as vector:
            for name, start in zip(model.state_names, model.initial_state(1), strict=True):
                given = vector[f"state_{name}"]
                np.testing.assert_array_equal(given, start.detach().expand(given.shape))


def test_parity_begins_there(bundle):
    """Among the scenarios is what a session does, which begins at the start and nowhere else."""
    from arraylstm_export.parity.scenarios import all_scenarios

    model, _ = bundle
    interface = Interface.of(model)
    drawn = list(all_scenarios(7, interface.states, np.random.default_rng(0), SMALL))
    begun = [one for one in drawn if one.name in ("initial state", "horizon")]
    assert len(begun) > 1
    for scenario in begun:
        for given, start in zip(scenario.state, interface.start(len(scenario.items)), strict=True):
            np.testing.assert_array_equal(given, start)


def test_a_bundle_is_verified_again_and_the_start_is_part_of_the_fingerprint(bundle):
    """Another start is another model."""
    model, folder = bundle
    assert verify_bundle(folder, model, coverage=SMALL).passed
    assert verify_bundle(folder).passed
    other = started()
    with torch.no_grad():
        other.cells["1"].learned_start[0].add_(1)
    with pytest.raises(ExportError, match="was made from another model"):
        verify_bundle(folder, other, coverage=SMALL)


def test_triton_starts_sequences_there(bundle):
    """Its configuration names a file for each state, which lies where Triton looks for it."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="Triton's published schema: tritonclient")
    model, folder = bundle
    repository = folder / "triton" / "arraylstm"
    config = text_format.Parse((repository / "config.pbtxt").read_text(), schema.ModelConfig())
    for told, start in zip(config.sequence_batching.state, model.initial_state(1), strict=True):
        (initial,) = told.initial_state
        assert not initial.zero_data
        numbers = np.fromfile(repository / "initial_state" / initial.data_file, "<f4").reshape(list(initial.dims))
        np.testing.assert_array_equal(numbers, start[0].detach())


@pytest.mark.parametrize("path", ["bundle", "step.onnx"])
def test_inspect_tells_the_start(bundle, path, tmp_path, capsys):
    """Of a bundle, and of a graph by itself."""
    folder = bundle[1]
    shutil.copy(folder / "step.onnx", tmp_path)
    assert app(["inspect", str(folder if path == "bundle" else tmp_path / path)]) == 0
    shown = capsys.readouterr().out
    state = read_manifest(folder).interface.states[3]
    assert f"{state.name} of {min(state.initial):.3g} to {max(state.initial):.3g}" in shown


def test_a_language_model_that_starts_from_its_buffers_is_exported(tmp_path):
    """h_0 and c_0 of its layers are its start; a state of zeros among them stays a word."""
    model = LSTM2002(tknzr=Vocabulary([*"abcdef"]), d_blk=2)
    model.stack_rnn["0"].h_0.fill_(0.5)
    assert arraylstm_export.export(model, tmp_path / "bundle", Options(format=("torchscript",), coverage=SMALL)).passed
    assert [state.initial for state in read_manifest(tmp_path / "bundle").interface.states] == ["zeros", (0.5, 0.5)]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e39])
def test_a_start_that_is_not_finite_is_refused(number, tmp_path):
    """In float32, in which sessions are kept."""
    model = started().double()
    with torch.no_grad():
        model.cells["1"].learned_start[1][0, 2] = number
    with pytest.raises(ExportError, match="state c_l1 starts from a number that is not finite in float32"):
        arraylstm_export.export(model, tmp_path / "bundle", QUICK)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ("ones", "state h_l0 starts from 'ones'; 'zeros' or numbers are known"),
        ([1.0] * 5, r"state h_l0 starts from 5 numbers; \[6\] has 6"),
        ([1e39] * 6, "state h_l0 starts from a number that is not finite"),
        ([[1.0] * 6], "is not from arraylstm-export"),
        (None, "state h_l0 starts from 'None'"),
    ],
)
def test_a_manifest_with_another_start_is_refused(bundle, initial, message, tmp_path):
    """By the state's name and what is allowed."""
    folder = shutil.copytree(bundle[1], tmp_path / "copy")
    content = json.loads((folder / "manifest.json").read_text())
    content["states"][0]["initial"] = initial
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=message):
        read_manifest(folder)


def test_what_a_state_says_is_what_it_starts_from():
    """Numbers go to rows in C order, and every row is an array of its own."""
    state = State("c", (2, 3), initial=tuple(map(float, range(6))))
    start = state.start(2)
    assert start.dtype == np.float32
    assert start.tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2
    start[0] = 9
    assert state.start(1).max() == 5
    assert asdict(State("h", (2,)))["initial"] == "zeros"
    assert not State("h", (2,)).start(3).any()


def test_precisions_and_held_out_sessions_start_there(tmp_path):
    """The cost of a precision is measured from the start; a checkpoint goes all the way through the command line."""
    save(started("lstm"), tmp_path / "model.pt")
    (tmp_path / "log.txt").write_text("".join(f"{n % 7} {n % 3} {n % 5}\n" for n in range(9)))
    given = ["--precision", "fp16", "--held-out", str(tmp_path / "log.txt"), "--horizon", "20"]
    assert app([str(tmp_path / "model.pt"), *given]) == 0
    assert read_manifest(tmp_path / "model").interface.start(1)[0].any()


def test_a_repository_of_zeros_has_no_files_of_starts(tmp_path):
    """It is what it was."""
    model = NextItemModel("lstm", 5, 4).eval()
    write_repository(make_step(model), Interface.of(model), tmp_path)
    assert not (tmp_path / "arraylstm" / "initial_state").exists()
