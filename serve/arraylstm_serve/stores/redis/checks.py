"""What is asked of Redis or Valkey before the server starts: whether it can keep sessions, and how safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.redis import faults
from arraylstm_serve.stores.redis.function import LIBRARY
from arraylstm_serve.stores.redis.links import Link

SAFE_POLICY = "noeviction"
SETTINGS = ("maxmemory-policy", "appendonly", "appendfsync")
NEEDED = "+fcall +mget +getrange +set +del +info +function|load, and +config|get for the check of its persistence"
"""What an ACL user must be allowed."""


async def prepare(link: Link, shown: str, *, durable: bool) -> tuple[str, list[str]]:
    """Check each primary and load our function there.

    Args:
        link: the connections.
        shown: the address, without passwords.
        durable: whether answers wait for their commits, so that the store must not lose them.

    Returns:
        What the servers are and how they keep data, in a line; and warnings, a sentence each.

    Raises:
        StartupError: a server cannot keep sessions; the message has the remedy.
        RedisError: a server does not answer, or refuses something; see `refusal`.
    """
    versions = {_check_role(shown, _facts(info)) for info in (await link.everywhere("INFO")).values()}
    await link.everywhere("FUNCTION LOAD", "REPLACE", LIBRARY)
    try:
        found = [_pairs(answer) for answer in (await link.everywhere("CONFIG GET", *SETTINGS)).values()]
    except (NoPermissionError, ResponseError):
        unknown = f"The session store {shown} does not tell its settings. Make sure that nothing is evicted"
        return " and ".join(sorted(versions)), [f"{unknown} (maxmemory-policy noeviction) and appendonly is yes."]
    warnings = dict.fromkeys(warning for settings in found for warning in _warnings(shown, settings, durable=durable))
    facts = sorted({", ".join(f"{name} {settings.get(name)}" for name in SETTINGS) for settings in found})
    return f"{' and '.join(sorted(versions))} ({' / '.join(facts)})", [*warnings]


def refusal(shown: str, error: Exception, words: str) -> StartupError:
    """Return why a server cannot be used, with the remedy.

    Args:
        shown: the address, without passwords.
        error: what happened.
        words: the error's text, without passwords.
    """
    if faults.is_refusal(error):
        fault = f"refuses the user or the password: {words}"
    elif isinstance(error, NoPermissionError) or words.startswith("NOPERM"):
        fault = f"does not let this user do what is needed ({NEEDED}): {words}"
    elif "unknown command" in words.lower():
        fault = f"has no functions; Redis 7.0 or Valkey is needed: {words}"
    elif "cluster mode is not enabled" in words.lower() or "cluster support disabled" in words:
        fault = "is not a cluster: leave +cluster out"
    else:
        fault = f"cannot be {'reached' if isinstance(error, faults.ANY) else 'used'}: {words}"
    return StartupError(f"The session store {shown} {fault.rstrip('.')}.")


def text(value: Any) -> str:
    """Return the text of what a server answered."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _facts(info: Any) -> dict[str, str]:
    """Return what INFO says, parsed by the client or not."""
    if isinstance(info, Mapping):
        return {text(name): text(value) for name, value in info.items()}
    return dict(line.split(":", 1) for line in text(info).splitlines() if ":" in line)


def _check_role(shown: str, facts: dict[str, str]) -> str:
    """Return the name and version of a server, from its INFO.

    Raises:
        StartupError: it is not the kind of server that the address says.
    """
    if facts.get("role") == "slave":
        raise StartupError(f"The session store {shown} is a replica: name the primary, or use +sentinel or +cluster.")
    if facts.get("cluster_enabled") == "1" and "+cluster://" not in shown:
        raise StartupError(f"The session store {shown} is a cluster: write +cluster before ://.")
    name = "Valkey" if "valkey_version" in facts else "Redis"
    return f"{name} {facts.get('valkey_version') or facts.get('redis_version')}"


def _pairs(answer: Any) -> dict[str, str]:
    """Return settings by name, however the client returns them."""
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)
    return {text(name): text(value) for name, value in pairs}


def _warnings(shown: str, settings: dict[str, str], *, durable: bool) -> Iterator[str]:
    """Yield what weakens the promises of one server.

    Raises:
        StartupError: it may evict records whose commits were answered.
    """
    policy = settings.get("maxmemory-policy", SAFE_POLICY)
    if policy != SAFE_POLICY:
        fault = f"may evict sessions (maxmemory-policy {policy}); set it to {SAFE_POLICY}"
        if durable:
            raise StartupError(f"The session store {shown} {fault}, or use --ack memory.")
        yield f"The session store {shown} {fault}."
    if settings.get("appendonly") != "yes":
        yield f"The session store {shown} loses steps when it is killed (appendonly no); set appendonly to yes."
    elif settings.get("appendfsync") != "always" and durable:
        seconds = "the last second or two of" if settings.get("appendfsync") == "everysec" else "unwritten"
        fault = f"may lose {seconds} steps when its machine loses power (appendfsync {settings.get('appendfsync')})"
        yield f"The session store {shown} {fault}; always is the setting that loses none."
