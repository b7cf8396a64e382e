"""Tables for all that an item alone decides."""

import numpy as np
import onnx
import pytest
import torch

from arraylstm import CELLS, LSTM2002, ArrayLSTM, NextItemModel, Vocabulary
from arraylstm_export.graph.sequence import sequence_graph
from arraylstm_export.graph.tables import tabulated
from arraylstm_export.interface import Interface
from arraylstm_export.runtime import session

from ..helpers import make_step


def make(cell, **sizes):
    torch.manual_seed(3)
    return NextItemModel(cell, **({"num_items": 9, "hidden_size": 6, "k": 3, "embedding_size": 5} | sizes)).eval()


def run(graph, model, items):
    rng = np.random.default_rng(0)
    state = [rng.random((len(items), *shape), np.float32) for shape in model.state_shapes]
    names = [tensor.name for tensor in Interface.of(model).step.inputs]
    return session(graph.SerializeToString()).run(None, dict(zip(names, [np.array(items), *state], strict=True)))


def kinds(graph):
    return [node.op_type for node in graph.graph.node]


def test_the_item_is_only_looked_up(exported):
    """No node but a look-up in a table of V rows reads the item, whatever the cell makes of its input."""
    model, folder, _ = exported
    graph = onnx.load(folder / "step.onnx").graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    readers = [node for node in graph.node if "items" in node.input]
    assert readers
    for node in readers:
        assert node.op_type == "Gather"
        assert tables[node.input[0]].dims[0] == model.num_items
    assert {name for node in graph.node for name in node.input} >= set(tables)


def test_no_step_asks_how_many_rows_there_are(exported):
    """A value that depends on the number of rows could not be looked up, even if only the item decides the rest."""
    _, folder, _ = exported
    assert "Shape" not in kinds(onnx.load(folder / "step.onnx"))


def test_the_step_of_the_array_cell_is_14_nodes():
    """As few as a graph built by hand has."""
    model = make("array")
    assert len(make_step(model).graph.node) == 14


@pytest.mark.parametrize("sizes", [{}, {"embedding_size": None}, {"num_items": 5000, "hidden_size": 2}], ids=str)
def test_a_table_gives_what_the_nodes_gave(sizes):
    """For every item, a one-hot one and one beyond the first piece of the table among them."""
    model = make("attention", **sizes)
    graph = make_step(model)
    items = np.arange(model.num_items)
    with torch.no_grad():
        rng = np.random.default_rng(0)
        state = [torch.from_numpy(rng.random((len(items), *s), np.float32)) for s in model.state_shapes]
        logits, following = model.step(torch.from_numpy(items), state)
    for actual, expected in zip(run(graph, model, items), [logits, *following], strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_layers_before_the_cells_are_tabulated_too():
    """LSTM2002 has a hidden layer between its embedding and its cells."""
    model = LSTM2002(tknzr=Vocabulary([*"abcdef"])).eval()
    graph = make_step(model)
    with torch.no_grad():
        expected = model.step(torch.arange(3), [torch.zeros(3, *shape) for shape in model.state_shapes])[0]
    names = [tensor.name for tensor in Interface.of(model).step.inputs]
    state = [np.zeros((3, *shape), np.float32) for shape in model.state_shapes]
    logits = session(graph.SerializeToString()).run(None, dict(zip(names, [np.arange(3), *state], strict=True)))[0]
    np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_tables_that_take_too_much_are_not_made(monkeypatch):
    """Where they add more than the limit to what they replace, the graph computes them from the embedding."""
    model = make("array")
    growth = 4 * (9 * 72 - 9 * 5 - 5 * 72 - 72)  # a table for the embedding, W and b
    monkeypatch.setattr("arraylstm_export.graph.tables.LARGEST_GROWTH", growth - 1)
    graph = make_step(model)
    assert kinds(graph).count("Gemm") == 3
    assert tabulated(graph, 9) is graph
    monkeypatch.setattr("arraylstm_export.graph.tables.LARGEST_GROWTH", growth)
    smaller = tabulated(graph, 9)
    assert kinds(smaller).count("Gemm") == 2
    onnx.checker.check_model(smaller, full_check=True)
    for actual, expected in zip(run(smaller, model, [0, 8, 3]), run(graph, model, [0, 8, 3]), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_a_one_hot_models_table_takes_the_place_of_its_weights(monkeypatch):
    """It is as large as they are, whatever the number of items."""
    monkeypatch.setattr("arraylstm_export.graph.tables.LARGEST_GROWTH", 0)
    model = make("array", embedding_size=None, num_items=40)
    assert kinds(make_step(model)).count("Gemm") == 2


class LanesFirst(ArrayLSTM):
    """A step of its own, whose values have the rows of the batch on their third axis, or on their last."""

    def forward_cell(self, x, hidden, state):
        def by_gate(a):
            return a.view(x.size(0), self.k, 4, self.hidden_size).permute(2, 1, 0, 3)

        a = by_gate(self.i2h(x)) + by_gate((self.h2h.weight @ hidden[0].t()).t().contiguous() + self.h2h.bias)
        f, i, o = a[:3].sigmoid()
        state = f * state + i * a[3].tanh()
        return (o * state.tanh()).sum(0, keepdim=True), state


def test_values_with_the_batch_elsewhere_are_computed_as_before(monkeypatch):
    """Only what has a row for each row of the batch is tabulated, and run after the loop for all steps at once."""
    monkeypatch.setitem(CELLS, "lanes-first", LanesFirst)
    model = make("lanes-first")
    interface = Interface.of(model)
    graph = make_step(model)
    items = torch.tensor([[0, 8, 3], [5, 5, 1]])
    state = [torch.rand(2, *shape) for shape in model.state_shapes]
    with torch.no_grad():
        logits, following = model(items, state)
    feed = [items.numpy(), np.array([3, 3]), *(tensor.numpy() for tensor in state)]
    names = [tensor.name for tensor in interface.sequence.inputs]
    sequence = session(sequence_graph(graph, interface).SerializeToString())
    for actual, expected in zip(
        sequence.run(None, dict(zip(names, feed, strict=True))), [logits, *following], strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
