"""The formats a model is written in: a row in `FORMATS` is all that bundle, parity checks and command line need."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from arraylstm_export.program import write_program
from arraylstm_export.runners import ProgramStep, Runner, SequenceGraph, Sequences, StepGraph, StepMethod
from arraylstm_export.signature import Interface
from arraylstm_export.source import Source
from arraylstm_export.torchscript import write_torchscript
from arraylstm_export.triton import MODEL, write_repository

STEP, SEQUENCE, TORCHSCRIPT, PROGRAM, TRITON = (
    "step.onnx",
    "sequence.onnx",
    "model.torchscript.pt",
    "model.pt2",
    "triton",
)


@dataclass(frozen=True)
class Format:
    """A way to write a model, and to run what was written.

    A form is named by the file that it is in, and, where there are several in one, a word on which it is.
    """

    write: Callable[[Source, Path], None]
    """Write the files into a bundle's folder."""
    forms: Callable[[Path, Interface], dict[str, Runner]]
    """Load what was written, form by form."""
    precisions: tuple[str, ...] = ("fp32",)
    """The precisions it can be written in."""


def form_file(form: str) -> str:
    """Return the file that a form is in."""
    return form.partition(" ")[0]


def _write_onnx(source: Source, folder: Path) -> None:
    onnx.save(source.step, folder / STEP)
    onnx.save(source.sequence, folder / SEQUENCE)


def _onnx_forms(folder: Path, interface: Interface) -> dict[str, Runner]:
    return {STEP: StepGraph(folder / STEP, interface), SEQUENCE: SequenceGraph(folder / SEQUENCE, interface)}


def _torchscript_forms(folder: Path, interface: Interface) -> dict[str, Runner]:
    scripted = torch.jit.load(folder / TORCHSCRIPT)  # type: ignore[no-untyped-call]
    return {TORCHSCRIPT: Sequences(scripted, interface), f"{TORCHSCRIPT} step": StepMethod(scripted, interface)}


_ALL = ("fp32", "fp16", "int8")

FORMATS: dict[str, Format] = {
    "onnx": Format(_write_onnx, _onnx_forms, _ALL),
    "torchscript": Format(
        lambda source, folder: write_torchscript(source.prepared, folder / TORCHSCRIPT), _torchscript_forms
    ),
    "pt2": Format(
        lambda source, folder: write_program(source.model, source.interface, folder / PROGRAM),
        lambda folder, interface: {PROGRAM: ProgramStep(folder / PROGRAM, interface)},
    ),
    "triton": Format(
        lambda source, folder: write_repository(source.step, source.interface, folder / TRITON),
        lambda folder, interface: {f"{TRITON}/{MODEL}": StepGraph(folder / TRITON / MODEL, interface)},
        _ALL,
    ),
}
