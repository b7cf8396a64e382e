"""Parity catches every mistake: the real graphs of bundles, with one mistake each.

All mutants of a graph are forms of one comparison, which answers the names of those that nothing was found against.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from arraylstm_export import Reference, verify
from arraylstm_export.formats.eager import Sequences, StepMethod
from arraylstm_export.formats.onnx import SequenceGraph, StepGraph
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface

from ..helpers import SMALL

CELLS = ["array", "lstm", "markov"]
GRAPHS = {"step.onnx": StepGraph, "sequence.onnx": SequenceGraph}
NET = replace(SMALL, batches=(2, 64))  # a weight may show itself in few rows only
SECOND_LAYER = 2  # index of its first state

every_cell = pytest.mark.parametrize("cell", CELLS)
every_graph = pytest.mark.parametrize("name", GRAPHS)


class MayCrash(Runner):
    """A form that may break down, which counts as caught; the model itself then goes on in its place."""

    def __init__(self, run, model, interface):
        self.run, self.stand_in = run, Sequences(model, interface)
        self.needs_a_step = run.needs_a_step
        self.exact_rows = run.exact_rows
        self.crashed = False

    def __call__(self, items, lengths, state):
        try:
            series, following = self.run(items, lengths, state)
            assert series[0].shape[:2] == items.shape
        except Exception:
            self.crashed = True
            known = np.where(np.arange(items.shape[1]) < lengths[:, None], items, 0)
            return self.stand_in(known, lengths, state)
        return series, following


def survivors(model, runs, interface):
    """Return the names of the forms that parity finds nothing against and that never crash."""
    forms = {name: MayCrash(run, model, interface) for name, run in runs.items()}
    report = verify(Reference(model, interface), forms, tolerance=1e-5, coverage=NET)
    caught = {check.form for check in report.checks if not check.passed}
    return [name for name, form in forms.items() if name not in caught and not form.crashed]


def surviving_graphs(model, name, protos, scratch):
    """Return the names of the graphs, of the kind of file that `name` says, that survive."""
    runs = {}
    for number, (mutant, proto) in enumerate(protos.items()):
        onnx.save(proto, scratch / f"{number}.onnx")
        runs[mutant] = GRAPHS[name](scratch / f"{number}.onnx", Interface.of(model))
    return survivors(model, runs, Interface.of(model))


def altered_weights(original: ModelProto, changes) -> Iterator[tuple[str, ModelProto]]:
    """Yield the graph with one weight altered in one way, for all of both, where that makes a difference."""
    for index, tensor in enumerate(original.graph.initializer):
        weight = numpy_helper.to_array(tensor)
        for change in changes if weight.dtype == np.float32 else ():
            spoilt = weight.copy()
            change(spoilt)
            if not np.array_equal(spoilt, weight):
                proto = copied(original)
                proto.graph.initializer[index].CopyFrom(numpy_helper.from_array(spoilt, tensor.name))
                yield f"{change.__name__}: {tensor.name} {list(weight.shape)}", proto


def copied(proto):
    copy = ModelProto()
    copy.CopyFrom(proto)
    return copy


def nudge(weight):
    weight.reshape(-1)[weight.size // 2] += 1e-3


def drop_a_bias(weight):
    if weight.size == max(weight.shape, default=0):
        weight[:] = 0


def exchange_blocks_of_a_gate(weight):
    exchange(weight, 6)


def exchange_gates(weight):
    exchange(weight, 18)


def exchange(weight, width):
    for axis, size in enumerate(weight.shape):
        if size % (4 * width) == 0:
            blocks = np.moveaxis(weight, axis, 0)
            blocks[: 2 * width] = np.roll(blocks[: 2 * width], width, 0)
            return


def leave_a_stale_row_for_item_5(weight):
    for axis, size in enumerate(weight.shape):
        if size == 7:
            rows = np.moveaxis(weight, axis, 0)
            rows[5] = rows[2]


CHANGES = [nudge, drop_a_bias, exchange_blocks_of_a_gate, exchange_gates, leave_a_stale_row_for_item_5]


@pytest.mark.parametrize(
    ("cell", "name"),
    [(cell, "step.onnx") for cell in CELLS] + [("array", "sequence.onnx"), ("lstm", "sequence.onnx")],
)
def test_every_wrong_weight_is_caught_and_the_right_graph_is_not(bundles, tmp_path, cell, name):
    """Each weight in turn: an element off by a thousandth, a bias dropped, gates exchanged, an item's row stale.

    The sequence graphs are a loop around the step graph and its weights, and the LSTM operator with its own.
    """
    model, folder, _ = bundles(cell)
    original = onnx.load(folder / name)
    mutants = dict(altered_weights(original, CHANGES))
    assert len(mutants) >= 7
    found = surviving_graphs(model, name, {"right": original} | mutants, tmp_path)
    assert [mutant for mutant in found if mutant not in moves_nothing(cell, mutants)] == ["right"]


def moves_nothing(cell, mutants):
    """The nudges of what only chooses a Markov cell's lane: without `q_z` to see, no choice being near, none flips."""
    return [mutant for mutant in mutants if cell == "markov" and re.match(r"nudge.*\b3\b", mutant)]


def rewired(original, old, new, inputs, outputs):
    """Return the graph with two values exchanged: as inputs of nodes, as their outputs, or both."""
    proto, other = copied(original), {old: new, new: old}
    for node in proto.graph.node:
        if inputs:
            node.input[:] = [other.get(name, name) for name in node.input]
        if outputs:
            node.output[:] = [other.get(name, name) for name in node.output]
    return proto


def exchanged_states(original, first, second):
    """Yield the graph with two states exchanged: where they come in, go out, or both."""
    came_in = rewired(original, f"state_{first}", f"state_{second}", inputs=True, outputs=False)
    following = f"next_state_{first}", f"next_state_{second}"
    yield "states come in exchanged", came_in
    yield "states go out exchanged", rewired(original, *following, inputs=True, outputs=True)
    yield "states come in and go out exchanged", rewired(came_in, *following, inputs=True, outputs=True)


def one_state_answered_as_another(original, first, second):
    """Return the graph that answers one state under another's name as well."""
    proto = rewired(original, f"next_state_{second}", "unheard", inputs=True, outputs=True)
    proto.graph.node.append(helper.make_node("Identity", [f"next_state_{first}"], [f"next_state_{second}"]))
    return proto


@every_cell
@every_graph
def test_exchanged_and_reused_states_are_caught(bundles, tmp_path, cell, name):
    """States of one shape, and of two layers, change places, or one is given out as the other."""
    model, folder, _ = bundles(cell)
    original = onnx.load(folder / name)
    first, second = model.state_names[0], model.state_names[SECOND_LAYER]
    mutants = dict(exchanged_states(original, first, second))
    mutants["a state given out as another"] = one_state_answered_as_another(original, first, second)
    assert surviving_graphs(model, name, mutants, tmp_path) == []


def with_input_made_by(original, value, operator, *constants):
    """Return the graph that takes, instead of an input, what an operator makes of it and of some integers."""
    proto = copied(original)
    for node in proto.graph.node:
        node.input[:] = ["spoilt" if name == value else name for name in node.input]
    names = [f"spoilt_{number}" for number in range(len(constants))]
    proto.graph.node.insert(0, helper.make_node(operator, [value, *names], ["spoilt"]))
    proto.graph.initializer.extend(map(numpy_helper.from_array, map(np.int64, constants), names))
    return proto


def loop_with_states_exchanged(original):
    """Return the graph in whose loop the layers' first states change places from one step to the next."""
    proto = copied(original)
    scan = next(node for node in proto.graph.node if node.op_type == "Scan")
    body = next(attribute.g for attribute in scan.attribute if attribute.name == "body")
    first, second = body.output[0], body.output[SECOND_LAYER]
    first.name, second.name = second.name, first.name
    return proto


@every_cell
def test_wrong_lengths_and_loops_are_caught(bundles, tmp_path, cell):
    """The mask frozen, dropped, or off by one; the steps frozen; a loop that hands states on to the wrong layer."""
    model, folder, _ = bundles(cell)
    original = onnx.load(folder / "sequence.onnx")
    mutants = {
        "lengths stop at an example's": with_input_made_by(original, "lengths", "Min", 3),
        "lengths dropped": with_input_made_by(original, "lengths", "Max", 10**6),
        "a step too many": with_input_made_by(original, "lengths", "Add", 1),
        "a step too few": with_input_made_by(original, "lengths", "Sub", 1),
        "steps frozen": with_input_made_by(original, "items", "Slice", [0], [3], [1]),
    }
    if cell != "lstm":  # which has no loop of ours
        mutants["states exchanged in the loop"] = loop_with_states_exchanged(original)
    assert surviving_graphs(model, "sequence.onnx", mutants, tmp_path) == []


@every_cell
def test_torchscript_with_a_weight_nudged_is_caught(bundles, cell):
    """One element of every parameter of the scripted file, run as a whole and step by step."""
    model, folder, _ = bundles(cell)
    interface = Interface.of(model, with_diagnostics=bool(model.diagnostic_names))
    runs = {}
    for index, name in enumerate(dict(model.named_parameters())):
        scripted = torch.jit.load(folder / "model.torchscript.pt")
        with torch.no_grad():
            list(scripted.parameters())[index].view(-1)[1] += 1e-3
        runs[name] = (Sequences, StepMethod)[index % 2](scripted, interface)
    assert survivors(model, runs, interface) == []
