"""The formats a model is written in: a row in `FORMATS` is all that the rest of the exporter needs.

| format      | file                     | for                                                                     |
|-------------|--------------------------|-------------------------------------------------------------------------|
| onnx        | step.onnx, sequence.onnx | arraylstm-serve, and onnxruntime or OpenVINO in any language            |
| torchscript | model.torchscript.pt     | libtorch: the model in C++, or in Python without this package           |
| pt2         | model.pt2                | torch.export.load and its compilers: one step, no whole sequences       |
| triton      | triton/                  | NVIDIA Triton, which keeps the state of every sequence                  |
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arraylstm_export.formats import onnx, pt2, torchscript, triton
from arraylstm_export.formats.runner import Runner
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.graph.precision import PRECISIONS
from arraylstm_export.interface import Interface


@dataclass(frozen=True)
class Format:
    """A way to write a model, and to run what was written.

    What can be run is called a form. Its name is the file that it is in, plus a word where one file holds several.
    """

    write: Callable[[GraphBuilder, Path], None]
    """Write the files into a bundle's folder."""
    load: Callable[[Path, Interface], dict[str, Runner]]
    """Load the forms from a bundle's folder."""
    files: tuple[str, ...]
    """The files that hold the forms."""
    precisions: tuple[str, ...] = ("fp32",)
    """The precisions it can be written in."""


FORMATS: dict[str, Format] = {
    "onnx": Format(onnx.write, onnx.load, onnx.FILES, tuple(PRECISIONS)),
    "torchscript": Format(torchscript.write, torchscript.load, torchscript.FILES),
    "pt2": Format(pt2.write, pt2.load, pt2.FILES),
    "triton": Format(triton.write, triton.load, triton.FILES, tuple(PRECISIONS)),
}


def load_forms(formats: Sequence[str], folder: Path, interface: Interface) -> dict[str, Runner]:
    """Load every form of the model that a bundle's folder holds."""
    return {form: run for name in formats for form, run in FORMATS[name].load(folder, interface).items()}


def form_file(form: str) -> str:
    """Return the file that a form is in."""
    return form.partition(" ")[0]
