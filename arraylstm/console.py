"""What the command line programs share: how a failure reaches the user, and with which exit status."""

import sys
from typing import NoReturn

from cyclopts import App

from arraylstm.errors import ArrayLSTMError

BAD_INPUT = 2


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
