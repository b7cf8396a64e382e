"""onnxruntime, with its telemetry switched off before it is loaded."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime
