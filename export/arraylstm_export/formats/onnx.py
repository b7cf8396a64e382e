"""`step.onnx` and `sequence.onnx`, run with onnxruntime on the CPU."""

import platform
from collections.abc import Sequence
from pathlib import Path

import onnx

from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.runner import Runner, StepRunner, as_result
from arraylstm_export.graph.build import GraphBuilder
from arraylstm_export.interface import METADATA, Interface
from arraylstm_export.runtime import onnxruntime, session

MEASURED = ("x86_64", "AMD64")
"""The machines on which onnxruntime was measured to round a row in a batch as it does alone."""

FILES = STEP, SEQUENCE = "step.onnx", "sequence.onnx"


def write(graphs: GraphBuilder, folder: Path) -> None:
    """Write both graphs."""
    onnx.save(graphs.step, folder / STEP)
    onnx.save(graphs.sequence, folder / SEQUENCE)


def load(folder: Path, interface: Interface) -> dict[str, Runner]:
    """Load both graphs."""
    return {STEP: StepGraph(folder / STEP, interface), SEQUENCE: SequenceGraph(folder / SEQUENCE, interface)}


class StepGraph(StepRunner):
    """A step graph in onnxruntime on the CPU."""

    def __init__(self, path: Path, interface: Interface) -> None:
        super().__init__(interface)
        self.session = session(path)
        self.why_not_exact = _why_not_exact(self.session)
        self.exact_rows = self.why_not_exact is None
        self.inputs = [tensor.name for tensor in interface.step.inputs]

    def step(self, items: Array, state: Sequence[Array]) -> Result:
        """Consume one item per row."""
        feed = dict(zip(self.inputs, [items, *state], strict=True))
        return as_result(self.session.run(None, feed), self.interface)


class SequenceGraph(Runner):
    """A sequence graph in onnxruntime on the CPU."""

    needs_a_step = True

    def __init__(self, path: Path, interface: Interface) -> None:
        self.interface = interface
        self.session = session(path)
        self.why_not_exact = _why_not_exact(self.session)
        self.exact_rows = self.why_not_exact is None
        self.inputs = [tensor.name for tensor in interface.sequence.inputs]

    def __call__(self, items: Array, lengths: Array, state: Sequence[Array]) -> Result:
        """Run whole sequences in one call."""
        feed = dict(zip(self.inputs, [items, lengths, *state], strict=True))
        return as_result(self.session.run(None, feed), self.interface)


def _why_not_exact(loaded: onnxruntime.InferenceSession) -> str | None:
    """Return why onnxruntime may round a row in a batch otherwise than alone; None where it was measured not to."""
    if loaded.get_modelmeta().custom_metadata_map.get(f"{METADATA}precision") == "fp16":
        return "onnxruntime rounds fp16 by batch"
    if platform.machine() not in MEASURED:
        return f"this machine is {platform.machine()}, and onnxruntime's rounding was measured on x86-64 alone"
    return None
