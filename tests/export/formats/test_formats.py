"""The files have the format, precision and operator set that the options ask for."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import arraylstm_export
from arraylstm import NextItemModel
from arraylstm_export import ExportError, Options
from arraylstm_export.bundle.manifest import files_in, read_manifest
from arraylstm_export.formats.eager import Sequences
from arraylstm_export.formats.onnx import StepGraph
from arraylstm_export.interface import Interface

from ..helpers import SMALL

FILES = {
    "onnx": {"step.onnx", "sequence.onnx"},
    "torchscript": {"model.torchscript.pt"},
    "pt2": {"model.pt2"},
    "triton": {"triton/arraylstm/config.pbtxt", "triton/arraylstm/1/model.onnx"},
}
ALWAYS = {"manifest.json", "manifest.sha256", "parity.json", "parity.md", "vocabulary.json"}
SMALLEST_IR = {15: 8, 18: 8, 25: 13}
CASES = [
    ("array", tuple(FILES), "fp32", 15),
    ("array", ("onnx",), "fp16", 18),
    ("array", ("onnx", "triton"), "int8", 25),
    ("array", ("triton",), "int8", 15),
    ("lstm", ("onnx",), "fp32", 15),
    ("lstm", ("onnx", "triton"), "fp32", 18),
    ("lstm", ("onnx",), "fp32", 25),
    ("lstm", ("onnx",), "int8", 18),
]
HELD_OUT = [np.random.default_rng(row).integers(0, 40, 20 + row) for row in range(8)]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} {'+'.join(case[1])} {case[2]} {case[3]}")
def written(request, tmp_path_factory):
    """A case, its model, its bundle's folder and its report."""
    cell, formats, precision, opset = request.param
    torch.manual_seed(7)
    model = NextItemModel(cell, 40, 32, k=2, embedding_size=32).eval().requires_grad_(False)
    model.linear.weight.mul_(20)  # confident enough for a precision to cost something
    folder = tmp_path_factory.mktemp("written") / "bundle"
    options = Options(format=formats, precision=precision, opset=opset, tolerance=1.0, coverage=SMALL)
    report = arraylstm_export.export(model, folder, options, HELD_OUT)
    assert report.passed
    return request.param, model, folder, report


def graphs(folder):
    """Every ONNX file of a bundle by its name."""
    return {name: onnx.load(folder / name) for name in files_in(folder) if name.endswith(".onnx")}


def kinds(nodes):
    return {node.op_type for node in nodes}


def body(graph):
    """The nodes in the loop of a graph that has one."""
    (scan,) = (node for node in graph.graph.node if node.op_type == "Scan")
    return next(attribute.g.node for attribute in scan.attribute if attribute.name == "body")


def test_a_bundle_has_the_files_of_its_formats_and_its_manifest_says_so(written):
    """No file is missing or over; formats, precision and versions are what was asked for."""
    (_, formats, precision, opset), _, folder, _ = written
    files = {name for name in files_in(folder) if not name.startswith("vectors/")}
    assert files == ALWAYS.union(*(FILES[name] for name in formats))
    manifest = read_manifest(folder).content
    found = [manifest[name] for name in ("formats", "precision", "opset", "ir_version")]
    assert found == [list(formats), precision, opset, SMALLEST_IR[opset]]
    assert set(manifest["graphs"]) == (FILES["onnx"] if "onnx" in formats else set())
    assert manifest["tolerance"]["allowed"] == 1.0


def test_every_graph_is_of_the_versions_asked_for(written):
    """Operator set and file version, and the metadata's precision, are those of the options in each ONNX file."""
    (_, _, precision, opset), _, folder, _ = written
    for graph in graphs(folder).values():
        onnx.checker.check_model(graph, full_check=True)
        assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
        assert graph.ir_version == SMALLEST_IR[opset]
        assert {entry.key: entry.value for entry in graph.metadata_props}["arraylstm.precision"] == precision


def test_every_graph_computes_in_the_precision_asked_for(written):
    """Integer products are in int8's graphs, in the loop too, and in no other; large float weights are fp32's only."""
    (_, _, precision, _), _, folder, _ = written
    for graph in graphs(folder).values():
        loop = body(graph) if "Scan" in kinds(graph.graph.node) else graph.graph.node
        for nodes in (graph.graph.node, loop):
            assert ("MatMulInteger" in kinds(nodes)) == (precision == "int8")
        weights = {tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= 32 * 32}
        wanted = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "int8": TensorProto.INT8}[precision]
        assert weights == {wanted}


def test_the_lstm_operator_is_where_it_can_be(written):
    """Sequences of plain LSTMs run on it in fp32 from opset 18 on; all others are a Scan, and no step has either."""
    (cell, _, precision, opset), _, folder, _ = written
    operator = "LSTM" if cell == "lstm" and precision == "fp32" and opset >= 18 else "Scan"
    for name, graph in graphs(folder).items():
        wanted = {operator} if name == "sequence.onnx" else set()
        assert kinds(graph.graph.node) & {"LSTM", "Scan", "Loop", "If"} == wanted


def test_the_accuracy_told_is_the_models_before_and_the_graphs_after(written):
    """parity.json and parity.md have the perplexity of each as counted here, in that order."""
    _, model, folder, _ = written
    interface = Interface.of(model)
    step = next(name for name in ("step.onnx", "triton/arraylstm/1/model.onnx") if (folder / name).exists())
    forms = Sequences(model, interface), StepGraph(folder / step, interface)
    before, after = (perplexity(form, interface) for form in forms)
    told = json.loads((folder / "parity.json").read_text())["accuracy"]
    assert told["steps"] == sum(len(items) - 1 for items in HELD_OUT)
    assert told["before"]["perplexity"] == pytest.approx(before, rel=1e-7)
    assert told["after"]["perplexity"] == pytest.approx(after, rel=1e-7)
    lines = (folder / "parity.md").read_text().splitlines()
    assert "|  | fp32 | as written |" in lines
    assert f"| perplexity | {before:.4g} | {after:.4g} |" in lines


def test_a_lower_precision_costs_something(written):
    """int8 and fp16 change perplexity and logits; fp32 changes neither beyond rounding."""
    (_, _, precision, _), _, _, report = written
    cost = abs(report.accuracy.after.perplexity / report.accuracy.before.perplexity - 1)
    assert (cost > 1e-5) == (report.accuracy.rms_error > 1e-4) == (precision != "fp32")


def test_a_row_of_a_written_graph_is_the_same_bits_in_every_batch(written):
    """The report compares every ONNX form but fp16's, for accelerators, with itself in other batches, bit for bit."""
    (_, _, precision, _), _, folder, report = written
    exact = [check for check in report.checks if check.equal_bits]
    assert {check.form for check in exact} == (set() if precision == "fp16" else set(graphs(folder)))
    assert all(check.passed for check in exact)


def test_held_out_sequences_are_looked_at_before_any_work(tmp_path):
    """An item that the model does not have is refused before the first stage, in whatever precision."""
    stages = []
    for precision in ("fp32", "int8"):
        with pytest.raises(ExportError, match="held-out sequence 1: items are 0 to 39, got 40"):
            arraylstm_export.export(
                NextItemModel("array", 40, 32, k=2),
                tmp_path / "bundle",
                Options(precision=precision),
                [np.array([0, 39]), np.array([40, 1])],
                lambda *stage: stages.append(stage),
            )
    assert not stages


def test_a_precision_that_moves_lanes_fails_with_what_it_costs_and_what_would_allow_it(tmp_path):
    """A cell that chooses lanes differs from float64 in int8: the message names the cost and a flag, which works."""
    torch.manual_seed(5)
    model = NextItemModel("max-lane", 50, 32, k=4, embedding_size=40).eval()
    options = Options(precision="int8", coverage=SMALL)
    report = arraylstm_export.export(model, tmp_path / "bundle", options, HELD_OUT)
    assert not report.passed
    assert not (tmp_path / "bundle").exists()
    kept = f"{report.accuracy.same_top_1:.2%} of held-out steps keep their first item"
    for part in (f"largest difference {report.reached:.1e}", kept, "--tolerance can allow it"):
        assert part in report.failure
    allowed = replace(options, tolerance=1.01 * report.reached)
    assert arraylstm_export.export(model, tmp_path / "bundle", allowed, HELD_OUT).passed


def perplexity(form, interface):
    """The perplexity of what follows, each sequence run by itself."""
    nats = []
    for items in HELD_OUT:
        state = [np.zeros((1, *state.shape), np.float32) for state in interface.states]
        ((logits, *_), _) = form(items[None, :-1], np.array([len(items) - 1]), state)
        scores = torch.from_numpy(logits[0]).double()
        nats.append(torch.nn.functional.cross_entropy(scores, torch.from_numpy(items[1:]), reduction="none"))
    return float(torch.cat(nats).mean().exp())
