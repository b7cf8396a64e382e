"""How long a form takes for a step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter

import numpy as np
import torch

from arraylstm_export.formats.runner import Runner, StepRunner
from arraylstm_export.interface import Interface

_SECONDS, _STEPS = 0.05, 50
_WARM_UP = 3  # TorchScript profiles and compiles in its first calls


def seconds_per_step(run: Runner, interface: Interface) -> float:
    """Return the median time of a step of one row, alone or within a sequence, as the form is meant to be used."""
    steps = 1 if isinstance(run, StepRunner) else _STEPS
    state = interface.start(1)
    items, lengths = np.zeros((1, steps), np.int64), np.array([steps])

    def call() -> object:
        return run.step(items[:, 0], state) if isinstance(run, StepRunner) else run(items, lengths, state)

    with _one_thread():
        return median(_timed(call)) / steps


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, as `runtime.session` does with onnxruntime."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _timed(call: Callable[[], object]) -> Iterator[float]:
    for _ in range(_WARM_UP):
        call()
    begun = perf_counter()
    while True:
        before = perf_counter()
        call()
        yield perf_counter() - before
        if perf_counter() - begun > _SECONDS:
            return
