"""Where this run of the suite computes, models in torch and served ones alike: `pytest --device cuda` for the GPU.

`pytest --engine device` has the server's engine for the GPU run on the CPU.
"""

from contextlib import contextmanager

import pytest
import torch

DEVICES = ("cpu", "cuda")
ENGINES = ("host", "device")

same_bits = pytest.mark.host_only("the same bits in every batch are promised of the host's engine alone")
"""On a device, a row's result may depend on the other rows, by less than 1e-5."""

checked_values = pytest.mark.cpu_only("item ids and lengths that lie on an accelerator are not read to be checked")
"""To read them would wait for it; there, an id out of range ends the process's use of the device."""


class Chosen:
    """The device and the engine, set before any test runs."""

    device = "cpu"
    engine = "host"


def choose(device: str, engine: str | None) -> None:
    """Set the device and the engine, and torch to float32 throughout: for the oracle nn.LSTM, cuDNN's default is TF32.

    Raises:
        pytest.UsageError: CUDA is chosen and torch has none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"--device cuda: torch {torch.__version__} finds no CUDA device here")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    Chosen.device = device
    Chosen.engine = engine or ("host" if device == "cpu" else "device")


def unpromised() -> set[str]:
    """Return the marks of what the chosen device and engine do not promise."""
    holds = {"cpu_only": Chosen.device == "cpu", "host_only": Chosen.engine == "host"}
    return {mark for mark, held in holds.items() if not held}


@contextmanager
def draws_nothing():
    """See that the default device's generator of random numbers is left where it was."""
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    yield
    assert torch.equal(torch.rand(3), undisturbed)
