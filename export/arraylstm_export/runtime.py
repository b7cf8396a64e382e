"""onnxruntime on one CPU thread, with its telemetry switched off before it is loaded."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from arraylstm.errors import one_line
from arraylstm_export.errors import ExportError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime


def require_one_runtime() -> None:
    """Raise ExportError if onnxruntime and onnxruntime-gpu are both installed; either alone will do."""
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise ExportError(
            "onnxruntime and onnxruntime-gpu are both installed and hide each other; run "
            "`pip uninstall -y onnxruntime onnxruntime-gpu` and install the one you want again"
        )


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph from a file, or from the bytes of one.

    Raises:
        ExportError: onnxruntime cannot load it, perhaps because it is older than the graph's operator set.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several sessions and torch, each with spinning threads, starve each other
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes share no narrower base
        name = graph.name if isinstance(graph, Path) else "a graph"
        raise ExportError(
            f"onnxruntime {onnxruntime.__version__} cannot load {name}: {one_line(error)}. A lower --opset may help"
        ) from error
