"""What the client's errors mean: which may pass, and after which nobody knows what the server has done."""

from __future__ import annotations

from redis import exceptions

ANY = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Everything that a server or the way to it can raise."""

_LOST = (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError, OSError)
_NOT_LOST = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.BusyLoadingError)
"""Errors that the client calls those of a connection, though the server has answered."""

_PASSING = (
    exceptions.AskError,
    exceptions.BusyLoadingError,
    exceptions.ClusterError,
    exceptions.ReadOnlyError,
    exceptions.RedisClusterException,
    exceptions.TryAgainError,
)


def is_lost(result: object) -> bool:
    """Return whether a result is an error after which nobody knows if the server has carried out the command."""
    return isinstance(result, _LOST) and not isinstance(result, _NOT_LOST)


def is_missing(result: object) -> bool:
    """Return whether a server does not have our function: after FLUSHALL, or a failover to one that never had it."""
    return isinstance(result, Exception) and "function not found" in str(result).lower()


def is_torn(result: object) -> bool:
    """Return whether a result is an error because the call's slot moves and some of its keys have moved already.

    The client tries such a command again for a while, and then has another word for it.
    """
    return isinstance(result, exceptions.TryAgainError) or type(result) is exceptions.ClusterError


def is_refusal(error: Exception) -> bool:
    """Return whether the server does not accept the user or the password."""
    kinds = exceptions.AuthenticationError | exceptions.AuthorizationError
    return isinstance(error, kinds) or str(error).startswith(("NOAUTH", "WRONGPASS"))


def passes(result: object) -> bool:
    """Return whether a result is an error that may be over soon: a restart, a failover, a slot that moves."""
    if not isinstance(result, Exception):
        return False
    words = str(result)
    return is_lost(result) or is_missing(result) or isinstance(result, _PASSING) or words.startswith("BUSY ")
