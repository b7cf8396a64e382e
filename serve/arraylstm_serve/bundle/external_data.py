"""Find the files in which an ONNX graph keeps weights that are not in the graph's own file.

An ONNX file is a protobuf message. Only its structure is read here: the weights are skipped, so a file of 2 GB takes no
memory. The numbers of the fields are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""The parts of each kind of message that lead to a tensor, by the number of the field that holds them."""

KEY, VALUE, LOCATION = 1, 2, b"location"
"""A tensor's entries are pairs; the value of `location` is the path of the file, relative to the graph's folder."""

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
"""The forms of a field's value."""


def external_files(path: Path) -> set[bytes]:
    """Return the paths, as the graph states them, of the files that hold some of its weights.

    Raises:
        ValueError: the file is not a protobuf message.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return set()
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    found: set[bytes] = set()
    waiting = [("model", content)]
    while waiting:  # no recursion: a file may nest its messages as deeply as it likes
        kind, message = waiting.pop()
        if kind == "entry":
            pair = {number: bytes(value) for number, value in _fields(message)}
            if pair.get(KEY) == LOCATION:
                found.add(pair.get(VALUE, b""))
        else:
            parts = PARTS[kind]
            waiting += [(parts[number], part) for number, part in _fields(message) if number in parts]
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and value of each field whose value is bytes; skip the others.

    Raises:
        ValueError: the message is not well formed, or has a field in the obsolete form of a group.
    """
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        number, form = tag >> 3, tag & 7
        if form == BYTES:
            size, place = _varint(message, place)
            if place + size <= end:
                yield number, message[place : place + size]
        elif form == VARINT:
            size = _varint(message, place)[1] - place
        elif form in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if form == EIGHT_BYTES else 4
        else:
            size = end
        place += size
        if place > end or not 0 < tag < 1 << 32 or not number:
            raise ValueError(f"field {number} of form {form} ends at byte {place} of {end}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the integer that begins at a place, seven bits a byte, and the place after it.

    Raises:
        ValueError: the integer has more than ten bytes, or the message ends within it.
    """
    value = 0
    for shift, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise ValueError(f"the integer at byte {place} has no end")
