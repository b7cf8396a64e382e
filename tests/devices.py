"""Where this run of the suite computes, models in torch and served ones alike: `pytest --device cuda` for the GPU."""

import pytest
import torch

CHOICES = ("cpu", "cuda")

same_bits = pytest.mark.cpu_only("the same bits in every batch are promised on the CPU alone")
"""CUDA's results may depend, below 1e-5, on the rows beside."""

checked_values = pytest.mark.cpu_only("item ids and lengths that lie on an accelerator are not read to be checked")
"""To read them would wait for it; there, an id out of range ends the process's use of the device."""


class Chosen:
    """The device, set before any test runs."""

    device = "cpu"


def choose(device: str) -> None:
    """Set the device, and torch to float32 throughout: for the oracle nn.LSTM, cuDNN's default is TF32.

    Raises:
        pytest.UsageError: CUDA is chosen and torch has none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"--device cuda: torch {torch.__version__} finds no CUDA device here")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    Chosen.device = device
