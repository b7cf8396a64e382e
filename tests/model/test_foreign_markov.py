"""State dicts of kLSTM.py: a Markov network over one-hot items becomes a next-item model."""

import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from arraylstm import CheckpointError, MarkovLSTM, load
from arraylstm_export.cli import app

V, H = 7, 5


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What files hold is read to the CPU, and compared there."""


@pytest.mark.parametrize(("layers", "use_bias"), [(1, True), (3, True), (2, False)])
def test_a_markov_network_over_one_hot_items_answers_after_every_item(layers, use_bias, saved):
    """The logits after each item, and the states, are MarkovLSTM's for the items so far, with and without biases."""
    torch.manual_seed(5)
    network = MarkovLSTM(V, H, V, num_layers=layers, k_cells=3, use_bias=use_bias).double().eval()
    for weight in network.parameters():
        weight.data.mul_(2)
    model = load(saved(network.state_dict()))
    assert model.config["k"] == 3
    items = torch.randint(0, V, (4, 9))
    x, state = F.one_hot(items, V).double(), None
    logits, _ = model(items)
    for t in range(9):
        expected, *_, (h, c) = network(x[:, : t + 1])
        stepped, state = model.step(items[:, t], state)
        torch.testing.assert_close(logits[:, t], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.stack(state), torch.stack([h, c], 1).flatten(0, 1), rtol=0, atol=1e-12)


def test_a_markov_network_is_exported_with_its_diagnostics(saved, tmp_path):
    """From kLSTM.py's weights to a verified bundle whose graphs show q_z is one command."""
    torch.manual_seed(7)
    network = MarkovLSTM(V, H, V, k_cells=3, use_bias=False).eval()
    assert (
        app([str(saved(network.state_dict())), "-o", str(tmp_path / "bundle"), "--diagnostics", "--horizon", "50"]) == 0
    )
    graph = onnxruntime.InferenceSession(tmp_path / "bundle" / "sequence.onnx", providers=["CPUExecutionProvider"])
    items = torch.randint(0, V, (2, 6))
    feeds = {name: torch.zeros(2, H).numpy() for name in ("state_h_l0", "state_c_l0")}
    feeds |= {"items": items.numpy(), "lengths": torch.tensor([6, 6]).numpy()}
    logits, q_z = map(torch.from_numpy, graph.run(["logits", "q_z_l0"], feeds))
    output, _, expected, _, _ = network(F.one_hot(items, V).float())
    torch.testing.assert_close(logits[:, -1], output, rtol=0, atol=1e-5)
    torch.testing.assert_close(q_z, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "removed", "message"),
    [
        (
            (V, H, 2),
            (),
            r"maps vectors of 7 numbers to 2 outputs \(cell_0.W_xz \[7, 2\], fc.bias \[2\]\); .* not served",
        ),
        ((V, H, V), ("fc.weight", "cell_0.W_hz"), "is no MarkovLSTM state dict: it lacks cell_0.W_hz, fc.weight"),
        ((V, H, V), ("cell_1.b_xz",), "cells.1.b_xz"),
        ((V, H, V, 3), ("cell_1.W_hz",), "cells.1.W_hz"),
    ],
)
def test_other_markov_networks_are_refused_by_what_they_are(sizes, removed, message, saved):
    """A classifier over vectors is no next-item model, and what is half there is not made up."""
    weights = MarkovLSTM(*sizes[:3], num_layers=2).state_dict()
    with pytest.raises(CheckpointError, match=message):
        load(saved({key: tensor for key, tensor in weights.items() if key not in removed}))
