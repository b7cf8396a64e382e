"""A bundle in Node: its test vectors, and the class that an application copies."""

import json
import shutil
import subprocess

import pytest
import torch

from tests.export.conftest import make_model

GRAPHS = ["step.onnx", "sequence.onnx", "step.onnx, item by item"]

SESSION = """
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { Model } from "./model.mjs";

const [folder, labels] = process.argv.slice(1);
const model = await Model.open(ort, (name) => readFile(`${folder}/${name}`));
let state = model.start();
let scores;
const answers = [];
for (const label of JSON.parse(labels)) {
  const id = model.id(label);
  const observed = scores ? model.observe(scores, id) : null;
  ({ state, scores: [scores] } = await model.step(state, [id]));
  answers.push({ observed, top: model.top(scores, 3) });
}
console.log(JSON.stringify(answers));
"""


@pytest.fixture
def node(install):
    """Run node in the runtime's folder; returns the finished process."""
    folder = install("node")

    def run(*arguments):
        command = ["node", *map(str, arguments)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def copied_bundle(bundle_of, tmp_path):
    """A bundle that may be changed."""
    return shutil.copytree(bundle_of("array"), tmp_path / "bundle")


def test_node_gives_the_numbers_of_the_bundle(node, bundle):
    """Every vector, in one call and item by item, is met within the tolerance in Node, and the report says so."""
    done = node("replay.mjs", bundle)
    *rows, last = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert [row[:24].rstrip() for row in rows] == GRAPHS
    assert all("2 vectors  largest difference" in row for row in rows)
    assert float(last.removeprefix("largest difference ")) < 1e-5


@pytest.mark.parametrize(
    ("vector", "tensor", "graphs"),
    [
        ("step/test_data_set_1.npz", "logits", [0]),
        ("step/test_data_set_0.npz", "next_state_c_l1", [0]),
        ("sequence/test_data_set_1.npz", "next_state_h_l0", [1, 2]),
        ("sequence/test_data_set_0.npz", "logits", [1, 2]),
    ],
)
def test_node_finds_a_wrong_number(node, spoiled_bundle, vector, tensor, graphs):
    """One wrong number in a vector is an exit status of 1, and the report names the tensor wherever it was met."""
    done = node("replay.mjs", spoiled_bundle(vector, tensor))
    *rows, last = done.stdout.splitlines()
    found = [float(row.split(" in ")[0].split()[-1]) > 1e-4 and row.endswith(f" in {tensor}") for row in rows]
    assert (done.returncode, [index for index, wrong in enumerate(found) if wrong]) == (1, graphs)
    assert float(last.removeprefix("largest difference ")) > 1e-4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", None, "cannot be read: no such file or directory"),
        ("manifest.json", b"{", "manifest.json is not JSON"),
        ("manifest.json", b'{"schema_version": 7}', "has schema_version 7; this program reads 1"),
        ("vocabulary.json", b'{"labels": ["a"], "unknown": null}', "tells apart 1 labels; the model has 7 items"),
        ("step.onnx", b"no graph", "step.onnx is not a graph that onnxruntime can run"),
        ("vectors/step/test_data_set_0.npz", b"no zip", "test_data_set_0.npz is not an .npz of test vectors"),
    ],
)
def test_node_refuses_what_is_no_bundle(node, copied_bundle, name, content, said):
    """A bundle that is missing or spoilt is an exit status of 2 and one sentence that says what is wrong."""
    if content is None:
        (copied_bundle / name).unlink()
    else:
        (copied_bundle / name).write_bytes(content)
    done = node("replay.mjs", copied_bundle)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


def test_node_refuses_vectors_that_are_not_there(node, copied_bundle):
    """A bundle without vectors proves nothing, and is refused in words."""
    manifest = json.loads((copied_bundle / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "vectors" not in name}
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
    done = node("replay.mjs", copied_bundle)
    assert (done.returncode, done.stderr) == (2, "replay: manifest.json lists no vectors/step/*.npz\n")


def test_an_application_in_node_predicts_what_pytorch_predicts(node, bundle_of):
    """The copied class gives a session's top items, probabilities and ranks as the model in PyTorch does."""
    labels = ["a", 4, "ü", "ü", "g", 4]
    done = node("--input-type=module", "-e", SESSION, bundle_of("array"), json.dumps(labels))
    answers = json.loads(done.stdout)
    model = make_model("array").double()
    ids = model.vocabulary.encode(labels)
    with torch.no_grad():
        chances = model(torch.tensor([ids]))[0][0].softmax(1)
    for chance, answer in zip(chances, answers, strict=True):
        best = chance.topk(3)
        assert [each["id"] for each in answer["top"]] == best.indices.tolist()
        assert [each["label"] for each in answer["top"]] == model.vocabulary.decode(best.indices.tolist())
        assert [each["probability"] for each in answer["top"]] == pytest.approx(best.values.tolist(), rel=1e-5)
    assert answers[0]["observed"] is None
    for chance, id, answer in zip(chances, ids[1:], answers[1:]):
        assert answer["observed"]["probability"] == pytest.approx(chance[id].item(), rel=1e-5)
        assert answer["observed"]["rank"] == 1 + (chance > chance[id]).sum().item()


def test_an_application_in_node_cannot_step_an_item_that_is_not_there(node, bundle_of):
    """Labels and ids the model does not know are refused in words: a graph would take -1 for the last item."""
    for use, said in (
        ("model.id('4')", 'unknown item "4"; the model knows 7, such as "a", "b", "ü", 4, "e"'),
        ("await model.step(model.start(), [-1])", "item id -1 is outside 0..6"),
        ("await model.step(model.start(), [7])", "item id 7 is outside 0..6"),
    ):
        program = SESSION[: SESSION.index("let state")] + use
        done = node("--input-type=module", "-e", program, bundle_of("array"), "[]")
        assert f"RangeError: {said}" in done.stderr
