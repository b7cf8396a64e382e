"""Serve an exported ArrayLSTM bundle over HTTP, with the recurrent state kept per session.

The rooms, from the highest to the lowest; a room imports lower ones only:

- `cli`, `server`: one process: its command line, sockets, connections, memory and logs.
- `application`: every endpoint in one FastAPI application.
- `open_inference`: the Open Inference Protocol under /v2.
- `http`: requests decoded into commands, and answers sent.
- `sessions`: what a session is, whose turn it is, and what can be asked of it. It knows no HTTP.
- `engine`: rows of recurrent state, the step graph that moves them, batches, rankings.
- `bundle`: the exported model, read and verified.
- `api`: requests, answers and refusals as data, shared with `client`, which calls a server from elsewhere.

Glossary: B rows of a batch, V items of the vocabulary; a slot is a row of the engine; a walk is the items of one request,
stepped one after the other; a turn is a command's place in its session's queue.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arraylstm_serve.bundle.load import Bundle as Bundle
    from arraylstm_serve.settings import Settings as Settings

try:
    __version__ = version("arraylstm-serving")
except PackageNotFoundError:
    __version__ = "unknown"

_HOMES = {"Bundle": "arraylstm_serve.bundle.load", "Settings": "arraylstm_serve.settings"}


def __getattr__(name: str) -> Any:
    """The server's classes, imported when asked for: the client installs without what they need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
