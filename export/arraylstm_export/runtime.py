"""onnxruntime on one CPU thread, told before it is loaded to send nothing home."""

import os
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph from a file, or as it would stand in one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # spinning pools of several sessions and torch starve each other
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
