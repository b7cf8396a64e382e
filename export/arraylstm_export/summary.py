"""What the command line shows of an export: its files with their sizes, differences and speeds, and what they cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from rich.filesize import decimal
from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.accuracy import Accuracy
from arraylstm_export.formats import FORMATS, form_file
from arraylstm_export.manifest import Manifest
from arraylstm_export.parity import Report
from arraylstm_export.runners import Runner
from arraylstm_export.signature import Interface

_SECONDS, _STEPS = 0.05, 50
_WARM_UP = 3  # TorchScript profiles and compiles in its first calls


def files_table(manifest: Manifest, parity: Report) -> Table:
    """Return a row for every file that holds a form: its size, the largest difference, and the time of a step."""
    table = make_table("format", "file", "size", "largest difference", "time per step")
    for column in table.columns[2:]:
        column.justify = "right"
    for format in manifest.formats:
        forms = FORMATS[format].forms(manifest.folder, manifest.interface)
        for file in dict.fromkeys(map(form_file, forms)):
            run = next(run for form, run in forms.items() if form_file(form) == file)
            difference = max(check.difference for check in parity.checks if form_file(check.form) == file)
            step = f"{seconds_per_step(run, manifest.interface) * 1e6:,.0f} µs"
            table.add_row(format, file, _size(manifest.folder / file), f"{difference:.1e}", step)
    table.caption, table.caption_justify = "time per step: one row, one thread, this machine", "left"
    return table


def _size(path: Path) -> str:
    return decimal(path.stat().st_size)


def accuracy_table(accuracy: Accuracy) -> Table:
    """Return what a lower precision costs on held-out sessions."""
    table = make_table(f"on {accuracy.steps:,} held-out steps", "fp32", "as written")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in accuracy.rows():
        table.add_row(*row)
    return table


def seconds_per_step(run: Runner, interface: Interface) -> float:
    """Return the median time of one row's step, single or one of many in a call, whichever the form is made for."""
    single = getattr(run, "step", None)
    state = [np.zeros((1, *state.shape), np.float32) for state in interface.states]
    steps = 1 if single else _STEPS
    items, lengths = np.zeros((1, steps), np.int64), np.array([steps])

    def call() -> object:
        return single(items[:, 0], state) if single else run(items, lengths, state)

    with _one_thread():
        return median(_timed(call)) / steps


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold torch to what `runtime.session` holds onnxruntime to."""
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
