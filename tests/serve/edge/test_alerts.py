"""deploy/alerts.yml and deploy/grafana.json ask for what servers show, and the alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ...servers import ServerProcess
from ..admin_listener import admin_url
from ..answers import KINDS
from ..bundles import write_bundle
from .manifests import documents
from .proxies import DEPLOY

TARGET = {"job", "instance", "namespace", "pod"}
"""The labels that Prometheus gives to all that a server shows."""
SELECTOR = re.compile(r"\b(up|(?:arraylstm|process)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
PLAIN = re.compile(r"[\w|]+")

Shown = dict[str, dict[str, set[str]]]
"""For each metric its labels, with the values they had."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """What servers with a store, asked to answer before it and after it, and one without, show after a few requests."""
    folder = tmp_path_factory.mktemp("alerts")
    found: Shown = {"up": {}}
    kept = ("--sessions", f"sqlite:{folder / 's.db'}")
    for name, flags in (("kept", kept), ("behind", (*kept, "--ack", "memory")), ("alone", ())):
        server = ServerProcess(write_bundle(folder / name), "--admin-port", "0", *flags)
        try:
            for path in ("/v1/sessions/u/events", "/v1/sessions/u/events", "/v1/predict"):
                assert httpx.post(server.url + path, json={"items": ["a"]}).status_code == 200
            text = httpx.get(f"{admin_url(server)}/metrics").text
        finally:
            server.stop()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = found.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    return [rule for group in documents("alerts.yml")[0]["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """Everything that Prometheus is asked, by who asks."""
    found = {rule["alert"]: rule["expr"] for rule in rules()}
    for panel in panels():
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    (adapter,) = documents("prometheus-adapter.yaml")[0]["rules"]["custom"]
    query = adapter["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="x"')
    return found | {"adapter": query, "adapter's series": adapter["seriesQuery"]}


def faults(expression: str, shown: Shown) -> list[str]:
    """What an expression asks for that no server shows."""
    found, known = [], set(TARGET)
    for metric, matchers in SELECTOR.findall(expression):
        if metric not in shown:
            found.append(f"the metric {metric}")
            continue
        known |= set(shown[metric])
        for label, value in MATCHER.findall(matchers):
            if label not in shown[metric].keys() | TARGET:
                found.append(f"the label {label} of {metric}")
            elif label not in TARGET and PLAIN.fullmatch(value):
                values = shown[metric][label] | (set(KINDS) if label == "outcome" and "event" in metric else set())
                values |= {str(kind.status) for kind in KINDS.values()} if label == "code" else set()
                found += [f"{label}={one} of {metric}" for one in value.split("|") if one not in values]
    for names in GROUPING.findall(expression):
        found += [f"the label {name}" for name in re.split(r"[\s,]+", names.strip()) if name not in known]
    return found


@pytest.mark.parametrize("asker", expressions())
def test_servers_show_what_is_asked_for(asker: str, shown: Shown) -> None:
    """Every metric, label and value in an alert, a panel or the autoscaler's rule is one that a server has."""
    assert faults(expressions()[asker], shown) == []


def test_what_no_server_shows_is_found(shown: Shown) -> None:
    """The check above sees a wrong metric, label, value and grouping."""
    for expression in (
        "rate(arraylstm_event_total[5m])",
        'rate(arraylstm_events_total{result="ok"}[5m])',
        'rate(arraylstm_store_commits_total{outcome="late"}[5m])',
        'rate(arraylstm_events_total{outcome=~"ok|busy"}[5m])',
        "sum by (route) (rate(arraylstm_events_total[5m]))",
    ):
        assert len(faults(expression, shown)) == 1, expression


def test_every_metric_of_the_store_is_watched(shown: Shown) -> None:
    """The dashboard or an alert asks for each metric that a server shows of its store."""
    asked = " ".join(expressions().values())
    names = {re.sub("_(bucket|sum|count|created)$", "", name) for name in shown if name.startswith("arraylstm_store_")}
    assert len(names) == 7
    assert [name for name in names if name not in asked] == []


def test_the_dashboard_fits_together() -> None:
    """Ids are different, panels do not overlap, and each target and variable names the data source."""
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    every = dashboard["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in every)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(every))) - {"__rate_interval"}
    assert used == variables
    assert {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]} == {"${datasource}"}


# -- promtool


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker."""
    path = shutil.which("promtool")
    return path or pytest.skip("promtool is not installed (Debian's package prometheus)")


def told(promtool: str, *arguments: str | Path) -> str:
    """What promtool says; it must have nothing against the files."""
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_accepts_every_expression(promtool: str, tmp_path: Path) -> None:
    """promtool accepts the rules, and the panels' expressions with Grafana's variables filled in."""
    assert f"SUCCESS: {len(rules())} rules found" in told(promtool, "check", "rules", DEPLOY / "alerts.yml")
    filled = [
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$job", "arraylstm")
        for expression in expressions().values()
    ]
    assert not [expression for expression in filled if "$" in expression]
    recorded = [{"record": f"one:{place}", "expr": expression} for place, expression in enumerate(filled)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"SUCCESS: {len(filled)} rules found" in told(promtool, "check", "rules", file)


def test_prometheus_accepts_the_metrics(promtool: str, bundle_path: Path, tmp_path: Path) -> None:
    """`promtool check metrics` finds nothing to say about what a server with a store shows."""
    server = ServerProcess(bundle_path, "--sessions", f"sqlite:{tmp_path / 's.db'}")
    try:
        httpx.post(f"{server.url}/v1/sessions/u/events", json={"items": ["a"]})
        text = httpx.get(f"{server.url}/metrics").text
    finally:
        server.stop()
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


NO, GROWS = "0x80", "0+30x80"
"""What a counter does in the quarter of a minute between two samples: nothing, or grow by two a second."""
FIRES: dict[str, dict[str, tuple[str, str]]] = {
    "ArraylstmDown": {"up": ("0x80", "1x80")},
    "ArraylstmStoreDown": {"arraylstm_store_up": ("0x80", "1x80")},
    "ArraylstmSessionsRewound": {"arraylstm_sessions_rewound_total": ("0x20 1x60", NO)},
    "ArraylstmSessionsLost": {"arraylstm_sessions_lost_total": ("0x20 1x60", NO)},
    "ArraylstmSessionsDamaged": {'arraylstm_events_total{outcome="session_damaged"}': ("0x20 1x60", NO)},
    "ArraylstmCommitsFailing": {'arraylstm_store_commits_total{outcome="failed"}': (GROWS, NO)},
    "ArraylstmStoreSlow": {
        'arraylstm_store_operation_duration_seconds_bucket{operation="commit",le="0.1"}': (NO, GROWS),
        'arraylstm_store_operation_duration_seconds_bucket{operation="commit",le="0.25"}': (GROWS, GROWS),
        'arraylstm_store_operation_duration_seconds_bucket{operation="commit",le="+Inf"}': (GROWS, GROWS),
    },
    "ArraylstmCommitsStale": {
        'arraylstm_store_commits_total{outcome="stale"}': (GROWS, "0+1x80"),
        'arraylstm_store_commits_total{outcome="applied"}': (GROWS, GROWS),
    },
    "ArraylstmMemoryTooSmall": {
        'arraylstm_sessions_unloaded_total{reason="room"}': (GROWS, "0+9x80"),
        "arraylstm_session_events_total": (GROWS, GROWS),
    },
    "ArraylstmSessionsEvicted": {
        'arraylstm_sessions_evicted_total{reason="room"}': (GROWS, NO),
        'arraylstm_sessions_evicted_total{reason="expired"}': (GROWS, GROWS),
    },
    "ArraylstmErrors": {'arraylstm_requests_total{route="/v1/predict",code="500"}': (GROWS, NO)},
    "ArraylstmOverloaded": {
        'arraylstm_events_total{outcome="overloaded"}': ("0+3x80", NO),
        'arraylstm_events_total{outcome="ok"}': (GROWS, GROWS),
    },
    "ArraylstmEventsWait": {
        'arraylstm_queue_wait_seconds_bucket{le="0.25"}': ("0+20x80", GROWS),
        'arraylstm_queue_wait_seconds_bucket{le="0.5"}': (GROWS, GROWS),
        'arraylstm_queue_wait_seconds_bucket{le="+Inf"}': (GROWS, GROWS),
    },
    "ArraylstmManyOpenFiles": {"process_open_fds": ("900x80", "100x80"), "process_max_fds": ("1000x80", "1000x80")},
    "ArraylstmRestarting": {"process_start_time_seconds": ("1x10 2x10 3x10 4x40", "1x80")},
}
"""For each alert what lets it fire, and what does not; a sample comes every 15 seconds for 20 minutes."""
MORE = {"ArraylstmStoreSlow": {"operation": "commit"}, "ArraylstmSessionsDamaged": {"outcome": "session_damaged"}}
MORE["ArraylstmCommitsFailing"] = {"outcome": "failed"}


def scenario(rule: dict[str, Any], *, fires: bool) -> dict[str, Any]:
    """A test of promtool's: the alert after 15 minutes of some samples."""
    name = rule["alert"]
    labels = {"job": "arraylstm", "instance": "one:9090", **MORE.get(name, {})}
    text = rule["annotations"]["summary"]
    for label, value in labels.items():
        text = text.replace(f"{{{{ $labels.{label} }}}}", value)
    fired = {"exp_labels": {**labels, **rule["labels"]}, "exp_annotations": {"summary": text}}
    series = []
    for metric, samples in FIRES[name].items():
        base, _, own = metric.rstrip("}").partition("{")
        given = ",".join(filter(None, ['job="arraylstm",instance="one:9090"', own]))
        series.append({"series": f"{base}{{{given}}}", "values": samples[0 if fires else 1]})
    expected = {"eval_time": "15m", "alertname": name, "exp_alerts": [fired] if fires else []}
    return {"interval": "15s", "input_series": series, "alert_rule_test": [expected]}


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays quiet"])
@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_fire_when_they_should(promtool: str, tmp_path: Path, rule: dict[str, Any], fires: bool) -> None:
    """An alert fires on samples of what it is for, with its text, and stays quiet on those of a healthy server."""
    file = tmp_path / "test.yml"
    tests = [scenario(rule, fires=fires)]
    rule_files = [str(DEPLOY / "alerts.yml")]
    file.write_text(yaml.safe_dump({"rule_files": rule_files, "evaluation_interval": "15s", "tests": tests}))
    assert "SUCCESS" in told(promtool, "test", "rules", file)


def test_each_alert_is_explained() -> None:
    """docs/operating.md has a section about each alert, and about no other."""
    text = (DEPLOY.parent / "docs" / "operating.md").read_text()
    assert re.findall(r"^### (Arraylstm\w+)$", text, re.MULTILINE) == [rule["alert"] for rule in rules()]
