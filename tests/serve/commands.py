"""The command `arraylstm-serve`, run to its end."""

from __future__ import annotations

import os
import subprocess
import sys


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "arraylstm_serve", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=False,
        timeout=60,  # one that serves after all does not end
    )
