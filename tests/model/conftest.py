"""Where the tests of the modules run."""

import pytest
import torch

from ..devices import Chosen


@pytest.fixture(autouse=True, scope="module")
def on_the_chosen_device():
    """What a test constructs and draws lies on the chosen device; what it reads from files it moves there itself."""
    with torch.device(Chosen.device):
        yield
