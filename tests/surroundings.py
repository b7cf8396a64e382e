"""What tests and the programs that they start rely on, whatever the shell, user or CI has set."""

from __future__ import annotations

import os
import signal
import threading

UMASK = 0o022
_SET = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONUTF8": "1"}
_UNSET = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")
_UNSET_BEGINNING = "ARRAYLSTM_"
_PAST_PROXIES = ("no_proxy", "NO_PROXY")
_LOCAL = "localhost,127.0.0.1,::1"


def settle() -> None:
    """Set signals, the mask of files, language and time zone; unset widths, settings, and proxies to this machine."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background
    os.umask(UMASK)
    for name in list(os.environ):
        if name in _UNSET or name.startswith(_UNSET_BEGINNING):
            del os.environ[name]
    os.environ.update(_SET)
    for name in _PAST_PROXIES:
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), _LOCAL)))
