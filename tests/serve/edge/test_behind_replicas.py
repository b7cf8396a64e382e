"""Two servers over one Redis, behind nginx and HAProxy as deploy/ has them: any server may answer any request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from arraylstm_serve.client import Client
from arraylstm_serve.client.retries import Retries

from ...servers import ServerProcess
from ..admin_listener import admin_port
from ..answers import near
from ..bundles import LABELS, expected_predictions, write_bundle
from ..harness import predictions
from ..stores.conftest import DURABLE
from ..stores.servers import Server, served
from .proxies import haproxy_of_replicas, nginx_of_replicas

BALANCERS = ["nginx", "haproxy"]
EVENTS = "/v1/sessions/{session_id}/events"


class Site(NamedTuple):
    """Servers over one store, the flags they have, and the address under which a balancer shows them."""

    redis: Server
    bundle: Path
    flags: tuple[str, ...]
    servers: list[ServerProcess]
    url: str

    def answered(self, route: str = EVENTS) -> list[int]:
        """How many requests of a route each server has answered with 200."""
        pattern = re.compile(rf'arraylstm_requests_total{{code="200",route="{re.escape(route)}"}} (\S+)')
        texts = [httpx.get(f"{server.url}/metrics").text for server in self.servers]
        return [sum(int(float(count)) for count in pattern.findall(text)) for text in texts]

    def admin(self, place: int) -> str:
        """The address of a server's admin listener."""
        return f"http://127.0.0.1:{admin_port(self.servers[place])}"

    def restart(self, place: int) -> None:
        """Drain a server as a rolling restart does, stop it, and start it again at its ports."""
        server, admin = self.servers[place], self.admin(place)
        assert httpx.post(f"{admin}/admin/drain").status_code == 200
        time.sleep(2.5)  # HAProxy's two checks; nginx finds out by itself
        server.process.terminate()
        assert server.process.wait(20) == 0
        server.stop()
        flags = (*self.flags, "--admin-port", admin.rpartition(":")[2])
        self.servers[place] = ServerProcess(self.bundle, *flags, port=server.port)


@pytest.fixture(scope="module", params=[f"{name}, {how}" for name in BALANCERS for how in ("in turn", "by session")])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two servers over one Redis, and a balancer."""
    name, _, how = request.param.partition(", ")
    folder = tmp_path_factory.mktemp("replicas")
    bundle = write_bundle(folder / "bundle")
    with ExitStack() as stack:
        redis = stack.enter_context(served("redis", *DURABLE, "--maxmemory-policy", "noeviction"))
        flags = ("--sessions", f"redis://{redis.address}/0", "--forwarded-allow-ips", "127.0.0.1")
        servers = [ServerProcess(bundle, *flags, "--admin-port", "0") for _ in range(2)]
        site = Site(redis, bundle, flags, servers, "")
        stack.callback(lambda: [server.stop() for server in servers])
        ports, by_session = [server.port for server in servers], how == "by session"
        if name == "nginx":
            url = stack.enter_context(nginx_of_replicas(folder / "nginx", ports, by_session=by_session))
        else:
            admins = [admin_port(server) for server in servers]
            url = stack.enter_context(haproxy_of_replicas(folder, ports, admins, by_session=by_session))
            time.sleep(2)  # HAProxy takes servers to be up until its checks say so
        yield site._replace(url=url)


@pytest.fixture
def in_turn(site: Site, request: pytest.FixtureRequest) -> bool:
    """Whether the balancer gives each request to the next server."""
    return "in turn" in request.node.callspec.id


def send(client: httpx.Client, name: str, item: Any, key: str) -> dict[str, Any]:
    """Send an item with a key to a session, and send it again: the second answer is the first one."""
    calls = [
        client.post(f"/v1/sessions/{name}/events", json={"items": [item]}, headers={"Idempotency-Key": key})
        for _ in range(2)
    ]
    assert [call.status_code for call in calls] == [200, 200], [call.text for call in calls]
    assert calls[0].content == calls[1].content
    return dict(calls[0].json())


def test_events_apply_in_order_once_each(site: Site, in_turn: bool) -> None:
    """A session's events through the balancer are answered as the model says, whichever server gets them."""
    before = site.answered()
    items = [LABELS[place % len(LABELS)] for place in range(21)]
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for step, item in enumerate(items, 1):
            answer = send(client, "u", item, f"k{step}")
            assert (answer["step"], answer["state"]) == (step, "new" if step == 1 else "continued")
            assert predictions(answer) == near(expected_predictions(items[:step]))
    answered = [now - then for now, then in zip(site.answered(), before, strict=True)]
    assert sum(answered) == 42
    assert (min(answered) > 0) == in_turn


def test_events_at_once_apply_once_each(site: Site) -> None:
    """Events of one session from many connections are put into one order, and each answer is the model's in it."""
    with httpx.Client(base_url=site.url, timeout=60) as client, ThreadPoolExecutor(6) as threads:
        sent = [(LABELS[place % 5], f"p{place}") for place in range(48)]
        answers = list(threads.map(lambda event: send(client, "crowd", *event), sent))
        last = client.get("/v1/sessions/crowd").json()
    order = {answer["step"]: (item, answer) for (item, _), answer in zip(sent, answers, strict=True)}
    assert sorted(order) == list(range(1, 49))
    items = [order[step][0] for step in sorted(order)]
    for step, (_, answer) in order.items():
        assert predictions(answer) == near(expected_predictions(items[:step]))
    assert last["step"] == 48


def test_sessions_are_spread_over_the_servers(site: Site, in_turn: bool) -> None:
    """Both servers get sessions; by session, each session has one server, also if its id is written with escapes."""
    owners = []
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for number in range(16):
            before = site.answered()
            for path in (f"/v1/sessions/spread{number}/events", f"/v1/sessions/%73pread{number}/events"):
                assert client.post(path, json={"items": ["a"]}).status_code == 200
            owners.append([now - then for now, then in zip(site.answered(), before, strict=True)])
    assert all(sum(owner) == 2 for owner in owners)
    assert all(sum(owner[place] for owner in owners) > 0 for place in (0, 1))
    assert all(max(owner) == 2 for owner in owners) == (not in_turn)


def test_bulk_requests_may_go_anywhere(site: Site) -> None:
    """A bulk request goes on with sessions wherever they were."""
    with httpx.Client(base_url=site.url, timeout=60) as client:
        for step in (1, 2, 3):
            events = {"events": [{"session_id": f"bulk{number}", "items": ["b"]} for number in range(9)]}
            results = client.post("/v1/events", json=events).json()["results"]
            assert [result["step"] for result in results] == [step] * 9
            assert client.get("/v1/sessions/bulk4").json()["step"] == step


def test_a_rolling_restart_loses_and_repeats_nothing(site: Site) -> None:
    """While one server after the other is drained and restarted, clients that repeat go on, each event applied once."""
    items = [LABELS[place % len(LABELS)] for place in range(7)]

    def go_on(name: str) -> int:
        with Client(site.url, retries=Retries(tries=20, first=0.1, longest=1.0)) as client:
            session, step = client.session(name), 0
            while step < 30 or not over:
                answer = session.send([items[step % 7]])
                step += 1
                assert answer.step == step
                if step <= 14:
                    expected = expected_predictions((items * 2)[:step])
                    assert [(one.item, one.probability) for one in answer.predictions] == near(expected)
            return step

    over: list[bool] = []
    with ThreadPoolExecutor(3) as threads:
        steps = threads.map(go_on, ("rolling1", "rolling2", "rolling3"))
        try:
            for place in (0, 1):
                site.restart(place)
                time.sleep(1.5)  # the balancer takes it back
        finally:
            over.append(True)
        for name, step in zip(("rolling1", "rolling2", "rolling3"), steps, strict=True):
            assert httpx.get(f"{site.url}/v1/sessions/{name}").json()["step"] == step


def test_the_store_is_killed_and_comes_back(site: Site) -> None:
    """Without the store no server is ready and events are 503; with it again, sessions go on where they stood."""
    with httpx.Client(base_url=site.url, timeout=60) as client:
        assert send(client, "kept", "a", "before")["step"] == 1
        site.redis.kill()
        try:
            while any(httpx.get(f"{server.url}/readyz").status_code == 200 for server in site.servers):
                assert client.post("/v1/sessions/kept/events", json={"items": ["a"]}).status_code == 503
                for server in site.servers:
                    refused = httpx.post(f"{server.url}/v1/sessions/kept/events", json={"items": ["a"]}, timeout=60)
                    assert refused.status_code == 503
        finally:
            site.redis.start()
        until = time.monotonic() + 30
        while httpx.get(f"{site.url}/readyz").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.2)
        for server in site.servers:
            while "arraylstm_store_up 1.0" not in httpx.get(f"{server.url}/metrics").text:
                assert time.monotonic() < until
                time.sleep(0.2)
        answer = client.post("/v1/sessions/kept/events", json={"items": ["b"], "expected_step": 1})
    assert answer.json()["step"] == 2
    assert predictions(answer.json()) == near(expected_predictions(["a", "b"]))
