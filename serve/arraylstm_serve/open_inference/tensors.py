"""Tensors of the Open Inference Protocol: in JSON, or as Triton's binary tensor data after it.

Binary data are little-endian, row by row. In a BYTES tensor a uint32 with its length comes before each element.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec import UNSET

from arraylstm_serve.api.problems import INVALID_REQUEST, Problem
from arraylstm_serve.api.schemas import encode
from arraylstm_serve.open_inference.schemas import AnswerParameters, BinaryData, InferAnswer, InputTensor, OutputTensor
from arraylstm_serve.text import shown

INT64, FP32, BYTES = "INT64", "FP32", "BYTES"
WIDTHS = {INT64: ("<i8", 8), FP32: ("<f4", 4)}
END_OF_JSON = b"\n"
"""Ends the JSON of an answer if binary data follow it. msgspec writes no newline into the JSON itself."""

Kind = TypeVar("Kind", int, str)

_length = struct.Struct("<I")


class Output(NamedTuple):
    """A tensor to return.

    Attributes:
        datatype: one of the protocol's.
        values: those of one row, in the matching type.
    """

    datatype: str
    values: Sequence[float] | Sequence[str] | np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """Split a body into its JSON and the binary data after it.

    Args:
        body: the whole body.
        header_length: the value of Inference-Header-Content-Length, if the request has it.

    Raises:
        Problem: `invalid_request`: the value is not a length within the body.
    """
    if header_length is None:
        return body, b""
    number = header_length.isascii() and header_length.isdecimal() and len(header_length) < 20
    if not number or int(header_length) > len(body):
        allowed = f"allowed are 0 to {len(body)}, the bytes of the body"
        raise _invalid(f"Inference-Header-Content-Length is {shown(header_length)}; {allowed}.")
    length = int(header_length)
    return body[:length], body[length:]


def count(tensor: InputTensor) -> int:
    """Return the number of items in an input of shape [n] or [1, n].

    Raises:
        Problem: `invalid_request`: it has another shape, or n is 0.
    """
    shape = tensor.shape
    if len(shape) == 2 and shape[0] > 1:
        raise _invalid(
            f"input {tensor.name} has shape {shape}: a request must have batch-size 1, because it belongs to one "
            "sequence; several items have shape [n] or [1, n]"
        )
    if not 1 <= len(shape) <= 2 or not math.prod(shape):
        raise _invalid(f"input {tensor.name} has shape {shape}; expected [n] or [1, n] with at least one item")
    return shape[-1]


def integers(tensor: InputTensor, binary: bytes, size: int) -> list[int]:
    """Return the elements of an INT64 input, `size` of them; binary is everything after the JSON.

    Raises:
        Problem: `invalid_request`.
    """
    data = _in_json(tensor, binary, size)
    if data is not None:
        return _all_of(int, tensor, data)
    dtype, width = WIDTHS[INT64]
    if len(binary) != width * size:
        raise _invalid(
            f"input {tensor.name} has binary_data_size {len(binary)}; its shape {tensor.shape} takes {width * size}"
        )
    unpacked: list[int] = np.frombuffer(binary, dtype).tolist()
    return unpacked


def texts(tensor: InputTensor, binary: bytes, size: int) -> list[str]:
    """Return the elements of a BYTES input, `size` of them; binary is everything after the JSON.

    Raises:
        Problem: `invalid_request`.
    """
    data = _in_json(tensor, binary, size)
    if data is not None:
        return _all_of(str, tensor, data)
    try:
        unpacked = [element.decode() for element in _elements(binary)]
    except ValueError as error:
        raise _invalid(f"input {tensor.name} is not a BYTES tensor of UTF-8: {error}") from None
    if len(unpacked) != size:
        raise _invalid(f"input {tensor.name} has {len(unpacked)} elements; its shape {tensor.shape} has {size}")
    return unpacked


def answer(
    model: str, version: str, request_id: str, outputs: Iterable[tuple[str, Output, bool]], unknown_items: int
) -> bytes:
    """Encode an InferAnswer, followed by the data of the outputs that were requested in binary.

    If there are any, the JSON ends with END_OF_JSON.

    Args:
        model: the model's name.
        version: its version.
        request_id: the id that the request gave itself.
        outputs: name, tensor, and whether it was requested in binary.
        unknown_items: how many items of the request were unknown.
    """
    tensors, following = [], []
    for name, output, binary in outputs:
        tensor = OutputTensor(name, output.datatype, [1, len(output.values)])
        if binary:
            data = _packed(output)
            tensor.parameters = BinaryData(len(data))
            following.append(data)
        else:
            values = output.values
            tensor.data = values.tolist() if isinstance(values, np.ndarray) else list(values)
        tensors.append(tensor)
    parameters = AnswerParameters(unknown_items) if unknown_items else UNSET
    head = encode(InferAnswer(model, version, tensors, request_id, parameters))
    return b"".join((head, END_OF_JSON, *following)) if following else head


def _in_json(tensor: InputTensor, binary: bytes, size: int) -> list[int | str] | None:
    """Return the elements in the JSON; None if they follow it."""
    if tensor.parameters.shared_memory_region is not UNSET:
        raise _invalid(f"input {tensor.name} is in shared memory; this server takes JSON and binary data only")
    promised = tensor.parameters.binary_data_size
    if (promised is UNSET) == (tensor.data is UNSET):
        raise _invalid(f"input {tensor.name} must have either data or the parameter binary_data_size")
    if (0 if promised is UNSET else promised) != len(binary):
        seen = f"{len(binary)} bytes follow the JSON that Inference-Header-Content-Length measures"
        told = "but no input has binary_data_size" if promised is UNSET else f"not binary_data_size {promised}"
        raise _invalid(f"input {tensor.name}: {seen}, {told}")
    if tensor.data is UNSET:
        return None
    flat = list(chain.from_iterable(entry if isinstance(entry, list) else (entry,) for entry in tensor.data))
    if len(flat) != size:
        raise _invalid(f"input {tensor.name} has {len(flat)} elements in data; its shape {tensor.shape} has {size}")
    return flat


def _elements(binary: bytes) -> Iterator[bytes]:
    """Iterate over the elements of a BYTES tensor."""
    place = 0
    while place < len(binary):
        start = place + _length.size
        if start > len(binary):
            raise ValueError(f"the length of an element has {len(binary) - place} bytes left, not {_length.size}")
        (length,) = _length.unpack_from(binary, place)
        place = start + length
        if place > len(binary):
            raise ValueError(f"an element of {length} bytes has {len(binary) - start} left")
        yield binary[start:place]


def _packed(output: Output) -> bytes:
    if output.datatype == BYTES:
        elements = [str(value).encode() for value in output.values]
        return b"".join(_length.pack(len(element)) + element for element in elements)
    return np.asarray(output.values, WIDTHS[output.datatype][0]).tobytes()


def _all_of(kind: type[Kind], tensor: InputTensor, data: list[int | str]) -> list[Kind]:
    """Return the elements; each must be of that type."""
    fitting = [value for value in data if isinstance(value, kind)]
    if len(fitting) < len(data):
        value = next(value for value in data if not isinstance(value, kind))
        raise _invalid(f"input {tensor.name} of datatype {tensor.datatype} has {shown(value)} in data")
    return fitting


def _invalid(detail: str) -> Problem:
    return Problem(INVALID_REQUEST, detail)
