"""LSTM2002Layer against recorded vectors, NumPy, nn.LSTM and the ONNX operator."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from arraylstm import LSTM2002Layer, NextItemModel
from arraylstm.cells import make_cell

from .golden import Case, needs_golden, recorded

LAYERS = recorded("lstm2002layer")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def golden_layer(case, dtype):
    layer = LSTM2002Layer(**case.meta["ctor"]).to(dtype)
    layer.load_state_dict(case.tensors("param/", dtype))
    return layer


def make_layer(**sizes):
    """Return a layer in float64 with peepholes that matter."""
    torch.manual_seed(7)
    layer = LSTM2002Layer(**{"in_feat": 4, "n_blk": 3, "d_blk": 2, **sizes}, init_lower=-0.8, init_upper=0.8).double()
    layer.params_init()
    return layer


def draw_start(layer, batch):
    c, h = (torch.randn(batch, *shape, dtype=torch.float64) for shape in layer.state_shapes().values())
    return c, h


# -- the recorded vectors --------------------------------------------------------------------------------------


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_the_references_histories(name, dtype):
    """With the reference's state dict, cells and outputs of every step are its, eager and scripted."""
    case = Case(name)
    given = case.tensors("input/", dtype)
    layer = golden_layer(case, dtype)
    assert list(layer.state_dict()) == list(case.tensors("param/", dtype))
    for run in (layer, torch.jit.script(layer)):
        c, h = run(given["x"], given.get("c_0"), given.get("h_0"))
        case.check(c, "output64/c", dtype)
        case.check(h, "output64/h", dtype)


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", [name for name in LAYERS if "chunks" in name])
def test_a_layers_chunks_continue_each_other(name, dtype):
    """Fed in the recorded pieces, each from the last step of the one before, the histories are the whole's."""
    case = Case(name)
    layer, c, h, pieces = golden_layer(case, dtype), None, None, []
    for piece in case.tensors("input/", dtype)["x"].split(case.meta["chunks"], 1):
        pieces.append(layer(piece, c, h))
        c, h = (history[:, -1] for history in pieces[-1])
    for key, histories in zip(("c", "h"), zip(*pieces, strict=True), strict=True):
        case.check(torch.cat(histories, 1), f"output64/{key}", dtype)


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", [name for name in LAYERS if "grad" in name])
def test_a_layers_gradients_are_the_references(name, dtype):
    """The gradients of every weight, of the input and of the initial states are the reference's."""
    case = Case(name)
    layer = golden_layer(case, dtype)
    given = {key: tensor.requires_grad_() for key, tensor in case.tensors("input/", dtype).items()}
    c, h = layer(given["x"], given.get("c_0"), given.get("h_0"))
    ((c * given["grad_weight/c"]).sum() + (h * given["grad_weight/h"]).sum()).backward()
    for key, weight in layer.named_parameters():
        case.check(weight.grad, f"grad64/param/{key}", dtype, room=10)
    for key in ("x", "c_0", "h_0"):
        if key in given:
            case.check(given[key].grad, f"grad64/input/{key}", dtype, room=10)


# -- the equations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_blk", "d_blk"), [(1, 1), (5, 1), (1, 5), (3, 4)])
def test_a_layer_is_the_equations_in_numpy(n_blk, d_blk):
    """Block by block and step by step, cells and outputs are those of the equations written with plain loops."""
    layer = make_layer(n_blk=n_blk, d_blk=d_blk)
    w = {key: tensor.numpy(force=True) for key, tensor in layer.state_dict().items()}
    x, (c_0, h_0) = torch.randn(2, 6, 4, dtype=torch.float64), draw_start(layer, 2)
    cs, hs = (tensor.numpy(force=True) for tensor in layer(x, c_0, h_0))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for row in range(2):
        c, h = c_0.numpy(force=True)[row].copy(), h_0.numpy(force=True)[row]
        for t, x_t in enumerate(x.numpy(force=True)[row]):
            new_h = np.empty_like(h)
            for block in range(n_blk):
                units = slice(block * d_blk, (block + 1) * d_blk)

                def a(name, h=h, x_t=x_t, block=block):
                    u = w[f"fc_h2{name}.weight"][block] @ h
                    return w[f"fc_x2{name}.weight"][block] @ x_t + w[f"fc_x2{name}.bias"][block] + u

                f = sigmoid(a("fg") + w["pc_c2fg"][0, block] @ c[block])
                i = sigmoid(a("ig") + w["pc_c2ig"][0, block] @ c[block])
                g = np.tanh(a("mc_in", block=units))
                c[block] = f * c[block] + i * g
                o = sigmoid(a("og") + w["pc_c2og"][0, block] @ c[block])
                new_h[units] = o * np.tanh(c[block])
            h = new_h
            np.testing.assert_allclose(cs[row, t], c, rtol=0, atol=1e-13)
            np.testing.assert_allclose(hs[row, t], h, rtol=0, atol=1e-13)


def test_without_peepholes_blocks_of_one_cell_are_nn_lstm():
    """With peepholes as constructed, zero, and d_blk = 1, the layer is torch's LSTM with the gates reordered."""
    torch.manual_seed(3)
    layer = LSTM2002Layer(in_feat=4, n_blk=5).double()
    lstm = nn.LSTM(4, 5, batch_first=True).double()
    gates = ("ig", "fg", "mc_in", "og")
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.cat([layer.get_submodule(f"fc_x2{gate}").weight for gate in gates]))
        lstm.weight_hh_l0.copy_(torch.cat([layer.get_submodule(f"fc_h2{gate}").weight for gate in gates]))
        lstm.bias_ih_l0.copy_(torch.cat([layer.get_submodule(f"fc_x2{gate}").bias for gate in gates]))
        lstm.bias_hh_l0.zero_()
    x, (c_0, h_0) = torch.randn(3, 7, 4, dtype=torch.float64), draw_start(layer, 3)
    expected, (h_n, c_n) = lstm(x, (h_0.unsqueeze(0), c_0.squeeze(2).unsqueeze(0)))
    c, h = layer(x, c_0, h_0)
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(h[:, -1], h_n[0], rtol=0, atol=1e-13)
    torch.testing.assert_close(c[:, -1].squeeze(2), c_n[0], rtol=0, atol=1e-13)


def test_peepholes_of_blocks_of_one_cell_are_those_of_the_onnx_operator():
    """With d_blk = 1 the layer is ONNX's LSTM, whose peepholes are one weight a cell, as onnxruntime runs it."""
    layer = make_layer(in_feat=4, n_blk=5, d_blk=1).float()
    x, start = torch.randn(3, 7, 4), draw_start(layer, 3)
    c_0, h_0 = (tensor.float() for tensor in start)
    gates, peepholes = ("ig", "og", "fg", "mc_in"), (layer.pc_c2ig, layer.pc_c2og, layer.pc_c2fg)
    inputs = {
        "X": x.transpose(0, 1),
        "W": torch.cat([layer.get_submodule(f"fc_x2{gate}").weight for gate in gates])[None],
        "R": torch.cat([layer.get_submodule(f"fc_h2{gate}").weight for gate in gates])[None],
        "B": torch.cat([*(layer.get_submodule(f"fc_x2{gate}").bias for gate in gates), torch.zeros(20)])[None],
        "lengths": torch.full((3,), 7, dtype=torch.int32),
        "h_0": h_0[None],
        "c_0": c_0.squeeze(2)[None],
        "P": torch.cat([peephole.flatten() for peephole in peepholes])[None],
    }
    arrays = {name: np.ascontiguousarray(tensor.numpy(force=True)) for name, tensor in inputs.items()}
    node = helper.make_node("LSTM", list(arrays), ["Y", "h_n", "c_n"], hidden_size=5)
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    given = [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in arrays.items()]
    shown = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "h_n", "c_n")]
    graph = helper.make_graph([node], "lstm", given, shown)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    y, _, c_n = onnxruntime.InferenceSession(model.SerializeToString()).run(None, arrays)
    c, h = layer(x, c_0, h_0)
    np.testing.assert_allclose(h.numpy(force=True), y[:, 0].swapaxes(0, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(c[:, -1, :, 0].numpy(force=True), c_n[0], rtol=0, atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    """Inputs, weights and a start that is learned, one row for the whole batch, pass gradcheck."""
    layer = make_layer(in_feat=2, n_blk=2, d_blk=2)
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    c_0, h_0 = (tensor.requires_grad_() for tensor in draw_start(layer, 1))
    names, weights = zip(*layer.named_parameters(), strict=True)

    def run(x, c_0, h_0, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x, c_0, h_0))

    assert torch.autograd.gradcheck(run, (x, c_0, h_0, *weights))


def test_a_start_of_one_row_stands_for_all_and_buffers_for_none():
    """A state of batch 1, or the buffers, give what the same state repeated for each row gives."""
    layer = make_layer()
    x, (c_0, h_0) = torch.randn(3, 4, 4, dtype=torch.float64), draw_start(layer, 1)
    expected = layer(x, c_0.repeat(3, 1, 1), h_0.repeat(3, 1))
    torch.testing.assert_close(layer(x, c_0, h_0), expected)
    layer.c_0.copy_(c_0)
    layer.h_0.copy_(h_0)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
def test_rows_of_other_lengths_are_those_rows_alone(scripted):
    """With lengths, cells and outputs equal those of each row cut to its length, and are zero from there on."""
    layer = make_layer()
    run = torch.jit.script(layer) if scripted else layer
    x, (c_0, h_0) = torch.randn(4, 11, 4, dtype=torch.float64), draw_start(layer, 4)
    lengths = torch.tensor([11, 1, 0, 9])
    histories = run(x, c_0, h_0, lengths)
    _, ends = layer.unroll(x, [c_0, h_0], lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = layer(x[row : row + 1, :length], c_0[row : row + 1], h_0[row : row + 1])
        for history, expected, end in zip(histories, alone, ends, strict=True):
            torch.testing.assert_close(history[row, :length], expected[0], rtol=0, atol=1e-13)
            assert not history[row, length:].any()
            if length:
                torch.testing.assert_close(history[row, length - 1], end[row], rtol=0, atol=0)
    with pytest.raises(
        (ValueError, torch.jit.Error), match="lengths must be from 0 to 11, the number of steps, got 12"
    ):
        run(x, c_0, h_0, lengths.cpu() + 1)


def test_params_init_draws_each_weight_from_its_own_range():
    """Each gate's biases and all other weights lie in the ranges documented for them, and fill these to the ends."""
    torch.manual_seed(2)
    layer = LSTM2002Layer(
        in_feat=30, n_blk=400, d_blk=1, init_fb=0.7, init_ib=-0.3, init_ob=-0.5, init_lower=-0.2, init_upper=0.1
    )
    layer.params_init()
    own = {"fc_x2fg.bias": (0, 0.7), "fc_x2ig.bias": (-0.3, 0), "fc_x2og.bias": (-0.5, 0)}
    for name, weight in layer.named_parameters():
        lower, upper = own.get(name, (-0.2, 0.1))
        slack = (upper - lower) / 20
        assert lower <= weight.min() < lower + slack, name
        assert upper - slack < weight.max() <= upper, name


@pytest.mark.parametrize(
    ("x", "c_0", "h_0", "message"),
    [
        ((2, 4), None, None, r"x must be \(batch, steps, 4\), got \[2, 4\]"),
        ((2, 3, 5), None, None, r"x must be \(batch, steps, 4\), got \[2, 3, 5\]"),
        ((2, 3, 4), (2, 6), None, r"c_0 must be \[2, 3, 2\] or \[1, 3, 2\], got \[2, 6\]"),
        ((2, 3, 4), None, (3, 6), r"h_0 must be \[2, 6\] or \[1, 6\], got \[3, 6\]"),
    ],
)
def test_wrong_shapes_are_refused_with_both_shapes(x, c_0, h_0, message):
    """Inputs and states of other shapes raise ValueError that says what came and what was wanted."""
    given = [None if shape is None else torch.zeros(shape, dtype=torch.float64) for shape in (x, c_0, h_0)]
    with pytest.raises(ValueError, match=message):
        make_layer()(*given)


@pytest.mark.parametrize(("batch", "steps"), [(3, 0), (0, 4), (0, 0)])
def test_nothing_gives_nothing(batch, steps):
    """No steps, or no rows, give empty histories, with lengths too."""
    x = torch.zeros(batch, steps, 4, dtype=torch.float64)
    for lengths in (None, torch.zeros(batch, dtype=torch.int64)):
        c, h = make_layer()(x, lengths=lengths)
        assert (c.shape, h.shape) == ((batch, steps, 3, 2), (batch, steps, 6))


def test_the_registrys_cell_has_blocks_of_k_cells_drawn_as_documented():
    """k cells share each gate and gates start as params_init has them; a width that k does not divide is refused."""
    cell = make_cell("lstm2002", 5, 6, k=3)
    assert (cell.d_blk, cell.n_blk, cell.in_feat) == (3, 2, 5)
    assert (cell.fc_x2fg.bias > 0).all()
    assert (cell.fc_x2ig.bias < 0).all()
    assert cell.pc_c2og.abs().min() > 0
    with pytest.raises(ValueError, match=r"multiple of k, the cells in a block; got 6 and k=4"):
        make_cell("lstm2002", 5, 6, k=4)
    with torch.device("meta"):
        assert NextItemModel("lstm2002", 7, 6, k=3).cells["0"].pc_c2fg.is_meta
