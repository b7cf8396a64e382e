"""A bundle in Node: the class that an application copies, and what the program says of a spoilt bundle."""

import functools
import json

import pytest
import torch

from tests.export.helpers import make_model

from .programs import assert_bad_input, run

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
def application(install):
    """Run a program beside model.mjs, as an application that copied it; returns the finished process."""
    return functools.partial(run, "node", "--input-type=module", "-e", folder=install("node"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", b"{", "manifest.json is not JSON"),
        ("vocabulary.json", b'{"labels": ["a"], "unknown": null}', "tells apart 1 labels; the model has 7 items"),
        ("step.onnx", b"no graph", "step.onnx is not a graph that onnxruntime can run"),
        ("vectors/step/test_data_set_0.npz", b"no zip", "test_data_set_0.npz is not an .npz of test vectors"),
    ],
)
def test_node_says_what_is_wrong_with_a_file(node, copied_bundle, name, content, said):
    """A file that is not what its name says is told of in the reader's terms."""
    (copied_bundle / name).write_bytes(content)
    assert_bad_input(node(copied_bundle), said)


def test_node_refuses_vectors_that_are_not_listed(node, copied_bundle):
    """A manifest without vectors proves nothing, and is refused in words."""
    manifest = json.loads((copied_bundle / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "vectors" not in name}
    (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
    assert_bad_input(node(copied_bundle), "replay: manifest.json lists no vectors/step/*.npz")


def test_an_application_in_node_predicts_what_pytorch_predicts(application, bundle_of):
    """The copied class gives a session's top items, probabilities and ranks as the model in PyTorch does."""
    labels = ["a", 4, "ü", "ü", "g", 4]
    done = application(SESSION, bundle_of("array"), json.dumps(labels))
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


def test_items_of_equal_score_share_the_best_of_their_ranks_in_node(application):
    """A rank is that of the server and of the exporter: one more than the number of items that were more likely."""
    program = 'import { Model } from "./model.mjs"; const scores = [1, 3, 1, 3, 0];'
    program += "console.log(JSON.stringify(scores.map((_, id) => Model.prototype.observe(scores, id).rank)));"
    assert json.loads(application(program).stdout) == [3, 1, 3, 1, 5]


def test_an_application_in_node_cannot_step_an_item_that_is_not_there(application, bundle_of):
    """Labels and ids the model does not know are refused in words: a graph would take -1 for the last item."""
    for use, said in (
        ("model.id('4')", 'unknown item "4"; the model knows 7, such as "a", "b", "ü", 4, "e"'),
        ("await model.step(model.start(), [-1])", "item id -1 is outside 0..6"),
        ("await model.step(model.start(), [7])", "item id 7 is outside 0..6"),
    ):
        program = SESSION[: SESSION.index("let state")] + use
        done = application(program, bundle_of("array"), "[]")
        assert f"RangeError: {said}" in done.stderr
