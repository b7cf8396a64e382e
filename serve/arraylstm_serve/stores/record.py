"""A session's record: the bytes in which a store keeps a session.

    offset  bytes
    0       3      "ALS"
    3       1      the format, FORMAT
    4       4      the CRC-32 of everything after it
    8       4      how many bytes the record has
    12      4      how many bytes the description has
    16      8      incarnation
    24      8      version
    32      128    the ids of the last 16 writes, newest first; 0 where there is none
    160            the description: what else the record says, in MessagePack
                   the tensors, float32, one after the other

Numbers are little-endian. Incarnation, version and write ids have a fixed place, so that a store can compare them
without MessagePack. Incarnation, version and the newest write id are the record's stamp. CRC-32 finds every damage of
up to 32 neighbouring bits, and is the fastest checksum that Python has (3 us for 7 kB). It protects against damaged
disks, not against people.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from math import prod
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec import Struct

from arraylstm_serve.api.schemas import Item
from arraylstm_serve.arrays import Floats
from arraylstm_serve.text import shown

FORMAT = 1
"""The format of records that this server writes, and the only one that it reads."""

WRITES = 16
"""How many of a session's last writes its record names."""

_MAGIC = b"ALS"
_START = struct.Struct("<3sBI")
_NUMBERS = struct.Struct(f"<II2Q{WRITES}Q")
_FLOAT = np.dtype("<f4")
_STAMP = struct.Struct("<QQQ")
_WRITES = struct.Struct(f"<{WRITES}Q")
_STAMP_AT = 16
_WRITES_AT = 32
HEADER = _START.size + _NUMBERS.size
"""How many bytes of a record have a fixed place."""


class RecordError(ValueError):
    """A record cannot be read; the message names the session and says what is wrong."""


class Stamp(NamedTuple):
    """Names one value of a session: no two values of a session have the same stamp.

    Attributes:
        incarnation: 63 random bits, drawn when the session began.
        version: how often the session has changed since. After a store has lost writes, a version can come again.
        write: the id of the last write, which does not come again; 0 if nothing is written.
    """

    incarnation: int
    version: int
    write: int

    def packed(self) -> bytes:
        """Return the stamp (24 bytes) as it lies in a record."""
        return _STAMP.pack(*self)


class Kept(Struct, frozen=True, gc=False, array_like=True):
    """The answer to a request with an idempotency key.

    Attributes:
        digest: the SHA-256 of what was requested.
        answer: the encoded answer.
    """

    digest: bytes
    answer: bytes


class Record(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that outlives the server of one session. Times are in seconds since the epoch.

    Attributes:
        key: the session's name in the server.
        incarnation: 63 random bits, drawn when the session began.
        version: how often the session has changed since it began.
        writes: the ids of the last writes, newest first, 1 to 16; see `new_write`. A write that is sent again is known
            by its id, even if other writes have followed it.
        model: the fingerprint of the model that made the state; empty if the session has ended.
        step: how many items the session has consumed.
        tensors: float32 tensors by name: the state's, and the logits of the last step.
        recent: the labels of its last items, oldest first.
        answers: the answers under its last idempotency keys, oldest first.
        created: when it began.
        last_used: when it was last used.
        ended: when it ended; 0 if it has not.
        restored: whether a client gave it its state and it has consumed no item since.
        rebuilt: whether its last items were replayed through another model and it has consumed no item since.
    """

    key: str
    incarnation: int
    version: int
    writes: tuple[int, ...]
    model: str = ""
    step: int = 0
    tensors: dict[str, Floats] = {}
    recent: tuple[Item, ...] = ()
    answers: dict[str, Kept] = {}
    created: float = 0.0
    last_used: float = 0.0
    ended: float = 0.0
    restored: bool = False
    rebuilt: bool = False

    @property
    def stamp(self) -> Stamp:
        """The record's stamp."""
        return Stamp(self.incarnation, self.version, self.writes[0] if self.writes else 0)


class _Description(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """What a record says beside its header and its tensors' numbers. A change of it is a new FORMAT."""

    key: str
    model: str
    step: int
    shapes: dict[str, tuple[int, ...]]
    recent: tuple[Item, ...]
    answers: dict[str, Kept]
    created: float
    last_used: float
    ended: float
    restored: bool
    rebuilt: bool


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Description)


def new_write() -> int:
    """Return an id for a write: 63 random bits, not 0."""
    return secrets.randbits(63) or 1


def encode(record: Record) -> bytes:
    """Return the bytes of a record."""
    tensors = [np.ascontiguousarray(tensor, _FLOAT) for tensor in record.tensors.values()]
    description = _encoder.encode(_describe(record))
    size = HEADER + len(description) + sum(tensor.nbytes for tensor in tensors)
    writes = (*record.writes, *[0] * (WRITES - len(record.writes)))
    numbers = _NUMBERS.pack(size, len(description), record.incarnation, record.version, *writes)
    parts: list[bytes | memoryview] = [numbers, description, *[tensor.data for tensor in tensors]]
    checked = b"".join(parts)
    return _START.pack(_MAGIC, FORMAT, zlib.crc32(checked)) + checked


def decode(key: str, data: bytes) -> Record:
    """Return the record that a store has under a key. Its tensors are read-only views of the bytes.

    Raises:
        RecordError: the bytes are damaged, cut off, of another format, or not the record of this session.
    """
    description_size = _checked(key, data)
    end = HEADER + description_size
    try:
        said = _decoder.decode(memoryview(data)[HEADER:end])
        tensors = _tensors(data, end, said.shapes)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _refusal(key, f"cannot be understood: {error}") from None
    if said.key != key:
        raise _refusal(key, f"is the record of session {shown(said.key)}")
    return Record(
        key=key,
        incarnation=(stamp := stamp_of(data)).incarnation,
        version=stamp.version,
        writes=writes_of(data),
        model=said.model,
        step=said.step,
        tensors=tensors,
        recent=said.recent,
        answers=said.answers,
        created=said.created,
        last_used=said.last_used,
        ended=said.ended,
        restored=said.restored,
        rebuilt=said.rebuilt,
    )


def stamp_of(data: bytes) -> Stamp:
    """Return the stamp of a record's bytes, or of its first HEADER bytes; nothing else is read.

    What a record that was cut off lacks counts as zeros.
    """
    return Stamp(*_STAMP.unpack_from(_headed(data), _STAMP_AT))


def writes_of(data: bytes) -> tuple[int, ...]:
    """Return the write ids of a record's bytes, or of its first HEADER bytes, newest first; see `stamp_of`."""
    return tuple(write for write in _WRITES.unpack_from(_headed(data), _WRITES_AT) if write)


def _headed(data: bytes) -> bytes:
    """Return bytes that are as long as a header at least."""
    return data if len(data) >= HEADER else data.ljust(HEADER, b"\0")


def _describe(record: Record) -> _Description:
    return _Description(
        record.key,
        record.model,
        record.step,
        {name: tensor.shape for name, tensor in record.tensors.items()},
        record.recent,
        record.answers,
        record.created,
        record.last_used,
        record.ended,
        record.restored,
        record.rebuilt,
    )


def _checked(key: str, data: bytes) -> int:
    """Return how many bytes the description has.

    Raises:
        RecordError: the bytes are damaged, cut off or of another format.
    """
    if not data.startswith(_MAGIC):
        raise _refusal(key, f"does not begin with {_MAGIC.decode()}: another program wrote it, or it is damaged")
    if len(data) < HEADER:
        raise _refusal(key, f"is cut off: it has {len(data)} bytes, fewer than a record's header")
    _, form, checksum = _START.unpack_from(data)
    size, description_size, *_ = _NUMBERS.unpack_from(data, _START.size)
    if form != FORMAT:
        raise _refusal(key, f"has format {form}; this server reads format {FORMAT}")
    if size != len(data):
        raise _refusal(key, f"is damaged: it has {len(data)} bytes and says that it has {size}")
    if zlib.crc32(memoryview(data)[_START.size :]) != checksum:
        raise _refusal(key, "is damaged: its checksum does not match")
    return int(description_size)


def _tensors(data: bytes, offset: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Return the tensors from an offset to the end; ValueError if they are not all that is there."""
    tensors = {}
    for name, shape in shapes.items():
        count = prod(shape)
        tensors[name] = np.frombuffer(data, _FLOAT, count, offset).reshape(shape)
        offset += 4 * count
    if offset != len(data):
        raise ValueError(f"its tensors end at byte {offset} of {len(data)}")
    return tensors


def _refusal(key: str, fault: str) -> RecordError:
    return RecordError(f"The record of session {shown(key)} {fault}.")
