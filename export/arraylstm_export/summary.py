"""What the command line shows of a bundle: its files with their sizes, differences and speeds, and what is in it."""

from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import numpy as np
from rich.table import Table

from arraylstm.console import make_table
from arraylstm_export.accuracy import Accuracy
from arraylstm_export.formats import FORMATS, form_file
from arraylstm_export.manifest import Manifest
from arraylstm_export.parity import Report
from arraylstm_export.report import verdict
from arraylstm_export.runners import Runner
from arraylstm_export.signature import Interface

_SECONDS, _STEPS = 0.05, 50


def files_table(manifest: Manifest, parity: Report) -> Table:
    """Return a row for every file that holds a form: its size, the largest difference, and the time of a step."""
    table = make_table("format", "file", "size", "difference", "a step", title=verdict(parity))
    for column in table.columns[2:]:
        column.justify = "right"
    for format in manifest.formats:
        forms = FORMATS[format].forms(manifest.folder, manifest.interface)
        for file in dict.fromkeys(map(form_file, forms)):
            run = next(run for form, run in forms.items() if form_file(form) == file)
            checks = [check.difference for check in parity.checks if form_file(check.form) == file]
            size = (manifest.folder / file).stat().st_size
            step = f"{seconds_per_step(run, manifest.interface) * 1e6:,.0f} µs"
            table.add_row(format, file, f"{size:,}", f"{max(checks):.1e}", step)
    table.caption, table.caption_justify = "a step: of one row, on one thread; sizes in bytes", "left"
    return table


def accuracy_table(accuracy: Accuracy) -> Table:
    """Return what a lower precision costs on held-out sessions."""
    table = make_table("", "fp32", "as written", title=f"On {accuracy.steps:,} held-out steps")
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

    return median(_timed(call)) / steps


def _timed(call: Callable[[], object]) -> Iterator[float]:
    call()
    begun = perf_counter()
    while True:
        before = perf_counter()
        call()
        yield perf_counter() - before
        if perf_counter() - begun > _SECONDS:
            return


def description(manifest: Manifest) -> Iterator[Table]:
    """Yield tables of what a bundle is: its model, its states and its files."""
    content = manifest.content
    facts = make_table("", "", title=f"Bundle {manifest.folder}")
    facts.show_header = False
    for name, value in content["model"].items():
        facts.add_row(name, str(value))
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    reached, allowed = content["tolerance"]["reached"], content["tolerance"]["allowed"]
    for name, value in (
        ("fingerprint", content["fingerprint"]),
        ("precision", content["precision"]),
        ("ONNX", f"opset {content['opset']}, IR version {content['ir_version']}"),
        ("parity", f"largest difference {reached:.1e}, {allowed:g} allowed"),
        ("written by", versions),
    ):
        facts.add_row(name, value)
    yield facts
    for file, signature in content["graphs"].items():
        table = make_table("", "name", "type", "shape", title=file)
        for kind in ("inputs", "outputs"):
            for tensor in signature[kind]:
                table.add_row(kind[:-1], tensor["name"], tensor["dtype"], str(tensor["shape"]).replace("'", ""))
        yield table
    files = make_table("file", "bytes", "sha256")
    for name, entry in content["files"].items():
        files.add_row(name, f"{entry['bytes']:>14,}", entry["sha256"][:16])
    yield files
