"""onnxruntime, told before it is loaded to send nothing home."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime
