"""onnxruntime on one CPU thread, with its telemetry switched off before it is loaded."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

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
    """Load a graph from a file, or from the bytes of one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several sessions and torch, each with spinning threads, starve each other
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
