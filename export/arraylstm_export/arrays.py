"""The arrays that go into a form of the model and come out of it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

Result = tuple[list[Array], list[Array]]
"""What a run returns: the series, which are the logits (B, S, V) and then any diagnostics (B, S, ...), and the states.

A series is zero from a row's length on. A state (B, ...) is that of every row after its own length.
"""
