"""The cells against vectors that array-lstm 0.0.1 produced."""

import pytest
import torch

import arraylstm

from ..devices import Chosen
from .golden import FAMILIES, Case, needs_golden, recorded

CELL_CASES = recorded(*FAMILIES)
NETWORK_CASES = recorded("mynetwork")


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@needs_golden
@pytest.mark.parametrize("name", CELL_CASES)
def test_outputs_and_final_states_are_the_references(name, dtype):
    """A layer with the reference's weights gives its outputs and final states, eager and scripted."""
    case = Case(name)
    inputs = case.tensors("input/", dtype)
    hidden = (inputs["hidden"], inputs["state"]) if "hidden" in inputs else None
    for layer in (case.layer(dtype), torch.jit.script(case.layer(dtype))):
        outputs, (h, c) = layer(inputs["x"], hidden)
        for key, actual in (("outputs", outputs), ("hidden", h), ("state", c)):
            case.check(actual, f"output64/{key}", dtype)


@needs_golden
@pytest.mark.parametrize("name", [name for name in CELL_CASES if "chunks" in name])
def test_states_between_chunks_are_the_references(name, dtype):
    """Fed in the recorded pieces with the state handed on, every state between pieces is the reference's."""
    case = Case(name)
    layer, x = case.layer(dtype), case.tensors("input/", dtype)["x"]
    inputs = case.tensors("input/", dtype)
    state = (inputs["hidden"], inputs["state"]) if "hidden" in inputs else None
    outputs = []
    for number, piece in enumerate(x.split(case.meta["chunks"], 1)):
        output, state = layer(piece, state)
        outputs.append(output)
        for key, actual in zip(("hidden", "state"), state, strict=True):
            case.check(actual, f"output64/chunk{number}/{key}", dtype)
    case.check(torch.cat(outputs, 1), "output64/outputs", dtype)


@needs_golden
@pytest.mark.parametrize("name", [name for name in CELL_CASES if "grad" in name])
def test_gradients_are_the_references(name, dtype):
    """The gradients of every parameter, of the input and of the initial state are the reference's."""
    case = Case(name)
    layer = case.layer(dtype)
    inputs = {key: tensor.requires_grad_() for key, tensor in case.tensors("input/", dtype).items()}
    hidden = (inputs["hidden"], inputs["state"]) if "hidden" in inputs else None
    outputs, (h, c) = layer(inputs["x"], hidden)
    weights = case.tensors("input/grad_weight/", dtype)
    loss = sum((out * weights[key]).sum() for key, out in (("outputs", outputs), ("hidden", h), ("state", c)))
    loss.backward()
    for key, parameter in layer.named_parameters():
        case.check(parameter.grad, f"grad64/param/{key}", dtype, room=10)
    for key in [key for key in ("x", "hidden", "state") if f"grad64/input/{key}" in case.arrays]:
        case.check(inputs[key].grad, f"grad64/input/{key}", dtype, room=10)


@needs_golden
@pytest.mark.parametrize("name", NETWORK_CASES)
def test_the_documentations_network_loads_and_predicts_the_same(name, tmp_path):
    """A MyNetwork state dict, as torch or safetensors file, gives the reference's log-probabilities."""
    case = Case(name)
    names = {"attention_soft": "attention", "attention_max": "attention-max"}
    cell = names.get(case.meta["lstm_family"], case.meta["lstm_family"])
    path = tmp_path / "network.pt"
    torch.save(case.tensors("param/", torch.float32), path)
    model = arraylstm.load(path, cell=cell).to(Chosen.device)
    logits, _ = model(case.ids("input/X"))
    case.check(logits[:, -1].log_softmax(-1), "output64/log_probs", torch.float32)
