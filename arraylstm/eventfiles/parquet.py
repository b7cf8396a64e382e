"""Parquet files, read by pyarrow a batch of rows at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arraylstm.errors import DataError, one_line
from arraylstm.eventfiles.rows import BadRows, Column, Columns, Row, place
from arraylstm.eventfiles.source import needs_extra

_ROWS = 2**15
"""Rows to a batch, which bounds the memory that reading takes."""


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns; raises DataError as `read_parquet` does."""
    return list(_open(path).schema_arrow.names)


def read_parquet(path: Path, columns: Columns, bad: BadRows) -> Iterator[Row]:
    """Yield the rows of a Parquet file. Places are rows, from 1.

    Sessions and items are columns of text or integers; times may be numbers, dates or timestamps.

    Args:
        path: a file that can be read at any place, which a pipe can not.
        columns: the columns to read.
        bad: takes rows without a session or an item.

    Raises:
        DataError: pyarrow is not installed, the file is damaged, a column is missing, there twice or of another type,
            or there are too many bad rows.
    """
    file = _open(path)
    import pyarrow

    wanted = [column for column in columns if column is not None]
    for column in wanted:
        _check_type(column, file.schema_arrow.field(place(column, file.schema_arrow.names)).type, columns)
    number = 0
    try:
        for batch in file.iter_batches(_ROWS, columns=[column.name for column in wanted]):
            for values in zip(*(_texts(batch.column(column.name)) for column in wanted)):
                number += 1
                session, item, *time = values
                fault = columns.missing(session, item)
                if fault:
                    bad.leave_out(f"row {number} {fault}")
                else:
                    yield Row(f"row {number}", session, item, time[0] if time else None)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"cannot be read after row {number}: {one_line(error)}") from None


def _open(path: Path) -> Any:
    if not path.is_file():
        raise DataError("is a Parquet file, which can be read from a file alone, not from a pipe")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise needs_extra("a Parquet file") from None
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"is a damaged or cut off Parquet file: {one_line(error)}") from None


def _check_type(column: Column, kind: Any, columns: Columns) -> None:
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    text = types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
    number = types.is_floating(plain) or types.is_decimal(plain) or types.is_date(plain) or types.is_timestamp(plain)
    if not (text or types.is_integer(plain) or (column is columns.time and number)):
        allowed = "numbers, dates, timestamps or text" if column is columns.time else "text or integers"
        raise DataError(
            f"has in the column {column.name!r} values of type {kind}, not {allowed}: give another {column.flag}"
        )


def _texts(values: Any) -> list[str]:
    """Return the values of a column as text without blanks around it; what is missing is empty."""
    from pyarrow import compute, string, timestamp, types

    if types.is_timestamp(values.type) and values.type.tz:
        values = values.cast(timestamp(values.type.unit, "UTC"))
    return ["" if text is None else text.strip() for text in compute.cast(values, string()).to_pylist()]
