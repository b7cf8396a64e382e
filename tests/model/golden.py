"""The recorded vectors of the reference implementations, and how near to them a result must be."""

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


def recorded(*families):
    """Return the names of the files of some families."""
    return sorted(path.name for family in families for path in GOLDEN.glob(f"{family}_*.npz"))
