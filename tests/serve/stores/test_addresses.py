"""What `--sessions` may be, and what is said about the rest."""

from __future__ import annotations

import sys

import pytest

from arraylstm_serve.errors import StartupError
from arraylstm_serve.stores.open import open_store
from arraylstm_serve.stores.redis.address import parse

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://h", ("single", False, (("h", 6379),), None, 0, "", (None, None))),
        ("redis://h:1/", ("single", False, (("h", 1),), None, 0, "", (None, None))),
        ("valkeys://u:p@h:1/7", ("single", True, (("h", 1),), "u", 7, "", ("p", None))),
        ("rediss://:p%40%2F%3A%23%25@h", ("single", True, (("h", 6379),), None, 0, "", ("p@/:#%", None))),
        ("redis://u%3A1:p:q@[::1]:5", ("single", False, (("::1", 5),), "u:1", 0, "", ("p:q", None))),
        ("redis://p@q@h", ("single", False, (("h", 6379),), "p@q", 0, "", (None, None))),
        (
            "valkey+cluster://a:1,b,[::1]",
            ("cluster", False, (("a", 1), ("b", 6379), ("::1", 6379)), None, 0, "", (None,) * 2),
        ),
        ("rediss+cluster://a/0", ("cluster", True, (("a", 6379),), None, 0, "", (None, None))),
        ("redis+sentinel://a,b:1/main", ("sentinel", False, (("a", 26379), ("b", 1)), None, 0, "main", (None, None))),
        (
            "valkeys+sentinel://u:p@a/main/3?sentinel_password=s",
            ("sentinel", True, (("a", 26379),), "u", 3, "main", ("p", "s")),
        ),
    ],
)
def test_an_address_is_taken_apart(text: str, expected: tuple[object, ...]) -> None:
    """Scheme, user, password, hosts, ports, database and service are read, with characters written as %XX."""
    address = parse(text)
    found = (address.kind, address.tls, address.nodes, address.username, address.db, address.service, address.secrets())
    assert found == expected


def test_passwords_are_not_shown() -> None:
    """Neither the shown address nor its representation has a password, and texts lose them."""
    address = parse("redis+sentinel://u:hunter2@h/main?sentinel_password=swordfish&prefix=p")
    for text in (address.shown, repr(address), str(address), address.without_secrets("hunter2 swordfish")):
        assert "hunter2" not in text
        assert "swordfish" not in text
    assert address.shown == "redis+sentinel://h/main"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", 'The session store is ""; allowed are memory, sqlite:PATH, redis:'),
        ("Memory", '"Memory"; allowed are memory'),
        ("memory:", '"memory"; allowed are memory'),
        ("postgres://u:secret@h", 'is "postgres"; allowed are memory'),
        ("sqlite", "names no file; write sqlite:PATH"),
        ("sqlite:", "names no file; write sqlite:PATH"),
        ("sqlite:///tmp/x", "names no file; write sqlite:PATH"),
        ("redis:h:1", 'is "redis"; allowed are'),
        ("redisx://secret@h", 'kind is "redisx"; allowed are redis and valkey'),
        ("redis+clusters://h", 'kind is "redis+clusters"; allowed are'),
        ("redis://", "needs HOST or HOST:PORT"),
        ("redis://u:secret@", "needs HOST or HOST:PORT"),
        ("redis://h:0", "needs HOST or HOST:PORT"),
        ("redis://h:65536", "needs HOST or HOST:PORT"),
        ("redis://h:port", "needs HOST or HOST:PORT"),
        ("redis://u:secret:1@h@:5", "needs HOST or HOST:PORT"),
        ("redis://[::1", "is not a URL"),
        ("redis://u:secret]@h", "is not a URL"),
        ("redis://u:secret\u2100@h", "is not a URL"),
        ("redis://u:secret#x@h", 'has a "#"; write it as %23'),
        ("redis://u:12/secret@h", 'has an "@" after its first "/" or "?"; write "@"'),
        ("redis://u:1?secret=x@h", 'has an "@" after its first "/" or "?"; write "@"'),
        ("redis://a,b", "has 2 hosts; only redis+cluster and redis+sentinel take several"),
        ("redis://h/x", 'has the database "x"; allowed is a number'),
        ("redis://h/-1", 'has the database "-1"; allowed is a number'),
        ("redis://h/٣", "allowed is a number"),
        ("redis://h/0/1", 'has the database "0/1"; allowed is a number'),
        ("redis+cluster://h/1", "has the database 1; a cluster has only 0"),
        ("redis+sentinel://h", "needs the name of Sentinel's service"),
        ("redis+sentinel://h/main/x", 'has the database "x"'),
        ("redis://h?timeout=1", 'has the parameter "timeout"; allowed are prefix, ssl_ca_certs'),
        ("redis://h?prefix=a&prefix=b", 'has the parameter "prefix" twice'),
        ("redis://h?prefix", "needs NAME=VALUE pairs"),
        ("redis://h?prefix={a}", 'has the prefix "{a}"; allowed are 1 to 32 letters'),
        ("redis://h?prefix=", 'has the prefix ""; allowed are'),
        ("rediss://127.0.0.1:1?ssl_ca_certs=/no/such", "No such file"),
        ("redis://h?ssl_ca_certs=x", "encrypts nothing, so ssl_ca_certs has no meaning; write rediss or valkeys"),
        ("redis://h?sentinel_username=x", "has no Sentinel, so sentinel_username has no meaning"),
    ],
)
async def test_what_is_not_allowed_is_named(text: str, fault: str) -> None:
    """Whatever names no store is refused with its fault and what is allowed, and without what may be a password."""
    with pytest.raises(StartupError) as caught:
        await open_store(text, durable=True, ttl=1, timeout=0.2)
    assert fault in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_without_the_client_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package redis is not installed, the message says how to install it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("arraylstm_serve.stores.redis.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StartupError, match=r'pip install "arraylstm-serving\[redis\]"'):
        await open_store("redis://u:secret@h", durable=True, ttl=1)


async def test_memory_and_a_file_need_no_client() -> None:
    """The module that opens stores imports no client of Redis by itself."""
    store = await open_store("memory", durable=True, ttl=1)
    assert store.describe() == "memory"
