"""Serve an exported ArrayLSTM bundle over HTTP, with the recurrent state kept per session.

Data flows one way: `api` and `events` decode requests, `sessions` owns the table of sessions and hands each
turn's walk to `batcher`, which gathers rows from `arena`, runs the stateless `engine` and scatters the new
states back.

Glossary: B rows of a batch, V items of the vocabulary, slot a row of the arena, walk the items of one request
stepped one after the other, turn one request's place in its session's queue.
"""

from importlib.metadata import PackageNotFoundError, version

from arraylstm_serve.bundle import Bundle as Bundle
from arraylstm_serve.settings import Settings as Settings

try:
    __version__ = version("arraylstm")
except PackageNotFoundError:
    __version__ = "unknown"
