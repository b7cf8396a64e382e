"""Weights reordered for the fastest step: the cell computes what it did before."""

import copy

import pytest
import torch
from torch.nn.utils.parametrizations import weight_norm

from arraylstm import CELLS, ArrayLSTM, NextItemModel


def models(cell, k=3):
    """Return a model of two layers in float64, and a copy whose cells are prepared."""
    torch.manual_seed(5)
    model = NextItemModel(cell, 7, 6, k, 2, 5).double().eval()
    other = copy.deepcopy(model)
    for layer in other.cells.values():
        layer.prepare()
    return model, other


@pytest.mark.parametrize("cell", CELLS)
def test_a_prepared_cell_computes_the_same(cell):
    """Logits, states and diagnostics agree, step by step and over sequences, eager and scripted."""
    model, other = models(cell)
    items = torch.randint(0, 7, (4, 9))
    state = [torch.rand(4, *shape, dtype=torch.float64) for shape in model.state_shapes]
    lengths = torch.tensor([9, 0, 3, 1])
    for form in (other, torch.jit.script(other)):
        torch.testing.assert_close(
            form.unroll_with_diagnostics(items, state, lengths),
            model.unroll_with_diagnostics(items, state, lengths),
            rtol=0,
            atol=1e-13,
        )
        torch.testing.assert_close(
            form.step_with_diagnostics(items[:, 0], state),
            model.step_with_diagnostics(items[:, 0], state),
            rtol=0,
            atol=1e-13,
        )


def test_preparing_twice_is_preparing_once():
    """The rows are moved only once."""
    _, other = models("array")
    once = copy.deepcopy(other.state_dict())
    other.cells["0"].prepare()
    torch.testing.assert_close(other.state_dict(), once, rtol=0, atol=0)
    assert not torch.equal(once["cells.0.h2h.weight"], models("array")[0].state_dict()["cells.0.h2h.weight"])


def keeps_its_rows(cell):
    """Prepare a cell and return whether its weights are unchanged."""
    before = copy.deepcopy(cell.state_dict())
    cell.prepare()
    return all(torch.equal(weight, before[key]) for key, weight in cell.state_dict().items())


METHODS = ["project", "step", "step_with_diagnostics", "forward_cell", "affine", "gates", "activate", "unroll"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["elsewhere", "arraylstm.cells.new"])
def test_a_cell_with_arithmetic_of_its_own_keeps_the_documented_layout(method, where):
    """Where a subclass, in the package too, may read the rows of the weights itself, they stay as documented."""
    stated = {method: lambda self, *arguments: getattr(ArrayLSTM, method)(self, *arguments), "__module__": where}
    own = type("Own", (ArrayLSTM,), stated)
    for cell in (own, type("Heir", (own,), {}), type("Mixed", (type("Part", (), stated), ArrayLSTM), {})):
        assert keeps_its_rows(cell(3, 4, 2))
    heir = type("Heir", (own,), {}, activate_alone_reads_rows=True)
    assert keeps_its_rows(heir(3, 4, 2))  # it can promise for itself, not for the class it inherits from


@pytest.mark.parametrize("method", ["update_hidden", "pool", "forward", "initHidden"])
def test_a_cell_whose_own_methods_see_no_rows_is_prepared(method):
    """Overriding what takes finished gates or states does not keep a cell from the faster layout."""
    own = type("Own", (ArrayLSTM,), {method: lambda self, *arguments: getattr(ArrayLSTM, method)(self, *arguments)})
    assert not keeps_its_rows(own(3, 4, 2))


def test_a_cell_that_promises_to_read_rows_as_array_lstm_does_is_prepared():
    """The promise is the class's own: a subclass that overrides arithmetic has to make it again."""
    override = {"gates": lambda self, wx, h: ArrayLSTM.gates(self, wx, h)}
    own = type("Own", (ArrayLSTM,), override, activate_alone_reads_rows=True)
    assert not keeps_its_rows(own(3, 4, 2))
    assert not keeps_its_rows(type("Heir", (own,), {})(3, 4, 2))
    assert keeps_its_rows(type("Heir", (own,), override)(3, 4, 2))


def test_layers_that_share_weights_are_prepared_each_for_itself():
    """A parameter that two layers hold is not moved twice."""
    model = NextItemModel("array", 7, 6, 3, 2, 6).double().eval()
    model.cells["1"].h2h.weight = model.cells["0"].h2h.weight
    other = copy.deepcopy(model)
    for layer in other.cells.values():
        layer.prepare()
    items = torch.randint(0, 7, (4, 9))
    torch.testing.assert_close(other(items), model(items), rtol=0, atol=1e-13)


def test_weights_that_are_computed_from_others_stay_as_they_are():
    """A weight-normed layer gives the same results as before."""
    cell = ArrayLSTM(3, 4, 2).double()
    weight_norm(cell.h2h)
    x = torch.rand(2, 5, 3, dtype=torch.float64)
    before = cell(x)
    cell.prepare()
    torch.testing.assert_close(cell(x), before, rtol=0, atol=1e-13)
