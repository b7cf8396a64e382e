"""Serve an exported ArrayLSTM bundle over HTTP, with the recurrent state kept per session.

Data flows one way: `protocol` bounds what comes in, `api` hands it to `events`, `handlers`, `stream` and `oip`,
which decode it for `service`; `queues` gives each request its turn with its session, which `sessions` has in a table,
and hands the turn's walk to `batcher`, which steps `arena`'s slots, whose tensors the `engine` keeps and moves, in the
host's memory or, as `device_engine`, in a GPU's. `client` calls a server from elsewhere, and shares with it `schemas`
and `problems` alone.

Glossary: B rows of a batch, V items of the vocabulary, slot a row of the arena, walk the items of one request
stepped one after the other, turn one request's place in its session's queue.
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
