"""The content of an event file: its text line by line. What is not UTF-8 text, plain or packed, is refused by place."""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from arraylstm.errors import DataError

STDIN = Path("-")
PARQUET = b"PAR1"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_HEAD = 16
_OTHER_FILES = {
    b"\xff\xfe\x00\x00": "UTF-32 text; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive or a spreadsheet's workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a document of an old office program; save the sheet as CSV",
    b"BZh91AY&SY": "packed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "packed with xz; unpack it first",
    b"SQLite format 3\x00": "an SQLite database; write the table as CSV",
    b"%PDF-": "a PDF document",
}
_LONGEST_SHOWN = 60


def shown(text: str) -> str:
    """Return a line as messages show it: quoted, without its end, and cut where it is long."""
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


class Content:
    """The bytes of an event file, unpacked.

    Args:
        file: what they are read from.
        head: what they begin with; it is read from `file` again.
    """

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file = file
        self.is_parquet = head.startswith(PARQUET)

    def lines(self) -> Iterator[str]:
        """Yield the lines of a text with their ends, without a byte order mark; they can be read once.

        Raises:
            DataError: it is not UTF-8 text, holds a NUL byte or a second byte order mark, or is damaged gzip or zstd.
        """
        offset = 0
        for number, raw in enumerate(_split(self._file), start=1):
            yield _decode_line(raw, number, offset)
            offset += len(raw)


@contextmanager
def opened(path: Path) -> Iterator[Content]:
    """Open an event file, plain or packed with gzip or zstd; `-` is the standard input. It may be a pipe.

    Raises:
        DataError: it is of another kind, or packed and damaged; or zstd, which needs the extra `data`.
        OSError: it cannot be read.
    """
    with _standard_input() if path == STDIN else path.open("rb") as raw:
        file, head = _with_head(raw)
        if not head.startswith((_GZIP, _ZSTD)):
            yield _content(file, head)
            return
        kind = "gzip" if head.startswith(_GZIP) else "zstd"
        faults: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
        if kind == "gzip":
            unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file))
        else:
            zstd = _zstd()
            unpacked, faults = zstd.ZstdFile(file), (EOFError, zstd.ZstdError)
        try:
            file, head = _with_head(unpacked)
            if head.startswith(PARQUET):
                raise DataError(f"is a Parquet file packed with {kind}; unpack it first")
            yield _content(file, head)
        except faults as error:
            raise DataError(f"is a damaged or cut off {kind} file: {error}") from None


@contextmanager
def _standard_input() -> Iterator[BinaryIO]:
    """Give the standard input, and leave it open."""
    if sys.stdin is None:
        raise DataError("the standard input is closed")
    yield sys.stdin.buffer


def needs_extra(what: str) -> DataError:
    """Return the error for a kind of file whose reader is not installed."""
    return DataError(f'is {what}, which needs another package: pip install "arraylstm-serving[data]"')


def _zstd() -> Any:
    try:
        from backports import zstd
    except ImportError:
        raise needs_extra("packed with zstd") from None
    return zstd


class _Joined(io.RawIOBase):
    """A stream that begins with bytes which were read from it already."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, at most; return the number of bytes."""
        some = self._head[: len(buffer)] or self._rest.read1(len(buffer))
        self._head = self._head[len(some) :]
        buffer[: len(some)] = some
        return len(some)


def _with_head(file: Any) -> tuple[BinaryIO, bytes]:
    """Return a stream and what it begins with; a slow pipe gives its first bytes one by one."""
    head = file.read(_HEAD)
    return cast(BinaryIO, io.BufferedReader(_Joined(head, file), 2**16)), head


def _content(file: BinaryIO, head: bytes) -> Content:
    for start, kind in _OTHER_FILES.items():
        if head.startswith(start):
            raise DataError(f"is not UTF-8 text but {kind}")
    return Content(file, head)


def _split(file: BinaryIO) -> Iterable[bytes]:
    """Yield the lines that end with a line feed; in a file that has none, those that end with a carriage return."""
    first = file.readline()
    yield from [first] if first.endswith(b"\n") else re.findall(rb"[^\r]*\r|[^\r]+", first)
    yield from file


def _decode_line(raw: bytes, number: int, offset: int) -> str:
    if b"\0" in raw:
        place = f"line {number} holds a NUL byte, at offset {offset + raw.index(0)} of the text"
        raise DataError(f"{place}: it is not UTF-8 text but perhaps UTF-16, or no text at all")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        wrong = raw[error.start : error.start + 1]
        place = f"line {number} is not UTF-8 text: byte 0x{wrong.hex()} at offset {offset + error.start} of the text"
        guess = wrong.decode("cp1252", errors="replace")
        raise DataError(f"{place} would be {guess!r} in Windows-1252; save the file as UTF-8") from None
    if number == 1:
        text = text.removeprefix("\ufeff")
    if not text.isascii() and "\ufeff" in text:
        raise DataError(f"line {number} holds a second byte order mark, as files that were joined do: {shown(text)}")
    return text
