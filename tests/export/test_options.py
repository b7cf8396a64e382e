"""The options of an export."""

import pytest

from arraylstm_export import Coverage, ExportError, Options


@pytest.mark.parametrize(("precision", "formats"), [("fp32", ("onnx", "torchscript")), ("int8", ("onnx",))])
def test_the_formats_are_those_of_the_precision_unless_given(precision, formats):
    """Who asks for a precision need not know which formats lack it."""
    assert Options(precision=precision).formats == formats


def test_a_format_given_twice_is_written_once():
    """In the order of their first mention."""
    assert Options(format=("pt2", "onnx", "pt2")).formats == ("pt2", "onnx")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"format": ()}, "no format; known formats: onnx"),
        ({"format": ("onnx", "tf")}, "unknown format 'tf'; known: onnx"),
        ({"precision": "bf16"}, "unknown precision 'bf16'; known: fp32"),
        ({"precision": "fp16", "format": ("pt2",)}, "format 'pt2' can be written in fp32, not in 'fp16'"),
        ({"tolerance": float("nan")}, "tolerance must be a number above 0, got nan"),
        ({"tolerance": float("inf")}, "tolerance must be a number above 0, got inf"),
        ({"opset": 14}, "opset 14: graphs can be written in opset 15 to"),
    ],
)
def test_what_is_not_offered_is_refused(wrong, message):
    """The message names the value seen and what is allowed."""
    with pytest.raises(ExportError, match=message):
        Options(**wrong)


def test_a_run_without_steps_is_refused():
    """The longest run has one step at least."""
    with pytest.raises(ExportError, match="horizon must be at least 1, got 0"):
        Coverage(horizon=0)
