"""`python -m arraylstm_serve` is `arraylstm-serve`."""

import sys

from arraylstm_serve.server.early import (
    drop_unwritable_output,
    ignore_signals,
    open_standard_streams,
    record_signals,
    show_any_text,
)


def main() -> int:
    """Run the command line. A signal to stop is heeded from here on: the imports alone take a second."""
    open_standard_streams()
    show_any_text()
    record_signals()
    from arraylstm_serve import cli

    try:
        return cli.main()
    finally:
        ignore_signals()
        drop_unwritable_output()


if __name__ == "__main__":
    sys.exit(main())
