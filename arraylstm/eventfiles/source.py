"""The text of an event file, line by line. What is not UTF-8 text, plain or in gzip, is refused by name and place."""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from arraylstm.errors import DataError

_GZIP = b"\x1f\x8b"
_OTHER_FILES = {
    b"\xff\xfe\x00\x00": "UTF-32 text; save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; save it as UTF-8",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
    b"PK\x03\x04": "a zip archive or a spreadsheet's workbook; unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a document of an old office program; save the sheet as CSV",
    b"BZh91AY&SY": "packed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "packed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "packed with zstd; unpack it first",
    b"PAR1\x15": "a Parquet file; write it as CSV",
    b"SQLite format 3\x00": "an SQLite database; write the table as CSV",
    b"%PDF-": "a PDF document",
}
_LONGEST_SHOWN = 60


def shown(text: str) -> str:
    """Return a line as messages show it: quoted, without its end, and cut where it is long."""
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def read_text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends, without a byte order mark; the file is read once, so it may be a pipe.

    Raises:
        DataError: the file is not UTF-8 text, holds a NUL byte or a second byte order mark, or is damaged gzip.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.peek(16)
        for start, kind in _OTHER_FILES.items():
            if head.startswith(start):
                raise DataError(f"is not UTF-8 text but {kind}")
        if not head.startswith(_GZIP):
            yield from _decode(file)
            return
        try:
            yield from _decode(cast(BinaryIO, gzip.GzipFile(fileobj=file)))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"is a damaged or cut off gzip file: {error}") from None


def _decode(file: BinaryIO) -> Iterator[str]:
    offset = 0
    for number, raw in enumerate(_split(file), start=1):
        yield _decode_line(raw, number, offset)
        offset += len(raw)


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
