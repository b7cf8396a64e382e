"""LSTM2002Layer and LSTM2002 against recorded vectors, NumPy, nn.LSTM and the ONNX operator."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional as F

from arraylstm import LSTM2002, LSTM2002Layer, NextItemModel, Vocabulary
from arraylstm.cells import make_cell

from .test_golden import GOLDEN, Case, needs_golden

LAYERS = sorted(path.name for path in GOLDEN.glob("lstm2002layer_*.npz"))
MODELS = sorted(path.name for path in GOLDEN.glob("lstm2002_*.npz"))
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
PAD = 2


def golden_layer(case, dtype):
    layer = LSTM2002Layer(**case.meta["ctor"]).to(dtype)
    layer.load_state_dict(case.tensors("param/", dtype))
    return layer


def golden_model(case, dtype):
    model = LSTM2002(tknzr=SimpleNamespace(vocab_size=case.meta["vocab_size"]), **case.meta["ctor"]).to(dtype).eval()
    model.load_state_dict(case.tensors("param/", dtype))
    return model


def golden_states(case, dtype):
    given = case.tensors("input/", dtype)
    layers = range(case.meta["ctor"]["n_lyr"])
    return (
        tuple([given[f"{name}/{layer}"] for layer in layers] for name in ("c_0", "h_0")) if "c_0/0" in given else None
    )


def make_layer(**sizes):
    """Return a layer in float64 with peepholes that matter."""
    torch.manual_seed(7)
    layer = LSTM2002Layer(**{"in_feat": 4, "n_blk": 3, "d_blk": 2, **sizes}, init_lower=-0.8, init_upper=0.8).double()
    layer.params_init()
    return layer


def make_model(**options):
    """Return a model of two layers in eval mode whose weights matter."""
    torch.manual_seed(11)
    tknzr = options.pop("tknzr", SimpleNamespace(vocab_size=9))
    sizes = {"d_blk": 2, "d_emb": 4, "n_blk": 3, "n_lyr": 2, "init_lower": -0.8, "init_upper": 0.8}
    model = LSTM2002(tknzr=tknzr, **{**sizes, **options}).eval()
    model.params_init()
    return model


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
    """Every weight's and input's gradient is the reference's, the initial states' among them."""
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


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_references_logits_and_states(name, dtype):
    """With the reference's state dict, logits, states, probabilities and loss are its, eager and scripted."""
    case = Case(name)
    model, states = golden_model(case, dtype), golden_states(case, dtype)
    assert list(model.state_dict()) == list(case.tensors("param/", dtype))
    ids, targets = (torch.from_numpy(case.arrays[f"input/{key}"]) for key in ("token_ids", "target_ids"))
    case.check(model.pred(ids, states)[0], "output64/probs", dtype)
    if "output64/loss" in case.arrays:
        case.check(model.cal_loss(ids, targets, states)[0], "output64/loss", dtype)
    for run in (model, torch.jit.script(model)):
        logits, (cs, hs) = run(ids, states)
        case.check(logits, "output64/logits", dtype)
        for layer, (c, h) in enumerate(zip(cs, hs, strict=True)):
            case.check(c, f"output64/c_last/{layer}", dtype)
            case.check(h, f"output64/h_last/{layer}", dtype)


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", [name for name in MODELS if "chunks" in name])
def test_a_models_chunks_continue_each_other(name, dtype):
    """Fed in the recorded pieces with the states handed on, logits and last states are those of the whole."""
    case = Case(name)
    model, states, pieces = golden_model(case, dtype), None, []
    for piece in torch.from_numpy(case.arrays["input/token_ids"]).split(case.meta["chunks"], 1):
        logits, states = model(piece, states)
        pieces.append(logits)
    case.check(torch.cat(pieces, 1), "output64/logits", dtype)
    for layer, (c, h) in enumerate(zip(*states, strict=True)):
        case.check(c, f"output64/c_last/{layer}", dtype)
        case.check(h, f"output64/h_last/{layer}", dtype)


# -- the layer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_blk", "d_blk"), [(1, 1), (5, 1), (1, 5), (3, 4)])
def test_a_layer_is_the_equations_in_numpy(n_blk, d_blk):
    """Block by block and step by step, cells and outputs are those of the equations written with plain loops."""
    layer = make_layer(n_blk=n_blk, d_blk=d_blk)
    w = {key: tensor.detach().numpy() for key, tensor in layer.state_dict().items()}
    x, (c_0, h_0) = torch.randn(2, 6, 4, dtype=torch.float64), draw_start(layer, 2)
    cs, hs = (tensor.detach().numpy() for tensor in layer(x, c_0, h_0))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    for row in range(2):
        c, h = c_0.numpy()[row].copy(), h_0.numpy()[row]
        for t, x_t in enumerate(x.numpy()[row]):
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
    arrays = {name: np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in inputs.items()}
    node = helper.make_node("LSTM", list(arrays), ["Y", "h_n", "c_n"], hidden_size=5)
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    given = [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in arrays.items()]
    shown = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("Y", "h_n", "c_n")]
    graph = helper.make_graph([node], "lstm", given, shown)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    y, _, c_n = onnxruntime.InferenceSession(model.SerializeToString()).run(None, arrays)
    c, h = layer(x, c_0, h_0)
    np.testing.assert_allclose(h.detach().numpy(), y[:, 0].swapaxes(0, 1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(c[:, -1, :, 0].detach().numpy(), c_n[0], rtol=0, atol=1e-5)


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
    """No steps, or no rows, give empty histories; a model of no steps hands its states on as they were."""
    layer, model = make_layer(), make_model()
    c, h = layer(torch.zeros(batch, steps, 4, dtype=torch.float64))
    assert (c.shape, h.shape) == ((batch, steps, 3, 2), (batch, steps, 6))
    states = [torch.randn(batch, 3, 2)] * 2, [torch.randn(batch, 6)] * 2
    for run in (model, torch.jit.script(model)):
        logits, following = run(torch.zeros(batch, steps, dtype=torch.int64), states)
        assert logits.shape == (batch, steps, 9)
        torch.testing.assert_close(following, states)


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


# -- the language model ----------------------------------------------------------------------------------------


def test_dropout_falls_where_the_reference_has_it():
    """In training, the same draws give what the reference's chain of dropouts around every part gives."""
    model = make_model(p_emb=0.3, p_hid=0.4).train()
    ids = torch.randint(0, 9, (3, 5))
    torch.manual_seed(1)
    z = torch.tanh(model.fc_e2h[1](F.dropout(model.emb(ids), 0.3)))
    for layer in model.stack_rnn.values():
        z = layer(F.dropout(z, 0.4))[1]
    z = F.dropout(torch.tanh(model.fc_h2e[0](F.dropout(z, 0.4))), 0.4)
    torch.manual_seed(1)
    torch.testing.assert_close(model(ids)[0], z @ model.emb.weight.T)


def test_steps_and_lengths_give_what_the_sequence_gives():
    """Item by item through step, scripted, or cut at its own length, a row's logits and states are the sequence's."""
    model = make_model()
    scripted = torch.jit.script(model)
    ids, lengths = torch.randint(0, 9, (3, 5)), torch.tensor([5, 0, 2])
    logits, state = model(ids)[0], None
    for t in range(5):
        step, state = scripted.step(ids[:, t], state)
        torch.testing.assert_close(step, logits[:, t])
    ragged, ends = model.unroll(ids, None, lengths)
    for row, length in enumerate(lengths):
        alone, end = model.unroll(ids[row : row + 1, :length])
        torch.testing.assert_close(ragged[row, :length], alone[0])
        torch.testing.assert_close([tensor[row : row + 1] for tensor in ends], end)


def test_gradients_stop_between_calls_of_forward_and_pass_through_unroll():
    """The states that forward gives are detached, as documented; those of unroll are not."""
    model, ids = make_model(), torch.randint(0, 9, (2, 3))
    cs, hs = model(ids)[1]
    assert not any(tensor.requires_grad for tensor in cs + hs)
    following = model.unroll(ids)[1]
    assert all(tensor.requires_grad for tensor in following)
    torch.testing.assert_close(following[0::2], cs)
    torch.testing.assert_close(following[1::2], hs)


def test_pred_knows_no_dropout_and_restores_every_mode():
    """In training pred gives eval's probabilities, twice the same, and leaves each part in the mode it was in."""
    model = make_model(p_emb=0.5, p_hid=0.5)
    ids = torch.randint(0, 9, (2, 3))
    expected = model(ids)[0].softmax(-1)
    model.train()
    model.fc_h2e.eval()
    modes = [module.training for module in model.modules()]
    for _ in range(2):
        torch.testing.assert_close(model.pred(ids)[0], expected)
    with pytest.raises(IndexError):
        model.pred(ids + 9)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_targets_that_are_no_padding(label_smoothing):
    """The loss is -sum of target probabilities times log-probabilities, by NumPy, averaged where there is a target."""
    model = make_model(label_smoothing=label_smoothing)
    ids, targets = torch.randint(0, 9, (3, 5)), torch.randint(3, 9, (3, 5))
    targets[0, 2:] = PAD
    log_p = np.log(model.pred(ids)[0].numpy())
    wanted = np.eye(9)[targets] * (1 - label_smoothing) + label_smoothing / 9
    expected = -(wanted * log_p).sum(-1)[targets.numpy() != PAD].mean()
    loss, states = model.cal_loss(ids, targets)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(states, model(ids)[1])


def test_the_loss_of_padding_alone_is_zero():
    """Where every target is padding, the loss is 0 and so is each gradient."""
    model = make_model(label_smoothing=0.1)
    loss, _ = model.cal_loss(torch.randint(0, 9, (2, 3)), torch.full((2, 3), PAD))
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())


def test_the_models_params_init_reaches_the_layers_and_spares_padding():
    """Every layer draws its gates' biases from the model's ranges, and padding's embedding alone stays zero."""
    model = make_model(n_blk=200, d_blk=1, init_fb=0.25, init_ib=-0.25, init_ob=-0.5)
    for layer in model.stack_rnn.values():
        bounds = [layer.fc_x2fg.bias.max(), layer.fc_x2ig.bias.min(), layer.fc_x2og.bias.min()]
        np.testing.assert_allclose([bound.item() for bound in bounds], [0.25, -0.25, -0.5], rtol=0.1)
    assert (model.emb.weight == 0).all(1).tolist() == [id == PAD for id in range(9)]


def test_a_model_starts_from_its_layers_buffers():
    """Where the buffers are set, a model without states starts from them, eager and scripted."""
    model, ids = make_model(), torch.randint(0, 9, (2, 3))
    states = [torch.randn(1, 3, 2) for _ in range(2)], [torch.randn(1, 6) for _ in range(2)]
    for layer, c, h in zip(model.stack_rnn.values(), *states, strict=True):
        layer.c_0.copy_(c)
        layer.h_0.copy_(h)
    expected = model(ids, ([c.repeat(2, 1, 1) for c in states[0]], [h.repeat(2, 1) for h in states[1]]))
    torch.testing.assert_close(model(ids), expected)
    torch.testing.assert_close(torch.jit.script(model)(ids), expected)


def test_the_command_lines_options_construct_the_model():
    """Parsed options are the constructor's arguments: none give its defaults, all give themselves."""
    parser = argparse.ArgumentParser()
    LSTM2002.add_CLI_args(parser)
    tknzr = SimpleNamespace(vocab_size=9)
    assert LSTM2002(tknzr=tknzr, **vars(parser.parse_args([]))).config == LSTM2002(tknzr=tknzr).config
    given = make_model(p_emb=0.25, p_hid=0.5, label_smoothing=0.1, init_ob=-0.5).config
    options = {name: value for name, value in given.items() if name not in ("cell", "num_items")}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    parsed = vars(parser.parse_args(words))
    assert parsed == options
    assert all(getattr(LSTM2002(tknzr=tknzr, **parsed), name) == value for name, value in options.items())


def test_a_model_is_rebuilt_from_its_config():
    """Through JSON, the config and vocabulary give a model that takes the weights and gives the same logits."""
    tokens = ["<bos>", "<eos>", "<pad>", "<unk>", *"abcde"]
    model = make_model(tknzr=SimpleNamespace(vocab_size=9, id2tk=dict(enumerate(tokens))), p_hid=0.2)
    assert model.vocabulary == Vocabulary(tokens, unknown="<unk>")
    config = json.loads(json.dumps(model.config))
    rebuilt = LSTM2002.from_config(config, model.vocabulary).eval()
    rebuilt.load_state_dict(model.state_dict())
    ids = torch.tensor([rebuilt.vocabulary.encode(["<bos>", "a", "z"])])
    torch.testing.assert_close(rebuilt(ids), model(ids))
    assert rebuilt.config == model.config
    assert LSTM2002.from_config(config, None).vocabulary is None
    with pytest.raises(ValueError, match="the vocabulary has 8 items, the model 9"):
        LSTM2002.from_config(config, Vocabulary(tokens[:-1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tknzr": SimpleNamespace(vocab_size=3)}, "four special ids 0 to 3, got 3 tokens"),
        ({"tknzr": Vocabulary(["a", "b"])}, "four special ids 0 to 3, got 2 tokens"),
        ({"d_emb": 0}, "d_emb must be an integer of at least 1, got 0"),
        ({"n_lyr": 0}, "n_lyr must be an integer of at least 1, got 0"),
        ({"n_blk": 0}, "n_blk must be an integer of at least 1, got 0"),
        ({"p_emb": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"p_hid": -0.1}, "dropout must be at least 0 and below 1, got -0.1"),
        ({"label_smoothing": 1.5}, "label_smoothing must be from 0 to 1, got 1.5"),
    ],
)
def test_what_no_model_can_have_is_refused(options, message):
    """Sizes, probabilities and tokenizers that make no model raise ValueError with the value seen."""
    with pytest.raises(ValueError, match=message):
        make_model(**options)


def test_states_and_targets_of_other_shapes_are_refused():
    """A state too few, one of another shape, and targets of another shape raise ValueError with both."""
    model, ids = make_model(), torch.zeros(2, 3, dtype=torch.int64)
    cs, hs = model(ids)[1]
    with pytest.raises(ValueError, match="states must be 2 of c and of h, got 1 and 2"):
        model(ids, (cs[:1], hs))
    with pytest.raises(ValueError, match=r"state h_l1 must be \[2, 6\], got \[3, 6\]"):
        model(ids, (cs, [hs[0], torch.zeros(3, 6)]))
    with pytest.raises(ValueError, match=r"\[2, 3\], got \[3, 2\]"):
        model.cal_loss(ids, ids.T)
