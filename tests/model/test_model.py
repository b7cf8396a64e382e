"""NextItemModel over every cell."""

import pytest
import torch

from arraylstm import CELLS, NextItemModel, Vocabulary

from ..devices import checked_values


@pytest.fixture(params=CELLS)
def model(request):
    torch.manual_seed(3)
    return NextItemModel(request.param, 11, 6, k=3, num_layers=2, embedding_size=5).eval()


def draw(model, batch=3, steps=6):
    items = torch.randint(0, model.num_items, (batch, steps))
    return items, [torch.randn(batch, *shape) for shape in model.state_shapes]


def test_steps_give_what_the_sequence_gives(model):
    """Item by item through step, logits and states equal one forward over the sequence."""
    items, state = draw(model)
    logits, last = model(items, state)
    for t in range(items.size(1)):
        step_logits, state = model.step(items[:, t], state)
        torch.testing.assert_close(step_logits, logits[:, t])
    torch.testing.assert_close(state, last)


def test_the_scripted_model_has_the_same_methods_and_results(model):
    """forward, step and initial_state survive scripting, for any batch and length."""
    scripted = torch.jit.script(model)
    for batch, steps in ((1, 1), (4, 9)):
        items, state = draw(model, batch, steps)
        torch.testing.assert_close(scripted(items, state), model(items, state))
        torch.testing.assert_close(scripted(items), model(items))
        torch.testing.assert_close(scripted.step(items[:, 0], state), model.step(items[:, 0], state))
    torch.testing.assert_close(scripted.initial_state(2), model.initial_state(2))


def test_states_are_named_and_left_untouched(model):
    """Every layer's states have a name and a shape; a call does not write to them."""
    shapes = [cell.state_shapes() for cell in model.cells.values()]
    assert model.state_names == [f"{name}_l{layer}" for layer in (0, 1) for name in shapes[layer]]
    assert model.state_shapes == [list(shape) for layer in (0, 1) for shape in shapes[layer].values()]
    items, state = draw(model)
    copies = [tensor.clone() for tensor in state]
    model(items, state)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(state, copies, strict=True))


def test_one_hot_input_is_an_identity_embedding(model):
    """embedding_size=None gives what an embedding of width V with the identity as its weight gives."""
    config = {**model.config, "num_layers": 1}
    one_hot = NextItemModel(**{**config, "embedding_size": None}).eval()
    embedded = NextItemModel(**{**config, "embedding_size": 11}).eval()
    embedded.load_state_dict({**one_hot.state_dict(), "embedding.weight": torch.eye(11)})
    items, _ = draw(model)
    torch.testing.assert_close(embedded(items), one_hot(items))


def test_a_row_stops_at_its_length_whatever_pads_it(model):
    """Logits and state of a row depend on its own items only; ids past its length are ignored."""
    items, state = draw(model)
    lengths = torch.tensor([4, 0, 6])
    items[0, 4:], items[1] = -1, 99
    logits, last, diagnostics = model.unroll_with_diagnostics(items, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        assert not any(diagnostic[row, length:].any() for diagnostic in diagnostics)
        expected, after = model(items[one, :length], [tensor[one] for tensor in state])
        torch.testing.assert_close(logits[one, :length], expected)
        assert not logits[one, length:].any()
        torch.testing.assert_close([tensor[one] for tensor in last], after)


def test_tied_scores_are_products_with_the_embeddings(model):
    """logits = E (W h + b) + b_V with E the embedding's weight, which learns from both ends; scripted alike."""
    tied = NextItemModel(**{**model.config, "tied": True}).eval()
    items, _ = draw(tied)
    h, _, _ = tied.cells.unroll(tied.embedding(items), tied.initial_state(3), None)
    expected = (h @ tied.linear.weight.t() + tied.linear.bias) @ tied.embedding.weight.t() + tied.bias
    torch.testing.assert_close(tied(items)[0], expected)
    torch.testing.assert_close(torch.jit.script(tied)(items)[0], expected)
    tied(items)[0][..., 0].sum().backward()
    assert tied.embedding.weight.grad[0].any()
    sizes = {key: list(weight.shape) for key, weight in tied.named_parameters() if not key.startswith("cells")}
    assert sizes == {"bias": [11], "embedding.weight": [11, 5], "linear.weight": [5, 6], "linear.bias": [5]}


def test_empty_batches_and_sequences_work(model):
    """B = 0 and S = 0 give empty logits."""
    assert model(torch.zeros(0, 4, dtype=torch.int64))[0].shape == (0, 4, 11)
    assert model(torch.zeros(3, 0, dtype=torch.int64))[0].shape == (3, 0, 11)


@checked_values
@pytest.mark.parametrize("id", [-1, 11])
def test_an_id_out_of_range_is_named(id):
    """Negative ids do not count from the end; the error names the id and the range, eager and scripted."""
    model = NextItemModel("array", 11, 4)
    for run in (model, torch.jit.script(model)):
        with pytest.raises((IndexError, torch.jit.Error), match=rf"item id {id} is outside 0\.\.10"):
            run(torch.tensor([[3, id]]))


@pytest.mark.parametrize(
    ("items", "state", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), None, r"items must be \(batch, steps\), got \[3\]"),
        (torch.zeros(3, 2), None, "items must be int64, got torch.float32"),
        (torch.zeros(3, 2, dtype=torch.int64), [torch.zeros(3, 4)], "state must be 2 tensors, got 1"),
        (
            torch.zeros(3, 2, dtype=torch.int64),
            [torch.zeros(3, 4), torch.zeros(3, 4)],
            r"state c_l0 must be \[3, 4, 4\], got \[3, 4\]",
        ),
    ],
)
def test_wrong_arguments_are_refused_by_name(items, state, message):
    """ValueError says what was given and what is needed."""
    with pytest.raises(ValueError, match=message):
        NextItemModel("array", 11, 4)(items, state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell": "gru"}, "unknown cell 'gru'"),
        ({"num_items": 0}, "num_items must be an integer of at least 1, got 0"),
        ({"num_layers": 0}, "num_layers must be an integer of at least 1, got 0"),
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"vocabulary": Vocabulary(["a"])}, "the vocabulary has 1 items, the model 11"),
        ({"tied": True}, "tied needs an embedding to tie the scores to; give an embedding_size"),
    ],
)
def test_wrong_configurations_are_refused_by_name(arguments, message):
    """ValueError says what was given and what is allowed."""
    with pytest.raises(ValueError, match=message):
        NextItemModel(**{"cell": "array", "num_items": 11, "hidden_size": 4, **arguments})


@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_acts_in_training_only(num_layers):
    """Two training passes differ, of one layer's outputs too, and two evaluation passes are equal."""
    model = NextItemModel("array", 11, 8, num_layers=num_layers, dropout=0.5)
    items, _ = draw(model)
    assert not torch.equal(model.train()(items)[0], model(items)[0])
    assert torch.equal(model.eval()(items)[0], model(items)[0])


def test_a_training_step_drops_what_a_sequence_of_one_drops():
    """With the same seed, `step` and `unroll` of one item give the same, dropout between the layers included."""
    model = NextItemModel("array", 11, 8, num_layers=3, dropout=0.5).train()
    items, _ = draw(model, steps=1)
    torch.manual_seed(1)
    expected, _ = model(items)
    torch.manual_seed(1)
    torch.testing.assert_close(model.step(items[:, 0])[0], expected[:, 0])


def test_tied_models_start_with_scores_of_the_usual_size():
    """Embeddings that score are drawn small, so that the first predictions are near to even."""
    torch.manual_seed(0)
    model = NextItemModel("array", 500, 64, embedding_size=64, tied=True)
    assert model(torch.randint(0, 500, (8, 5)))[0].abs().max() < 2
