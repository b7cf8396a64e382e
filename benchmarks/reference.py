"""Import array-lstm 0.0.1, the package that the cells are compared with, from a folder of its own.

Never install it beside ours: on a file system that ignores case, `arrayLSTM` and `arraylstm` are the same folder.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".reference"

sys.path.append(str(FOLDER))
try:
    import arrayLSTM as arrayLSTM  # type: ignore[import-untyped]
    from arrayLSTM import extensions as extensions
except ImportError as error:
    raise ImportError(f"array-lstm is not in {FOLDER.name}; `make {FOLDER.name}` puts it there") from error
