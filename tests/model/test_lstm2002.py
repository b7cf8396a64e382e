"""LSTM2002 against recorded vectors, NumPy and the reference's chain of modules."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from arraylstm import LSTM2002, Vocabulary

from .golden import Case, needs_golden, recorded

MODELS = recorded("lstm2002")
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
PAD = 2


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


def make_model(**options):
    """Return a model of two layers in eval mode whose weights matter."""
    torch.manual_seed(11)
    tknzr = options.pop("tknzr", SimpleNamespace(vocab_size=9))
    sizes = {"d_blk": 2, "d_emb": 4, "n_blk": 3, "n_lyr": 2, "init_lower": -0.8, "init_upper": 0.8}
    model = LSTM2002(tknzr=tknzr, **{**sizes, **options}).eval()
    model.params_init()
    return model


# -- the recorded vectors --------------------------------------------------------------------------------------


@needs_golden
@both_dtypes
@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_references_logits_and_states(name, dtype):
    """With the reference's state dict, logits, states, probabilities and loss are its, eager and scripted."""
    case = Case(name)
    model, states = golden_model(case, dtype), golden_states(case, dtype)
    assert list(model.state_dict()) == list(case.tensors("param/", dtype))
    ids, targets = (case.ids(f"input/{key}") for key in ("token_ids", "target_ids"))
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
    """In the recorded pieces, each from the states of the one before, logits and last states equal the whole's."""
    case = Case(name)
    model, states, pieces = golden_model(case, dtype), None, []
    for piece in case.ids("input/token_ids").split(case.meta["chunks"], 1):
        logits, states = model(piece, states)
        pieces.append(logits)
    case.check(torch.cat(pieces, 1), "output64/logits", dtype)
    for layer, (c, h) in enumerate(zip(*states, strict=True)):
        case.check(c, f"output64/c_last/{layer}", dtype)
        case.check(h, f"output64/h_last/{layer}", dtype)


# -- the model -------------------------------------------------------------------------------------------------


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
    """A row's logits and states are the sequence's item by item through the scripted step, and cut at its length."""
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
    with pytest.raises(ValueError, match="items must be int64"):
        model.pred(ids.float())
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_targets_that_are_no_padding(label_smoothing):
    """The loss is NumPy's -sum of target probabilities times log-probabilities, averaged over the targets."""
    model = make_model(label_smoothing=label_smoothing)
    ids, targets = torch.randint(0, 9, (3, 5)), torch.randint(3, 9, (3, 5))
    targets[0, 2:] = PAD
    log_p = np.log(model.pred(ids)[0].numpy(force=True))
    wanted = np.eye(9)[targets.numpy(force=True)] * (1 - label_smoothing) + label_smoothing / 9
    expected = -(wanted * log_p).sum(-1)[targets.numpy(force=True) != PAD].mean()
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


def test_padding_is_trained_as_a_score_and_not_by_its_look_up():
    """Padding's embedding gets the gradient of a product with z, (p - wanted) z summed, though it is looked up too."""
    model = make_model()
    ids, targets = torch.randint(3, 9, (4, 6)), torch.randint(3, 9, (4, 6))
    ids[:, 3:] = PAD
    model.embed(ids).sum().backward()
    looked_up = model.emb.weight.grad.any(1)
    assert not looked_up[PAD]
    assert looked_up[ids[:, :3].unique()].all()
    model.zero_grad()
    z = []
    model.fc_h2e.register_forward_hook(lambda module, given, output: z.append(output.detach()))
    model.cal_loss(ids, targets)[0].backward()
    p = model.pred(ids)[0][..., PAD]
    assert p.min() > 0.01
    torch.testing.assert_close(model.emb.weight.grad[PAD], torch.einsum("bs,bse->e", p, z[0]) / targets.numel())


def test_the_models_params_init_reaches_the_layers_and_spares_padding():
    """Every layer draws its gates' biases from the model's ranges, and padding's embedding alone stays zero."""
    model = make_model(n_blk=200, d_blk=1, init_fb=0.25, init_ib=-0.25, init_ob=-0.5)
    for layer in model.stack_rnn.values():
        bounds = [layer.fc_x2fg.bias.max(), layer.fc_x2ig.bias.min(), layer.fc_x2og.bias.min()]
        np.testing.assert_allclose([bound.item() for bound in bounds], [0.25, -0.25, -0.5], rtol=0.1)
    assert (model.emb.weight == 0).all(1).tolist() == [id == PAD for id in range(9)]


def test_states_of_one_row_stand_for_all():
    """Given states of batch 1, forward, scripted too, pred and cal_loss return what the states repeated give."""
    model, ids = make_model(), torch.randint(3, 9, (3, 4))
    one = [torch.randn(1, 3, 2) for _ in range(2)], [torch.randn(1, 6) for _ in range(2)]
    each = [c.repeat(3, 1, 1) for c in one[0]], [h.repeat(3, 1) for h in one[1]]
    mixed = one[0], each[1]
    for states in (one, mixed):
        for run in (model, torch.jit.script(model), model.pred, lambda *given: model.cal_loss(given[0], ids, given[1])):
            expected = run(ids, each)
            torch.testing.assert_close(run(ids, states), expected)
            assert [len(tensor) for tensor in expected[1][0] + expected[1][1]] == [3] * 4


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


@pytest.mark.parametrize(("batch", "steps"), [(3, 0), (0, 4), (0, 0)])
def test_nothing_leaves_the_states_as_they_were(batch, steps):
    """No steps, or no rows, give empty logits and hand the states on."""
    model = make_model()
    states = [torch.randn(batch, 3, 2)] * 2, [torch.randn(batch, 6)] * 2
    for run in (model, torch.jit.script(model)):
        logits, following = run(torch.zeros(batch, steps, dtype=torch.int64), states)
        assert logits.shape == (batch, steps, 9)
        torch.testing.assert_close(following, states)


def test_whatever_it_makes_lies_where_its_weights_do():
    """On a device other than torch's default, logits, states and loss are made there; meta cannot mix with others."""
    model = make_model(p_emb=0.1, p_hid=0.1).to("meta").train()
    ids = torch.zeros(3, 5, dtype=torch.int64, device="meta")
    for run in (model, torch.jit.script(model), model.pred, lambda ids: model.cal_loss(ids, ids)):
        result, (cs, hs) = run(ids)
        assert all(tensor.is_meta for tensor in (result, *cs, *hs))


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
    with pytest.raises(ValueError, match=r"h_l1 must be \[2, 6\] or \[1, 6\], got \[3, 6\]"):
        model(ids, (cs, [hs[0], torch.zeros(3, 6)]))
    with pytest.raises(ValueError, match=r"\[2, 3\], got \[3, 2\]"):
        model.cal_loss(ids, ids.T)
