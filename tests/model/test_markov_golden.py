"""The Markov recurrent network against vectors that kLSTM.py produced."""

import pytest
import torch

from arraylstm import MarkovLSTM

from .golden import Case, needs_golden, recorded
from .markov_network import flat, inject

CASES = recorded("markov")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def build(case, dtype):
    model = MarkovLSTM(**case.meta["ctor"]).to(dtype)
    model.load_state_dict(case.tensors("param/", dtype))
    if not case.meta["is_training"]:
        return model.eval()
    return inject(model, case.tensors("input/", dtype)["gumbel"]).train()


def arguments(case, dtype):
    inputs = case.tensors("input/", dtype)
    s_t = (inputs["h_0"], inputs["c_0"]) if "h_0" in inputs else None
    return inputs["x"], case.meta["tau"], case.tensors("input/", torch.int64).get("length"), s_t


@needs_golden
@DTYPES
@pytest.mark.parametrize("name", CASES)
def test_all_it_returns_is_the_references(name, dtype):
    """With the reference's weights and noise every output and final state is its own, eager and scripted."""
    case = Case(name)
    for model in (build(case, dtype), torch.jit.script(build(case, dtype))):
        for key, actual in flat(model(*arguments(case, dtype))).items():
            case.check(actual, f"output64/{key}", dtype)


@needs_golden
@DTYPES
@pytest.mark.parametrize("name", [name for name in CASES if "chunks" in name])
def test_states_between_chunks_are_the_references(name, dtype):
    """Fed in the recorded pieces with the returned state handed on, every state between pieces is the reference's."""
    case = Case(name)
    model = build(case, dtype)
    x, tau, _, state = arguments(case, dtype)
    for number, piece in enumerate(x.split(case.meta["chunks"], 1)):
        *_, state = model(piece, tau, None, state)
        for key, actual in zip("hc", state, strict=True):
            case.check(actual.squeeze(0), f"output64/chunk{number}/{key}", dtype)
