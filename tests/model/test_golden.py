"""The cells against vectors that array-lstm 0.0.1 produced."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import arraylstm

from ..devices import Chosen

FAMILIES = {
    "lstm": arraylstm.LSTM,
    "array": arraylstm.ArrayLSTM,
    "attention_soft": arraylstm.AttentionArrayLSTM,
    "attention_max": arraylstm.MaxAttentionArrayLSTM,
    "stochastic": arraylstm.StochasticArrayLSTM,
}
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
CELL_CASES = sorted(path.name for family in FAMILIES for path in GOLDEN.glob(f"{family}_*.npz"))
NETWORK_CASES = sorted(path.name for path in GOLDEN.glob("mynetwork_*.npz"))
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared) are not here")


class Case:
    """One golden file; tolerances follow from the reference's own float32 error, on another device 1e-5 at least."""

    def __init__(self, name):
        self.arrays = dict(np.load(GOLDEN / name))
        self.meta = json.loads(str(self.arrays["meta"]))
        self.float32_error = max(self.meta["max_abs_err_float32_vs_float64"].values())

    def tensors(self, prefix, dtype):
        return {
            key.removeprefix(prefix): torch.from_numpy(array).to(Chosen.device, dtype)
            for key, array in self.arrays.items()
            if key.startswith(prefix)
        }

    def ids(self, key):
        return torch.from_numpy(self.arrays[key]).to(Chosen.device)

    def check(self, actual, key, dtype, room=1.0):
        expected = torch.from_numpy(self.arrays[key])
        scale = room * max(1.0, expected.abs().max().item())
        float32 = max(4 * max(self.float32_error, 6e-8), 0.0 if Chosen.device == "cpu" else 1e-5)
        tolerance = scale * (1e-12 if dtype == torch.float64 else float32)
        torch.testing.assert_close(actual.detach().cpu().double(), expected.double(), rtol=0, atol=tolerance)

    def layer(self, dtype):
        wanted = {"input_size", "hidden_size"} | ({"k"} if self.meta["family"] != "lstm" else set())
        sizes = {key: value for key, value in self.meta["ctor"].items() if key in wanted}
        layer = FAMILIES[self.meta["family"]](**sizes).to(dtype).eval()
        layer.load_state_dict(self.tensors("param/", dtype))
        return layer


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
    """Every parameter's and input's gradient is the reference's, the initial state's among them."""
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
