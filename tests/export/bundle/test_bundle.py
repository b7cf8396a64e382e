"""The bundle as a whole: what is in it, and that it is written whole or not at all."""

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

import arraylstm_export
from arraylstm import LSTM2002, NextItemModel, Vocabulary
from arraylstm_export import ExportError, Options, fingerprint
from arraylstm_export.bundle import write
from arraylstm_export.bundle.folder import put_in_place
from arraylstm_export.formats.registry import FORMATS

from ...devices import Chosen
from ..helpers import QUICK, SCRIPT, SMALL, Form, make_model


def test_the_manifest_lists_every_file_with_its_hash(array_bundle):
    """Every file but the manifest is listed with size and sha256."""
    _, folder, _ = array_bundle
    manifest = json.loads((folder / "manifest.json").read_text())
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == present - {"manifest.json", "manifest.sha256"}
    assert {"step.onnx", "sequence.onnx", "model.torchscript.pt", "vocabulary.json", "parity.md"} <= present
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_manifests_own_hash_is_checked_by_standard_tools(array_bundle):
    """`sha256sum -c manifest.sha256` vouches for the manifest, which vouches for the rest."""
    _, folder, _ = array_bundle
    subprocess.run(["sha256sum", "--check", "--strict", "manifest.sha256"], cwd=folder, check=True, capture_output=True)


def test_no_file_tells_of_the_machine_it_was_made_on(array_bundle):
    """Neither graphs nor TorchScript name a folder or a source file of ours."""
    _, folder, _ = array_bundle
    for path in filter(Path.is_file, folder.rglob("*")):
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            contents = [zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()]
        assert not any(b".py" in content or b"site-packages" in content for content in contents), path.name


def test_the_manifest_describes_model_and_states(array_bundle):
    """Schema version, configuration, states in order with their row shapes, and the tolerance reached."""
    model, folder, parity = array_bundle
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["model"] == model.config
    assert [(state["name"], state["shape"]) for state in manifest["states"]] == [
        ("h_l0", [6]), ("c_l0", [3, 6]), ("h_l1", [6]), ("c_l1", [3, 6]),
    ]  # fmt: skip
    assert manifest["tolerance"] == {"allowed": 1e-5, "reached": parity.reached}
    assert json.loads((folder / "vocabulary.json").read_text()) == {
        "labels": ["a", "b", "ü", 4, "e", "f", "g"],
        "unknown": None,
    }


def test_parity_is_written_as_data_and_as_a_page(array_bundle):
    """parity.json holds every check; parity.md leads with the verdict."""
    _, folder, parity = array_bundle
    data = json.loads((folder / "parity.json").read_text())
    assert data["passed"] is True
    assert len(data["checks"]) == len(parity.checks)
    assert data["largest_difference"] == max(check["difference"] for check in data["checks"])
    assert (folder / "parity.md").read_text().startswith("# Parity: passed at tolerance 1e-05")
    assert {check["form"] for check in data["checks"]} == {
        "pytorch", "pytorch step", "step.onnx", "sequence.onnx", "model.torchscript.pt", "model.torchscript.pt step",
    }  # fmt: skip


def test_the_vectors_replay_in_onnxruntime(exported):
    """Both layouts hold the same numbers, and the graphs give them."""
    _, folder, _ = exported
    for graph in ("step", "sequence"):
        session = onnxruntime.InferenceSession(folder / f"{graph}.onnx", providers=["CPUExecutionProvider"])
        for data_set in sorted((folder / "vectors" / graph).glob("test_data_set_?")):
            arrays = np.load(data_set.with_suffix(".npz"))
            inputs = read_protos(data_set, "input")
            assert [entry.name for entry in session.get_inputs()] == list(inputs)
            outputs = dict(zip([entry.name for entry in session.get_outputs()], session.run(None, inputs), strict=True))
            for name, expected in read_protos(data_set, "output").items():
                np.testing.assert_allclose(outputs[name], expected, atol=1e-5)
                np.testing.assert_array_equal(arrays[name], expected)
            for name, expected in inputs.items():
                np.testing.assert_array_equal(arrays[name], expected)


def read_protos(data_set, kind):
    count = len(list(data_set.glob(f"{kind}_*.pb")))
    protos = [TensorProto.FromString((data_set / f"{kind}_{index}.pb").read_bytes()) for index in range(count)]
    return {proto.name: numpy_helper.to_array(proto) for proto in protos}


def test_the_torchscript_file_runs_alone(exported):
    """torch.jit.load gives forward, step and initial_state, on any device, without this package's classes."""
    model, folder, _ = exported
    scripted = torch.jit.load(folder / "model.torchscript.pt", map_location=Chosen.device)
    items = torch.tensor([[0, 6, 3], [1, 1, 1]])
    expected = model(items)[0].to(Chosen.device)
    items = items.to(Chosen.device)
    torch.testing.assert_close(scripted(items)[0], expected)
    state = scripted.initial_state(2)
    for t in range(3):
        logits, state = scripted.step(items[:, t], state)
    torch.testing.assert_close(logits, expected[:, -1])


def test_a_model_is_exported_from_where_it_lies_and_left_there(tmp_path):
    """A model on the chosen device is exported without being moved first."""
    model = make_model("array").to(Chosen.device)
    assert arraylstm_export.export(model, tmp_path / "bundle", QUICK).passed
    assert model.like().device.type == Chosen.device


def test_the_fingerprint_follows_weights_configuration_and_labels():
    """One weight, one label or another dropout make another model; a copy does not."""
    model, other = make_model("array"), make_model("array")
    assert fingerprint(model) == fingerprint(other)
    with torch.no_grad():
        other.linear.bias[0] += 1e-6
    assert fingerprint(model) != fingerprint(other)
    relabelled = make_model("array")
    relabelled.vocabulary.labels[0] = "A"
    assert fingerprint(model) != fingerprint(relabelled)


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    """Training mode, dtype, gradients and the random state of torch are untouched."""
    model = make_model("stochastic").double().train()
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert arraylstm_export.export(model, tmp_path / "bundle", QUICK).passed
    assert model.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float64 for parameter in model.parameters())
    assert all(torch.equal(weights[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(random_state, torch.get_rng_state())


def spoil(monkeypatch):
    """Let the TorchScript file compute its second state wrongly, as a wrong exporter would."""
    format = FORMATS["torchscript"]

    def load(folder, interface):
        forms = format.load(folder, interface)
        return forms | {"model.torchscript.pt": Form(partial(wrong, forms["model.torchscript.pt"]))}

    def wrong(right, items, lengths, state):
        logits, (first, second, *rest) = right(items, lengths, state)
        return logits, [first, second * 0.999, *rest]

    monkeypatch.setitem(FORMATS, "torchscript", replace(format, load=load))


def test_a_failed_parity_leaves_nothing_behind(tmp_path, monkeypatch):
    """Neither the target nor a scratch folder remains."""
    spoil(monkeypatch)
    report = arraylstm_export.export(make_model("array"), tmp_path / "bundle", SCRIPT)
    assert not report.passed
    assert [check.form for check in report.worst_by_form() if not check.passed] == ["model.torchscript.pt"]
    assert list(tmp_path.iterdir()) == []


def test_an_older_bundle_is_replaced_only_by_one_that_passed(tmp_path, monkeypatch):
    """A failing export leaves the bundle that was there; a passing one takes its place whole."""
    target = tmp_path / "bundle"
    arraylstm_export.export(make_model("array"), target, SCRIPT)
    before = (target / "manifest.json").read_bytes()
    with monkeypatch.context() as spoiled:
        spoil(spoiled)
        arraylstm_export.export(make_model("lstm"), target, SCRIPT)
    assert (target / "manifest.json").read_bytes() == before
    arraylstm_export.export(make_model("lstm"), target, SCRIPT)
    assert json.loads((target / "manifest.json").read_text())["model"]["cell"] == "lstm"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_older_bundle_survives_a_failing_exchange(tmp_path, monkeypatch, error):
    """If the new folder cannot take the name at the last moment, the old one has it again."""
    old, new = tmp_path / "bundle", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "content").write_text(folder.name)
    right = Path.replace

    def failing(self, target):
        if self == new:
            raise error
        return right(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises((KeyboardInterrupt, OSError)):
        put_in_place(new, old)
    assert (old / "content").read_text() == "bundle"


def test_a_crash_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    """An interruption while the forms are being compared removes the scratch folder."""
    monkeypatch.setattr(write, "verify", lambda *arguments, **options: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        arraylstm_export.export(make_model("array"), tmp_path / "bundle", SCRIPT)
    assert list(tmp_path.iterdir()) == []


class TestTarget:
    """Where a bundle may be written."""

    @pytest.mark.parametrize("manifest", [None, {"manifest_version": 3}, {"fingerprint": "x", "files": {}}])
    def test_a_folder_with_other_content_is_refused_untouched(self, tmp_path, manifest):
        """Only a folder that holds a bundle and nothing else, or nothing at all, is replaced."""
        (tmp_path / "thesis.tex").write_text("precious")
        if manifest is not None:
            (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ExportError, match="is a folder that holds something other than a bundle"):
            arraylstm_export.export(make_model("array"), tmp_path, QUICK)
        assert (tmp_path / "thesis.tex").read_text() == "precious"

    def test_a_link_is_followed(self, tmp_path):
        """The folder that a link points at is replaced; the link stays."""
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        assert arraylstm_export.export(make_model("lstm"), tmp_path / "link", SCRIPT).passed
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real" / "manifest.json").is_file()

    def test_a_file_is_refused(self, tmp_path):
        """A file is not a folder."""
        (tmp_path / "bundle").write_text("precious")
        with pytest.raises(ExportError, match="is a file; name a folder"):
            arraylstm_export.export(make_model("array"), tmp_path / "bundle", QUICK)

    def test_a_missing_parent_is_named(self, tmp_path):
        """The folder to create it in must exist."""
        with pytest.raises(ExportError, match="there is no folder .*nowhere"):
            arraylstm_export.export(make_model("array"), tmp_path / "nowhere" / "bundle", QUICK)


def test_diagnostics_are_further_outputs_of_both_graphs(tmp_path):
    """With diagnostics, q_z is in step, sequence and TorchScript, compared like everything else, and in the vectors."""
    model = make_model("markov")
    report = arraylstm_export.export(model, tmp_path / "bundle", Options(diagnostics=True, coverage=SMALL))
    assert report.passed
    names = ["z_l0", "q_z_l0", "z_l1", "q_z_l1"]
    for form in {check.form for check in report.checks}:
        assert set(names) <= {check.tensor for check in report.checks if check.form == form}
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    outputs = manifest["graphs"]["sequence.onnx"]["outputs"]
    assert [output["name"] for output in outputs][-4:] == names
    assert outputs[-1]["shape"] == ["B", "S", 3]
    vectors = np.load(tmp_path / "bundle" / "vectors" / "sequence" / "test_data_set_1.npz")
    _, _, diagnostics = model.unroll_with_diagnostics(
        torch.from_numpy(vectors["items"]),
        [torch.from_numpy(vectors[f"state_{name}"]) for name in model.state_names],
        torch.from_numpy(vectors["lengths"]),
    )
    np.testing.assert_allclose(vectors["q_z_l1"], diagnostics[3].detach(), atol=1e-6)


def test_a_cell_without_diagnostics_has_none_to_export(tmp_path):
    """Asking for them says so."""
    with pytest.raises(ExportError, match="the cell 'array' has no diagnostics to export"):
        arraylstm_export.export(make_model("array"), tmp_path / "bundle", Options(diagnostics=True, coverage=SMALL))


@pytest.mark.parametrize(
    ("cell", "changed", "equal"),
    [
        ("lstm", {"k": 7}, True),
        ("lstm", {"dropout": 0.5}, True),
        ("array", {"dropout": 0.5}, True),
        ("array", {"k": 5}, False),
        ("array", {"tied": True}, False),
    ],
)
def test_the_fingerprint_does_not_follow_what_changes_no_answer(cell, changed, equal):
    """Two models with the same weights and answers are one: k without lanes, and dropout, are for other things."""
    prints = []
    for more in ({}, changed):
        torch.manual_seed(0)
        arguments = {"k": 2, "dropout": 0.0, "embedding_size": 4, **more}
        prints.append(fingerprint(NextItemModel(cell, 5, 6, **arguments)))
    assert (prints[0] == prints[1]) == equal


def test_the_fingerprint_of_a_language_model_follows_its_sizes_alone():
    """How its weights were drawn and its dropout are gone once it is trained."""
    labels = Vocabulary(["a", "b", "c", "d"])
    one = LSTM2002(tknzr=labels, n_lyr=2)
    other = LSTM2002(tknzr=labels, n_lyr=2, p_hid=0.5, p_emb=0.1, init_fb=2.0, label_smoothing=0.1)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
