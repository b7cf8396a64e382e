"""What the command line programs share: how tables look, and how a failure reaches the user with which status."""

import sys
from typing import NoReturn

from cyclopts import App
from rich.box import SIMPLE_HEAD
from rich.table import Table

from arraylstm.errors import ArrayLSTMError

BAD_INPUT = 2


def make_table(*headings: str, title: str | None = None) -> Table:
    """Return an empty table narrow enough for a terminal of 80 columns."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def run(app: App) -> NoReturn:
    """Run a program and exit with the status it returns, 2 for bad input, 130 when interrupted; never a traceback."""
    try:
        sys.exit(app())
    except (ArrayLSTMError, ValueError, OSError) as error:
        print(f"{app.name[0]}: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print(f"{app.name[0]}: interrupted", file=sys.stderr)
        sys.exit(130)
