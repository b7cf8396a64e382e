"""The ONNX graphs of a model: made by torch, then edited."""
