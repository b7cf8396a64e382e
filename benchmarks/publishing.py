"""What a script over servers and stores does with its tables; durable, replicas, losses and million share this."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from load import LoadError
from report import Table, output, show, write_json
from servers import ServerError

PACKAGES = ("onnxruntime", "redis", "uvicorn", "uvloop", "msgspec")


def published(script: str, tables: Iterable[Table], sizes: Any, json: Path | None) -> list[Table] | None:
    """Show each table as soon as it is made, and write all of them as JSON.

    Args:
        script: its name, for the message.
        tables: they are made one by one.
        sizes: the dataclass of settings, for the JSON.
        json: the file to write; None writes none.

    Returns:
        All tables; None if a server failed, which was said.
    """
    out = output()
    made: list[Table] = []
    try:
        for table in tables:
            made.append(table)
            show(table, out)
    except (ServerError, LoadError) as error:
        out.print(f"{script}: {error}", style="red")
        return None
    if json:
        write_json(json, asdict(sizes), PACKAGES, made)
    return made
