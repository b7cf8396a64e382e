"""Rows of recurrent state, as two engines may differ in them."""

from arraylstm_serve.arrays import Floats
from arraylstm_serve.engine.base import LOGITS
from arraylstm_serve.engine.ranking import log_sum_exp


def normalised(name: str, values: Floats) -> Floats:
    """Return a tensor of rows; logits without the constant that each engine chooses."""
    return values - log_sum_exp(values)[:, None] if name == LOGITS else values
