"""deploy/kubernetes: Kubernetes' own schemas accept it, its settings are real, and its parts fit together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from arraylstm_serve.api.scopes import Scope
from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys, make_key

from ...servers import Start
from ..admin_listener import admin_port
from .manifests import Configure, documents
from .manifests import configure as configure
from .proxies import DEPLOY

FILES = sorted(path.name for path in (DEPLOY / "kubernetes").glob("*.yaml"))
VERSIONS = ("1.30", "1.37")
"""The oldest and the newest Kubernetes whose schemas accept the manifests."""
LABELS = {"app.kubernetes.io/name": "arraylstm"}
KINDS = {
    "autoscaler": "HorizontalPodAutoscaler",
    "deployment": "Deployment",
    "disruption": "PodDisruptionBudget",
    "network": "NetworkPolicy",
    "secret": "Secret",
    "service": "Service",
}


def manifest(kind: str) -> dict[str, Any]:
    """The manifest of a kind."""
    (found,) = [one for name in FILES for one in documents(f"kubernetes/{name}") if one["kind"] == kind]
    return found


@pytest.fixture
def pod() -> dict[str, Any]:
    """The template of the pods."""
    template: dict[str, Any] = manifest("Deployment")["spec"]["template"]
    return template


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The one container of a pod."""
    (only,) = pod["spec"]["containers"]
    return dict(only)


def test_there_is_one_of_each_kind() -> None:
    """A file has one manifest, and they are of six kinds."""
    assert {name.removesuffix(".yaml"): documents(f"kubernetes/{name}")[0]["kind"] for name in FILES} == KINDS
    assert all(len(documents(f"kubernetes/{name}")) == 1 for name in FILES)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS.values())
def test_kubernetes_schemas_accept_it(kind: str, version: str) -> None:
    """The published schema, which knows every field, accepts the manifest, and refuses one with a wrong field."""
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    found = manifest(kind)
    validator.validate(found, version, strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate(found | {"specs": {}}, version, strict=True)


def variables(container: dict[str, Any]) -> dict[str, str]:
    """The container's variables, with the values of the Secret where they come from there."""
    secret = manifest("Secret")
    found = {}
    for variable in container["env"]:
        value = variable.get("value")
        if value is None:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == secret["metadata"]["name"]
            value = secret["stringData"][reference["key"]]
        assert isinstance(value, str), f"{variable} is no text"
        found[variable["name"]] = value
    return found


def test_its_settings_are_real(pod: dict[str, Any], container: dict[str, Any], configure: Configure) -> None:
    """The variables are settings that a server starts with; ports, files and clocks agree with them."""
    given = variables(container)
    settings = configure(given)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "admin": settings.admin_port}
    (sleep,) = re.findall(r"time\.sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][2])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= int(sleep) + settings.shutdown_timeout + 5
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert set(mounted) == set(volumes)
    files = {f"{mounted['keys']}/{item['path']}": item["key"] for item in volumes["keys"]["secret"]["items"]}
    assert {str(settings.api_keys), str(settings.admin_keys)} == set(files)
    assert set(files.values()) <= set(manifest("Secret")["stringData"])
    assert mounted["bundle"] == "/bundle"  # what the image serves
    assert pod["spec"]["enableServiceLinks"] is False


def test_its_parts_name_each_other(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Selectors match the pods, ports have names that the pods have, and the autoscaler scales the Deployment."""
    deployment = manifest("Deployment")
    assert pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"] == LABELS
    assert manifest("Service")["spec"]["selector"] == LABELS
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    policy = manifest("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == LABELS
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in manifest("Service")["spec"]["ports"]} == {"http"}
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == names
    assert all(
        container[f"{probe}Probe"]["httpGet"]["port"] == "admin" for probe in ("startup", "liveness", "readiness")
    )
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]  # each apply would take the autoscaler's number back


def test_the_store_is_reachable(configure: Configure, container: dict[str, Any]) -> None:
    """The NetworkPolicy lets the servers out to the port of the store that the Secret names."""
    store = httpx.URL(configure(variables(container)).sessions)
    policy = manifest("NetworkPolicy")["spec"]
    to = {rule["ports"][0]["port"]: rule["to"][0] for rule in policy["egress"]}
    assert to[store.port] == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": store.host}}}


def test_the_autoscalers_metric_is_the_adapters() -> None:
    """prometheus-adapter's rule makes the metric that the autoscaler asks for."""
    (rule,) = documents("prometheus-adapter.yaml")[0]["rules"]["custom"]
    (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


@pytest.mark.parametrize("name", ["api-keys", "admin-keys"])
def test_nobody_serves_with_the_examples_keys(name: str, tmp_path: Path) -> None:
    """A file of keys as the example has it is refused."""
    (tmp_path / "keys").write_text(manifest("Secret")["stringData"][name])
    with pytest.raises(StartupError, match="line 1"):
        Keys(tmp_path / "keys")


def test_pre_stop_drains_the_server(container: dict[str, Any], start_server: Start, tmp_path: Path) -> None:
    """The command of preStop makes a server with the Secret's kinds of keys not ready; without its key it fails."""
    (key, entry), (_, watcher) = make_key("operator"), make_key("prometheus", Scope.METRICS)
    (tmp_path / "keys").write_text(f"{entry}\n{watcher}\n")
    server = start_server("--admin-port", "0", "--admin-keys", str(tmp_path / "keys"), "--public-metrics", "off")
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    script = command[2].replace("time.sleep(5)", "")
    ready = f"http://127.0.0.1:{admin_port(server)}/readyz"
    for given, status in (("wrong", 200), (key, 503)):
        environment = os.environ | {"ARRAYLSTM_ADMIN_PORT": str(admin_port(server)), "OPERATOR_KEY": given}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
        assert (done.returncode == 0) == (status == 503)
        assert httpx.get(ready).status_code == status
