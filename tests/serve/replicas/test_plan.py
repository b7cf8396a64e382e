"""What each replica is told, and what is refused before one is started."""

from __future__ import annotations

import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve import cli
from arraylstm_serve.errors import StartupError
from arraylstm_serve.replicas import nginx, plan, supervisor
from arraylstm_serve.settings import Settings

from ..bundles import write_bundle
from ..commands import Refusal

REDIS = "redis://me:secret@localhost:6379/3?prefix=a"
OTHERS: dict[str, Any] = {
    "host": "::1",
    "uds": Path("/tmp/a folder/socket"),
    "root_path": "/predict",
    "forwarded_allow_ips": ("10.0.0.0/8", "fd00::1"),
    "device": "cpu",
    "sessions": REDIS,
    "ack": "memory",
    "unknown_items": "reject",
    "api_keys": Path("keys; rm -rf"),
    "admin_host": "0.0.0.0",
    "admin_keys": Path("kéys"),
    "public_metrics": "off",
    "cors_origin": ("https://shop.example", "http://localhost:3000"),
    "allowed_host": ("shop.example", "*.shop.example"),
    "docs": "off",
    "tls_certificate": Path("one.pem"),
    "tls_key": Path("two.pem"),
    "log_format": "json",
    "log_level": "debug",
}
"""Values of the settings that are no numbers, other than their defaults."""


def other(name: str, default: Any) -> Any:
    """Another value of a setting than its default."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(default, bool):
        return not default
    return 3_141_592 if name in {"max_answer_bytes", "max_body_bytes", "max_unread_bytes"} else 63


def as_read(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a server takes from its variables."""
    taken: list[Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: taken.append(settings))
    monkeypatch.setattr("sys.argv", ["arraylstm-serve", "bundle"])
    monkeypatch.setattr("os.environ", variables)
    assert cli.main() == 0
    return taken[0]


@pytest.mark.parametrize(
    "name", [field.name for field in fields(Settings) if field.name not in {"balancer", "replicas"}]
)
def test_every_setting_reaches_a_replica(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server takes from its variables the settings that were put into them, whatever their type."""
    settings = Settings(**{name: other(name, getattr(Settings(), name))})
    assert settings != Settings()
    assert as_read(plan.environment(settings, {}), monkeypatch) == settings


def test_a_replica_gets_its_own_settings_alone() -> None:
    """Variables of the operator's shell that are settings do not reach a replica; all others do."""
    inherited = {"PATH": "/bin", "ARRAYLSTM_REPLICAS": "2", "ARRAYLSTM_PORT": "1", "ARRAYLSTM_BUNDLE": "x"}
    assert plan.environment(Settings(port=8081), inherited) == {"PATH": "/bin", "ARRAYLSTM_PORT": "8081"}


def test_each_replica_has_its_own_places() -> None:
    """Ports go up by one; a path gets the replica's number; nothing else differs."""
    settings = Settings(replicas=3, sessions=REDIS, port=8000, admin_port=9000)
    each = [plan.replica_settings(settings, place, None) for place in range(3)]
    assert each == [Settings(sessions=REDIS, port=8000 + place, admin_port=9000 + place) for place in range(3)]
    sockets = Settings(replicas=2, uds=Path("run/socket"))
    assert [plan.replica_settings(sockets, place, None).uds for place in range(2)] == [
        Path("run/socket.0"),
        Path("run/socket.1"),
    ]


@pytest.mark.parametrize(
    ("given", "allowed", "refused"),
    [
        ({}, ["localhost", "a.localhost", "127.0.0.1", "10.1.2.3"], ["shop.example"]),
        ({"allowed_host": ("shop.example",)}, ["shop.example", "localhost"], ["other.example"]),
        ({"host": "0.0.0.0"}, ["shop.example"], []),
        ({"allowed_host": ("*",)}, ["shop.example"], []),
    ],
)
def test_behind_nginx_the_same_hosts_are_allowed(given: dict[str, Any], allowed: list[str], refused: list[str]) -> None:
    """A replica on a socket allows the names that one server at nginx's address would allow."""
    settings = Settings(replicas=2, sessions=REDIS, **given)
    for one in (settings, plan.replica_settings(settings, 1, Path("/sockets"))):
        assert all(one.hosts is None or one.hosts.allows(name.encode()) for name in allowed)
        assert not any(one.hosts is None or one.hosts.allows(name.encode()) for name in refused)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, '--replicas 2 needs a store that servers share, but --sessions "memory" belongs to one server'),
        ({"sessions": "sqlite:a.db"}, '--sessions "sqlite" belongs to one server; give --sessions redis://HOST:PORT'),
        ({"sessions": REDIS, "port": 0}, "give --port another one than 0"),
        ({"sessions": REDIS, "admin-port": 0}, "give --admin-port another one than 0"),
        ({"sessions": REDIS, "port": 65535, "balancer": "none"}, "--port 65535 leaves no port for each of 2 replicas"),
        ({"sessions": REDIS, "admin-port": 65535}, "give at most 65534"),
        ({"sessions": REDIS, "port": 8080, "admin-port": 8081, "balancer": "none"}, "are so close that replicas would"),
        ({"sessions": REDIS, "port": 8081, "admin-port": 8080}, "leave 2 between them"),
        ({"sessions": REDIS, "balancer": "nginx", "uds": "socket"}, "--uds is for a proxy of your own"),
        ({"sessions": REDIS, "balancer": "nginx", "root-path": "/a"}, "--root-path is for a proxy of your own"),
        ({"sessions": REDIS, "ack": "memory"}, "give --sticky if the balancer"),
        ({"sessions": REDIS, "max-sessions": 10**9}, "each of 2 replicas needs"),
    ],
)
def test_what_several_servers_cannot_have_is_refused(
    tmp_path: Path, refusal: Refusal, given: dict[str, Any], said: str
) -> None:
    """The refusal names the value and what to give instead, with status 2, and no password."""
    flags = [word for flag, value in given.items() for word in (f"--{flag}", str(value))]
    told = refusal(str(write_bundle(tmp_path / "bundle")), "--replicas", "2", *flags)
    assert said in told
    assert "secret" not in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("count", ["0", "65"])
def test_the_number_of_replicas_has_bounds(refusal: Refusal, count: str) -> None:
    """Fewer than 1 or more than 64 are refused, by flag, value and bound."""
    assert f'Invalid value "{count}" for --replicas.' in refusal("b", "--replicas", count, COLUMNS="200")


def test_a_balancer_needs_replicas(tmp_path: Path, refusal: Refusal) -> None:
    """--balancer nginx without --replicas would do nothing, and is refused."""
    assert "give --replicas too" in refusal(str(write_bundle(tmp_path / "bundle")), "--balancer", "nginx")


def test_nginx_is_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--balancer nginx says that there is none; auto and none go without."""
    monkeypatch.setattr(nginx.shutil, "which", lambda name, path=None: None)
    with pytest.raises(StartupError, match="needs nginx on the PATH; install it, or give --balancer none"):
        nginx.find(Settings(balancer="nginx"))
    assert nginx.find(Settings()) is None
    monkeypatch.setattr(nginx.shutil, "which", lambda name, path=None: "/here/nginx")
    assert nginx.find(Settings()) == "/here/nginx"
    assert nginx.find(Settings(balancer="none")) is None
    assert nginx.find(Settings(tls_certificate=Path("a.pem"))) is None


def test_the_site_is_the_one_in_deploy() -> None:
    """nginx gets the configuration in deploy/ with our servers, our address and our times, by session."""
    servers = [f"unix:/sockets/{place}" for place in range(3)]
    settings = Settings(request_timeout=120, keep_alive=10, replicas=3)
    ours = nginx.site(settings, "[::1]:8080", servers).splitlines()
    deploy = nginx.SITE.read_text().splitlines()
    new = [line for line in ours if line not in deploy]
    assert new == [
        "    hash $arraylstm_session consistent;",
        *(f'    server "{address}" max_fails=1 fail_timeout=5s;' for address in servers),
        "    keepalive_timeout 8s;       # less than the servers' --keep-alive, 75 s: so a server never closes first",
        "    listen [::1]:8080;",
        "    proxy_read_timeout 150s;      # more than --request-timeout, so that it is the server who answers",
    ]
    with pytest.raises(ValueError, match="has 0 lines like"):
        nginx.replaced("nothing", {"listen 80;": ""})


@pytest.mark.parametrize("name", ["plain", "two words", "a'b", 'a"b', "a{b}", "a;b#c", "a\\b"])
def test_nginx_takes_any_folder(name: str, tmp_path: Path) -> None:
    """nginx understands its configuration, whatever the folder of temporary files is called."""
    program = nginx.find(Settings())
    if program is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path / name
    folder.mkdir()
    text = nginx.configuration(Settings(), "127.0.0.1:8080", folder, [f"unix:{folder}/0", f"unix:{folder}/1"])
    (folder / "nginx.conf").write_text(text)
    command = [program, "-t", "-c", folder / "nginx.conf", "-p", folder, "-e", "stderr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_without_a_place_for_temporary_files_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a read-only file system the remedy is named, without a traceback."""

    def refuse(**options: object) -> None:
        raise FileNotFoundError("No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(supervisor, "TemporaryDirectory", refuse)
    with pytest.raises(StartupError, match="files: No usable .* name one with TMPDIR"), supervisor.own_folder():
        pytest.fail("there is a folder")


def test_supervised_alone_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to stop that came before anything was started ends it with status 0."""
    monkeypatch.setattr(supervisor, "record_signals", lambda: [15])
    assert supervisor.supervise(tmp_path, Settings(replicas=2)) == 0
