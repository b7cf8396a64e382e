"""Names in graphs are meaningful, without a list of names for any cell."""

import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from arraylstm import NextItemModel
from arraylstm_export.graph.edit import all_nodes
from arraylstm_export.graph.names import constant_name, give_names

from ..helpers import make_step


@pytest.mark.parametrize("name", ["step.onnx", "sequence.onnx"])
def test_weights_are_named_as_in_the_state_dict_or_after_what_they_hold(exported, name):
    """A weight is a parameter, something made of parameters, or a table; whatever else there is is a constant."""
    model, folder, _ = exported
    graph = onnx.load(folder / name).graph
    known = tuple(model.state_dict())
    for tensor in graph.initializer:
        if tensor.name.startswith("layers."):
            assert model.config["cell"] == "lstm"  # the operator's W, R and B
        elif not tensor.name.startswith(known) and not tensor.name.endswith("_table"):
            assert tensor.name == constant_name(numpy_helper.to_array(tensor))
            assert np.prod(tensor.dims) <= 16


def test_every_value_is_named_after_operator_and_module_or_input(exported):
    """The only number in a name is the rank among its kind, and a node is named like the value it computes."""
    model, folder, _ = exported
    graph = onnx.load(folder / "step.onnx").graph
    outputs = {value.name for value in graph.output}
    inputs = [value.name for value in graph.input]
    modules = "|".join(["embedding", "linear", *(rf"cells\.{layer}" for layer in model.cells), *inputs])
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name in outputs:
                continue
            rank = rf"(_\d+)?(/{index})?" if node.op_type != "Gather" else r"(_\d+)?(/\d)?"
            kind = node.op_type if not node.name.endswith("_look_up") else r"\w+"
            assert re.fullmatch(rf"({modules})/{kind}{rank}", name)
            assert name.startswith(node.name.removesuffix("_look_up"))


def test_what_folding_made_of_parameters_is_named_after_them():
    """A transposed weight, the sum of two biases, and a table that is named after the value looked up in it."""
    torch.manual_seed(0)
    graph = make_step(NextItemModel("array", 9, 6, k=3, num_layers=2, embedding_size=5)).graph
    assert [tensor.name for tensor in graph.initializer if not tensor.name.startswith("constant_")] == [
        "cells.1.i2h.weight",
        "linear.weight",
        "linear.bias",
        "cells.0.h2h.weight_transposed",
        "cells.1.i2h.bias_add_h2h.bias",
        "cells.1.h2h.weight_transposed",
        "cells.0/Gemm_table",
    ]


def test_a_parameter_called_as_an_output_is_told_from_it():
    """Nothing is named twice."""

    class Scaled(NextItemModel):
        def __init__(self):
            super().__init__("array", 5, 4, k=2)
            self.logits = torch.nn.Parameter(torch.full((5,), 2.0))

        def score(self, outputs, items):
            return super().score(outputs, items) * self.logits

    graph = make_step(Scaled()).graph
    assert "logits_1" in {tensor.name for tensor in graph.initializer}
    assert "logits" in {value.name for value in graph.output}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.array(0), "constant_int64_0"),
        (np.array([0]), "constant_int64_0_list"),
        (np.array([-1, 128]), "constant_int64_-1_128_list"),
        (np.array([[1, 2]]), "constant_int64_1x2_1_2_list"),
        (np.array(-0.0, np.float32), "constant_float32_-0.0"),
        (np.arange(9), "constant_int64_9_419ce84f0e9d8926"),
    ],
)
def test_a_constants_name_tells_its_content(value, name):
    """Type, shape and numbers; of many numbers a checksum."""
    assert constant_name(value) == name


def test_names_are_followed_into_branches_and_equal_constants_become_one():
    """A branch that takes a value from outside takes it under its new name."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B"]) for name in "xy")
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(kind, ["t", "val_2"], [f"{name}_out"])], name, [], [out])
        for name, kind, out in (
            ("then", "Add", helper.make_tensor_value_info("then_out", TensorProto.FLOAT, ["B"])),
            ("else", "Mul", helper.make_tensor_value_info("else_out", TensorProto.FLOAT, ["B"])),
        )
    }
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["t"]),
        helper.make_node("Sub", ["t", "val_1"], ["val_3"]),
        helper.make_node("ReduceMax", ["val_3"], ["val_4"], keepdims=0),
        helper.make_node("Cast", ["val_4"], ["val_5"], to=TensorProto.BOOL),
        helper.make_node("If", ["val_5"], ["y"], **branches),
    ]
    one = np.array(1, np.float32)
    weights = [numpy_helper.from_array(value, name) for value, name in ((one * 3, "w"), (one, "val_1"), (one, "val_2"))]
    graph = helper.make_graph(nodes, "branching", [x], [y], weights)
    give_names(graph, SimpleNamespace(names={"w": "cell.w"}, owners={"w": "cell"}))
    onnx.checker.check_model(helper.make_model(graph, ir_version=8), full_check=True)
    assert [tensor.name for tensor in graph.initializer] == ["cell.w", "constant_float32_1.0"]
    assert [node.output[0] for node in graph.node] == ["cell/Mul", "cell/Sub", "cell/ReduceMax", "cell/Cast", "y"]
    inner = [list(node.input) for node in all_nodes(graph) if node.output[0] in ("then_out", "else_out")]
    assert inner == [["cell/Mul", "constant_float32_1.0"]] * 2
