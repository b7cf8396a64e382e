"""Records: what is written is read again, and nothing else is."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from arraylstm_serve.stores.record import (
    FORMAT,
    HEADER,
    WRITES,
    Kept,
    Record,
    RecordError,
    Stamp,
    decode,
    encode,
    stamp_of,
    writes_of,
)

from .records import first

NATURALS = st.integers(0, 2**63 - 1)
TIMES = st.floats(0, 1e12)
TEXTS = st.text(max_size=20)
TENSORS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=st.floats(width=32)
)
RECORDS = st.builds(
    Record,
    key=TEXTS,
    incarnation=NATURALS,
    version=NATURALS,
    writes=st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=WRITES).map(tuple),
    model=TEXTS,
    step=NATURALS,
    tensors=st.dictionaries(TEXTS, TENSORS, max_size=4),
    recent=st.lists(TEXTS | st.integers(-(2**63), 2**63 - 1), max_size=64).map(tuple),
    answers=st.dictionaries(TEXTS, st.builds(Kept, st.binary(max_size=40), st.binary(max_size=40)), max_size=16),
    created=TIMES,
    last_used=TIMES,
    ended=TIMES,
    restored=st.booleans(),
    rebuilt=st.booleans(),
)


def same(one: Record, other: Record) -> bool:
    """Return whether two records say the same, to the bit."""
    fields = [name for name in Record.__struct_fields__ if name != "tensors"]
    pairs = zip(one.tensors.items(), other.tensors.items(), strict=True)
    return all(getattr(one, name) == getattr(other, name) for name in fields) and all(
        left == right and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for (left, a), (right, b) in pairs
    )


def resealed(data: bytes, offset: int, new: bytes) -> bytes:
    """Return a record's bytes with other bytes at an offset, and a checksum that fits them."""
    changed = data[:offset] + new + data[offset + len(new) :]
    return changed[:4] + zlib.crc32(changed[8:]).to_bytes(4, "little") + changed[8:]


@given(RECORDS)
def test_what_is_written_is_read_again(record: Record) -> None:
    """Every field of a record comes back, tensors to the bit, NaN and empty ones too."""
    data = encode(record)
    read = decode(record.key, data)
    assert same(read, record)
    assert (stamp_of(data[:HEADER]), writes_of(data[:HEADER])) == (record.stamp, record.writes)
    assert list(read.answers) == list(record.answers)


@pytest.mark.parametrize(
    "layout", [np.asfortranarray, lambda array: array.astype(">f4"), lambda array: array[::-1, ::2]]
)
def test_tensors_in_any_layout_are_written_row_by_row(layout: Any) -> None:
    """A tensor that is transposed, of the other byte order or a part of another keeps its values."""
    tensor = layout(np.arange(24, dtype=np.float32).reshape(4, 6))
    read = decode("s", encode(Record(key="s", incarnation=1, version=1, writes=(1,), tensors={"t": tensor})))
    np.testing.assert_array_equal(read.tensors["t"], tensor)


def test_a_records_bytes_begin_as_documented() -> None:
    """Magic, format, checksum, sizes, stamp and write ids lie where other programs look for them."""
    data = encode(Record(key="s", incarnation=7, version=8, writes=(9, 10)))
    magic, form, checksum, size, said = struct.unpack_from("<3sBIII", data)
    assert (magic, form, checksum, size) == (b"ALS", FORMAT, zlib.crc32(data[8:]), len(data))
    assert data[16:40] == Stamp(7, 8, 9).packed() == struct.pack("<QQQ", 7, 8, 9)
    assert struct.unpack_from("<16Q", data, 32) == (9, 10, *[0] * 14)
    assert msgspec.msgpack.decode(data[160 : 160 + said])[0] == "s"


def test_every_damaged_byte_is_refused() -> None:
    """Whatever value one byte of a record takes instead of its own, the record is refused and the session named."""
    data = encode(first("the-session"))
    for place in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(RecordError, match='session "the-session"'):
                decode("the-session", bytes(damaged))


@settings(max_examples=50)
@given(RECORDS, st.data())
def test_a_part_of_a_record_is_refused(record: Record, data: st.DataObject) -> None:
    """A record that is cut off, or has more bytes, is refused."""
    whole = encode(record)
    with pytest.raises(RecordError):
        decode(record.key, whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(RecordError, match="says that it has"):
        decode(record.key, whole + data.draw(st.binary(min_size=1, max_size=9)))


DATA = encode(first("s"))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "does not begin with ALS"),
        (b"\x80\x04pickle", "another program wrote it"),
        (DATA[:100], "is cut off: it has 100 bytes"),
        (DATA[:-1], f"has {len(DATA) - 1} bytes and says that it has {len(DATA)}"),
        (DATA[:3] + bytes([FORMAT + 1]) + DATA[4:], f"has format {FORMAT + 1}; this server reads format {FORMAT}"),
        (DATA[:-1] + b"\x55", "checksum does not match"),
        (encode(first("other")), 'is the record of session "other"'),
        (resealed(DATA, HEADER, b"\xc1"), "cannot be understood"),
        (resealed(DATA, 12, struct.pack("<I", 2**32 - 1)), "cannot be understood"),
        (resealed(DATA, HEADER, b"\x9c"), "cannot be understood"),  # one field more
        (resealed(DATA, DATA.index(b"logits") + 7, b"\x04"), "its tensors end at byte"),
    ],
    ids=[
        "empty",
        "foreign",
        "cut off",
        "a byte short",
        "another format",
        "damaged",
        "another session",
        "no description",
        "a description too long",
        "a field more",
        "a shape too small",
    ],
)
def test_a_refusal_names_the_session_and_the_fault(data: bytes, fault: str) -> None:
    """Damage, another program's value, a newer format and another session's record each have words of their own."""
    with pytest.raises(RecordError, match='^The record of session "s" .*' + fault):
        decode("s", data)
