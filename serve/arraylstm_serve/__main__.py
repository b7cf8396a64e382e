"""`python -m arraylstm_serve` is `arraylstm-serve`."""

import sys

from arraylstm_serve.cli import main

sys.exit(main())
