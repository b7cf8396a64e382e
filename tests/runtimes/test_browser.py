"""A bundle in a browser: its test vectors on the page, and a visitor's session against onnxruntime in Python."""

import functools
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from playwright.sync_api import expect

from .programs import ONNX_FORMS

LOADED = 60_000  # milliseconds: 14 MB of WebAssembly on a busy machine
MANY = 100_000


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site(install):
    """The page's folder and its address on a plain static server."""
    folder = install("browser")
    handler = functools.partial(QuietHandler, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/browser/"
        server.shutdown()
        thread.join()


@pytest.fixture
def open_page(chromium, site):
    """Return the page with a bundle that was copied beside it; every error that the page did not tell of fails."""
    folder, address = site
    errors = []
    page = chromium.new_page()
    page.on("pageerror", lambda error: errors.append(error))

    def opened(bundle, query=""):
        shutil.copytree(bundle, folder / "bundle")
        page.goto(address + query)
        return page

    yield opened
    page.close()
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    assert not errors


class InPython:
    """The oracle: one session through step.onnx with onnxruntime in Python."""

    def __init__(self, bundle):
        self.session = onnxruntime.InferenceSession(bundle / "step.onnx")
        states = json.loads((bundle / "manifest.json").read_text())["states"]
        self.state = {f"state_{each['name']}": np.zeros((1, *each["shape"]), np.float32) for each in states}
        self.labels = json.loads((bundle / "vocabulary.json").read_text())["labels"]
        self.chances = None

    def observe(self, label):
        """Return the probability and rank that the label had, None for the first."""
        id = self.labels.index(label)
        had = None
        if self.chances is not None:
            had = self.chances[id], 1 + np.count_nonzero(self.chances > self.chances[id])
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, {"items": np.array([id]), **self.state})))
        self.state = {name: outputs[f"next_{name}"] for name in self.state}
        exponentials = np.exp(outputs["logits"][0].astype(np.float64))
        self.chances = exponentials / exponentials.sum()
        return had

    def predictions(self):
        """Return the names and probabilities of the ten most likely items."""
        best = np.argsort(-self.chances, kind="stable")[:10]
        return [[str(self.labels[id]), self.chances[id]] for id in best]


def observe(page, text):
    """Enter an item as a visitor does, and wait until the page shows it."""
    shown = page.locator("#history li").count()
    page.get_by_label("Item").fill(text)
    page.get_by_role("button", name="Observe", exact=True).click(timeout=LOADED)
    expect(page.locator("#history li")).to_have_count(shown + 1)


def read_predictions(page):
    names = page.locator("#predictions .name").all_inner_texts()
    chances = page.locator("#predictions .probability").all_inner_texts()
    return [[name, float(chance.rstrip("%")) / 100] for name, chance in zip(names, chances, strict=True)]


def assert_shows(page, predictions):
    shown = read_predictions(page)
    assert [name for name, _ in shown] == [name for name, _ in predictions]
    assert [chance for _, chance in shown] == pytest.approx([chance for _, chance in predictions], rel=6e-3)


def test_the_browser_gives_the_numbers_of_the_bundle(open_page, bundle):
    """Every vector, in one call and item by item, is met within the tolerance in the page, and its table says so."""
    page = open_page(bundle, "?replay")
    verdict = page.locator("#verdict")
    expect(verdict).to_have_class("passed", timeout=LOADED)
    rows = page.locator("#replay tbody tr")
    assert [row.locator("td").all_inner_texts()[:2] for row in rows.all()] == [[form, "2"] for form in ONNX_FORMS]
    assert float(verdict.inner_text().split(",")[0].removeprefix("largest difference ")) < 1e-5


def test_the_browser_finds_a_wrong_number(open_page, spoiled_bundle):
    """One wrong number in a vector fails the replay, and the table names its tensor."""
    page = open_page(spoiled_bundle("sequence", "next_state_h_l0"))
    page.get_by_role("button", name="Replay the test vectors").click(timeout=LOADED)
    expect(page.locator("#verdict")).to_have_class("failed")
    assert (
        page.locator("#replay tbody tr").nth(1).locator("td").last.inner_text()
        == "next_state_h_l0 of test_data_set_1.npz"
    )


def test_a_visitor_sees_what_onnxruntime_predicts(open_page, bundle_of):
    """Predictions, probability and rank on the page are those of the same session in Python, after every item."""
    page, python = open_page(bundle_of("array")), InPython(bundle_of("array"))
    for label in ("a", 4, "ü", "ü", "g"):
        had = python.observe(label)
        observe(page, str(label))
        assert_shows(page, python.predictions())
        told = page.locator("#observed").inner_text()
        assert "the first item" in told if had is None else f"rank {had[1]} of 7" in told
    assert page.locator("#history li").all_inner_texts() == ["a", "4", "ü", "ü", "g"]
    assert page.get_by_role("img").count() == len(python.state)


def test_a_visitor_goes_on_takes_back_and_begins_anew(open_page, bundle_of):
    """Taking a prediction at its word observes it, undo gives the earlier predictions back, reset the empty page."""
    page, python = open_page(bundle_of("array")), InPython(bundle_of("array"))
    observe(page, "a")
    python.observe("a")
    before = python.predictions()
    name = read_predictions(page)[1][0]
    page.locator("#predictions button").nth(1).click()
    expect(page.locator("#history li")).to_have_text(["a", name])
    python.observe(int(name) if name == "4" else name)
    assert_shows(page, python.predictions())
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#history li")).to_have_text(["a"])
    assert_shows(page, before)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#history li")).to_have_count(0)
    expect(page.locator("#predictions li")).to_have_count(0)


def test_an_item_the_model_does_not_know_is_told_of(open_page, bundle_of):
    """An unknown item moves nothing and is answered with what the model knows, until a known one comes."""
    page = open_page(bundle_of("array"))
    page.get_by_label("Item").fill("<b>zzz</b>")
    page.get_by_role("button", name="Observe", exact=True).click(timeout=LOADED)
    said = 'unknown item "<b>zzz</b>"; the model knows 7, such as "a", "b", "ü", 4, "e"'
    expect(page.get_by_role("alert")).to_have_text(said)
    assert page.locator("#history li").count() == 0
    observe(page, "a")
    expect(page.get_by_role("alert")).to_have_text("")


def test_a_bundle_that_is_not_there_is_told_of(open_page, bundle_of, site):
    """A wrong address of a bundle is one sentence that names it."""
    page = open_page(bundle_of("array"), "?bundle=elsewhere&replay")
    said = f"{site[1]}elsewhere/manifest.json cannot be read: the server answers 404"
    expect(page.get_by_role("alert")).to_have_text(said, timeout=LOADED)
    expect(page.locator("#summary")).to_have_text("There is no model to show.")


def test_a_page_without_its_packages_is_told_of(open_page, bundle_of, site):
    """Where npm install has not run, the page says so instead of loading for ever."""
    modules = site[0] / "node_modules"
    hidden = modules.rename(modules.with_name("elsewhere"))
    try:
        page = open_page(bundle_of("array"))
        expect(page.get_by_role("alert")).to_contain_text("has npm install run beside it?", timeout=LOADED)
    finally:
        hidden.rename(modules)


def test_a_hundred_thousand_items_do_not_crowd_the_page(open_page, bundle_of, tmp_path):
    """However many items there are, the page lists few of them, finds any by a part of its name, and predicts."""
    page = open_page(write_many_items(bundle_of("array"), tmp_path / "many"))
    page.get_by_label("Item").fill("item 99999", timeout=LOADED)
    assert page.locator("#items option").evaluate_all("options => options.map(option => option.value)") == [
        "item 99999"
    ]
    page.get_by_label("Item").fill("item")
    assert page.locator("#items option").count() == 50
    observe(page, "item 70000")
    observe(page, "item 29998")
    assert page.locator("#predictions .name").first.inner_text() == "item 99998"
    assert page.locator("#predictions li").count() == 10


def write_many_items(template, folder):
    """A bundle whose state is the sum of the ids seen, and whose likeliest item is the one of that id."""
    shutil.copytree(template, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["num_items"] = MANY
    manifest["states"] = [{"name": "sum", "shape": [1], "dtype": "float32", "initial": "zeros"}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    labels = {"labels": [f"item {id}" for id in range(MANY)], "unknown": None}
    (folder / "vocabulary.json").write_text(json.dumps(labels))
    graph = onnx.parser.parse_graph("""sum (int64[B] items, float[B, 1] state_sum)
        => (float[B, V] logits, float[B, 1] next_state_sum) {
            added = Cast <to = 1> (items)
            column = Unsqueeze (added, last)
            next_state_sum = Add (state_sum, column)
            off = Sub (next_state_sum, ids)
            distance = Abs (off)
            logits = Neg (distance)
        }""")
    graph.initializer.append(numpy_helper.from_array(np.arange(MANY, dtype=np.float32), "ids"))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "last"))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "step.onnx")
    return folder
