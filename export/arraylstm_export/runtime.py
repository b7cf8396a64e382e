"""onnxruntime on one CPU thread, with its telemetry switched off before it is loaded."""

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph from a file, or from the bytes of one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several sessions and torch, each with spinning threads, starve each other
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
