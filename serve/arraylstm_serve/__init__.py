"""Serve an exported ArrayLSTM bundle over HTTP, with the recurrent state kept per session.

The rooms, from the highest to the lowest; a room imports only lower ones:

- `cli`, `server`: one process: its command line, sockets, connections, memory and logs.
- `application`: every endpoint in one FastAPI application.
- `open_inference`: the Open Inference Protocol under /v2.
- `http`: decodes requests into commands, and sends the answers.
- `sessions`: what a session is, whose turn it is, and what can be asked of it. It knows no HTTP.
- `engine`: rows of recurrent state, the step graph that advances them, batches, rankings.
- `bundle`: the exported model, read and verified.
- `api`: requests, answers and refusals as data, shared with `client`, which calls a server from elsewhere.

Glossary:

- B is the number of rows in a batch, V the number of items in the vocabulary.
- A slot is the number of a row in the engine; a row holds one session's recurrent state.
- A walk is the items of one request, which the engine steps one after the other from one slot to another.
- A turn is a command's place in its session's queue: a session's commands are carried out one by one.
- A change is the result of a turn: the session's next value, and the answer.
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
    """Import one of the server's classes on first use: the client installs without the packages that they need."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
