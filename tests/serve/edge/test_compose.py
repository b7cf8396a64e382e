"""deploy/compose.yaml: what it sets is real and fits together, and its Valkey is one that a store accepts."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve.proxies import Proxies
from arraylstm_serve.settings import NAMES, Settings
from arraylstm_serve.stores.open import open_store

from ..stores.servers import served
from .manifests import Configure, documents
from .manifests import configure as configure
from .proxies import DEPLOY

SERVERS = ("one", "two")


@pytest.fixture
def project() -> dict[str, Any]:
    """The file as data."""
    return documents("compose.yaml")[0]


def test_compose_understands_the_file(tmp_path: Path) -> None:
    """`docker compose config` accepts it, and misses the bundle if it is not named."""
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    named = os.environ | {"BUNDLE": str(tmp_path)}
    assert subprocess.run(command, env=named, capture_output=True, text=True).stderr == ""
    assert "the folder of the exported model" in subprocess.run(command, capture_output=True, text=True).stderr


def test_the_servers_settings_are_real(project: dict[str, Any], configure: Configure) -> None:
    """Both servers share the Valkey of the file, believe nginx's network alone, and have time to stop."""
    one, two = (project["services"][name] for name in SERVERS)
    assert one == two
    settings = configure(one["environment"])
    assert settings.sessions == "redis://valkey:6379/0"
    subnet = ipaddress.ip_network(project["networks"]["front"]["ipam"]["config"][0]["subnet"])
    believed = Proxies(settings.forwarded_allow_ips)
    assert believed.include(str(subnet[5]))
    assert not believed.include(str(subnet[-1] + 1))
    assert settings.admin_port
    assert int(one["stop_grace_period"].removesuffix("s")) >= settings.shutdown_timeout + 5
    assert (one["read_only"], one["cap_drop"]) == (True, ["ALL"])


def test_every_name_in_it_is_there(project: dict[str, Any]) -> None:
    """nginx's servers, the services waited for, networks, volumes and files all exist."""
    services = project["services"]
    site = (DEPLOY / "nginx-replicas.conf").read_text()
    assert sorted(re.findall(r"^    server (\w+):8080", site, re.MULTILINE)) == sorted(SERVERS)
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[needed] or services[needed]["image"] == "arraylstm"  # it has its own
        assert set(service["networks"]) <= set(project["networks"]), name
        for volume in service["volumes"]:
            source = volume.rsplit(":", 2)[0] if volume.endswith(":ro") else volume.split(":")[0]
            assert source in project["volumes"] or source.startswith("${BUNDLE") or (DEPLOY / source).is_file()
    assert services["valkey"]["networks"] == ["back"]
    assert set(services["one"]["networks"]) == {"front", "back"}
    assert services["nginx"]["ports"] == ["8080:80"]


@pytest.mark.anyio
async def test_its_valkey_is_as_durable_as_it_can_be(project: dict[str, Any]) -> None:
    """A Valkey with the flags of the file is opened without a warning, where answers wait for their commits."""
    program, *flags = project["services"]["valkey"]["command"]
    assert program == "valkey-server"
    with served("valkey", *flags) as server:
        store = await open_store(f"redis://{server.address}/0", durable=True, ttl=100)
        assert store.warnings == []
        assert "appendfsync always" in store.describe()
        await store.close()


@pytest.mark.parametrize("name", ["nginx.conf", "nginx-replicas.conf", "haproxy.cfg", "haproxy-replicas.cfg"])
def test_the_flags_named_beside_a_balancer_are_real(name: str, configure: Configure) -> None:
    """The command in a configuration's first comment is one that the server takes."""
    head = (DEPLOY / name).read_text().replace("\\\n#", "")
    command = re.search(r"^#\s+arraylstm-serve BUNDLE (.*)$", head, re.MULTILINE)
    assert command
    settings = configure({}, *shlex.split(command[1]))
    assert settings.forwarded_allow_ips
    assert (settings.sessions != "memory") == ("replicas" in name)


def test_the_page_for_operators_names_real_flags() -> None:
    """Every flag in docs/operating.md is a setting, and its default is the one that the page gives."""
    text = (DEPLOY.parent / "docs" / "operating.md").read_text()
    flags = re.findall(r"`--([a-z-]+)", text)
    assert len(flags) > 10
    assert [flag for flag in flags if flag.replace("-", "_").upper() not in NAMES] == []
    for flag, seconds in re.findall(r"`--([a-z-]+)` \((\d+) s\)", text):
        assert getattr(Settings(), flag.replace("-", "_")) == float(seconds), flag
