"""Running out of memory as one sentence that says what to lower."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from arraylstm.errors import ArrayLSTMError
from arraylstm.model import ItemModel
from arraylstm.training.options import TrainingOptions

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


class MemoryShortError(ArrayLSTMError):
    """There is not enough memory to train with these settings; the message says which to lower."""


@contextmanager
def explained(model: ItemModel, options: TrainingOptions) -> Iterator[None]:
    """Turn what torch raises for lack of memory into `MemoryShortError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        short = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not short and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise MemoryShortError(_advice(model, options)) from None


def _advice(model: ItemModel, options: TrainingOptions) -> str:
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    lower = [f"batch_tokens {options.batch_tokens}", f"bptt {options.bptt}"]
    if options.loss != "full":
        lower.append(f"negatives {options.negatives}")
    lower += [
        f"{name} {model.config[name]}" for name in ("hidden_size", "embedding_size", "k") if model.config.get(name)
    ]
    return (
        f"the {model.like().device.type} ran out of memory: weights take {weights / 1e6:,.0f} MB, and Adam twice that; "
        f"lower one of {', '.join(lower)}"
    )
