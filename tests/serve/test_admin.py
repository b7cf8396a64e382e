"""The admin listener: what it answers, to whom, and that it does so whatever the public listener does."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as stream_to

from arraylstm_serve.admin import ENDPOINTS, AdminApplication, published
from arraylstm_serve.errors import StartupError
from arraylstm_serve.http.auth import Keys
from arraylstm_serve.server.open_files import SPARE_FILES
from arraylstm_serve.settings import ADMIN_CONNECTIONS, Settings

from ..servers import ServerProcess, Start
from .admin_listener import admin_port, admin_url
from .answers import check
from .bundles import write_bundle
from .commands import Refusal, run
from .harness import Harness
from .keys import ALICE, BOB, bearer, line
from .sockets import BODY, HEAD, HEALTH, accepts, answer_to, connect, problem, rest
from .test_tls import folder as folder
from .test_tls import trust as trust

PROBES = ("/healthz", "/readyz", "/metrics")
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi-admin.json"


def to_admin(server: ServerProcess, source: str = "127.0.0.1") -> socket.socket:
    """A connection to a server's admin listener, which does not wait for ever."""
    return socket.create_connection(("127.0.0.1", admin_port(server)), 10, (source, 0))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for tests that neither stop nor drain it. It lets three connections in."""
    bundle = write_bundle(tmp_path_factory.mktemp("admin") / "bundle")
    process = ServerProcess(bundle, "--admin-port", "0", "--max-connections", "3", "--request-timeout", "2")
    yield process
    process.stop()


# -- what it answers


def test_probes_are_answered_while_the_public_side_is_full(shared: ServerProcess) -> None:
    """With every public connection taken, and many more refused, the admin listener answers all that it has."""
    with ExitStack() as clients:
        for _ in range(3):
            answer_to(clients.enter_context(closing(connect(shared))), HEALTH)
        for _ in range(20):
            assert clients.enter_context(closing(connect(shared))).recv(12) == b"HTTP/1.1 503"
        for path in PROBES:
            assert httpx.get(admin_url(shared) + path).status_code == 200
        assert "date" in httpx.get(admin_url(shared) + "/healthz").headers


def test_its_own_bound_is_small_and_apart(shared: ServerProcess) -> None:
    """The admin listener has a bound of its own; when it is full, the public listener serves all the same."""
    with ExitStack() as clients:
        for number in range(ADMIN_CONNECTIONS):
            client = clients.enter_context(closing(to_admin(shared, f"127.0.0.{2 + number}")))
            assert answer_to(client, HEALTH).startswith(b"HTTP/1.1 200")
        with closing(to_admin(shared)) as client:
            assert problem(rest(client)) == ("HTTP/1.1 503 Service Unavailable", "overloaded", True)
        assert httpx.get(f"{shared.url}/readyz").status_code == 200


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_a_crowd_does_not_take_the_probes_files(
    start_server: Start, shell: Callable[[str, int], Path], folder: Path, trust: ssl.SSLContext, encrypted: bool
) -> None:
    """However many clients a full server turns away, the admin listener has an open file for each of its own."""
    flags = ["--admin-port", "0", "--max-connections", "20"]
    flags += ["--tls-certificate", str(folder / "both.pem")] if encrypted else []
    server = start_server(*flags, python=shell("-n", 20 + SPARE_FILES + ADMIN_CONNECTIONS))
    url = f"{'https' if encrypted else 'http'}://127.0.0.1:{admin_port(server)}/healthz"
    with ExitStack() as clients:
        for round in range(15):
            for _ in range(20):
                clients.enter_context(closing(connect(server)))
            assert httpx.get(url, verify=trust).status_code == 200, round
    metrics = httpx.get(url.replace("healthz", "metrics"), verify=trust).text
    refused = re.search(r'arraylstm_requests_total{code="503",route="none"} (\d+)', metrics)
    assert refused
    assert int(refused[1]) > 200  # those that are cut off without a word count too
    server.process.terminate()
    assert server.process.wait(20) == 0
    assert server.process.communicate()[1] == ""


@pytest.mark.parametrize("path", ["/v1/model", "/v1/stats", "/v2", "/docs", "/", "/admin", "/admin/models"])
def test_it_answers_nothing_else(shared: ServerProcess, path: str) -> None:
    """The API and the pages are the public listener's alone; the refusal says where the list is."""
    detail = check(httpx.get(admin_url(shared) + path), "not_found")["detail"]
    assert "/openapi.json lists what there is" in detail


def test_events_are_not_taken(shared: ServerProcess) -> None:
    """The busiest route is not reached by way of the admin listener."""
    for path in ("/v1/sessions/u/events", "/v1/events"):
        check(httpx.post(admin_url(shared) + path, json={"items": ["a"]}), "not_found")


@pytest.mark.parametrize("path", ["/v1/stream", "/admin/drain", "/healthz"])
def test_it_has_no_websocket(shared: ServerProcess, path: str) -> None:
    """A handshake is refused, as a problem."""
    with pytest.raises(InvalidStatus) as refused:
        stream_to(f"ws://127.0.0.1:{admin_port(shared)}{path}")
    assert json.loads(refused.value.response.body)["code"] == "not_found"


def test_another_method_is_told_what_is_allowed(shared: ServerProcess) -> None:
    """GET of /admin/drain names POST and DELETE, and drains nothing."""
    response = httpx.get(f"{admin_url(shared)}/admin/drain")
    assert "DELETE, POST" in check(response, "method_not_allowed")["detail"]
    assert httpx.get(f"{shared.url}/readyz").status_code == 200


def test_it_has_the_clocks_of_the_public_side(shared: ServerProcess) -> None:
    """A request that does not come in whole is answered 408, and the connection ends."""
    with closing(to_admin(shared)) as client:
        client.sendall(HEALTH[:-2])
        assert problem(rest(client)) == ("HTTP/1.1 408 Request Timeout", "request_timeout", True)


def test_pages_cannot_drain(shared: ServerProcess) -> None:
    """Neither a page of another origin nor one that has its name point at this machine can change anything."""
    url = f"{admin_url(shared)}/admin/drain"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        check(httpx.post(url, headers=headers), "foreign_origin")
    check(httpx.post(url, headers={"Host": "evil.example"}), "foreign_host")
    assert httpx.get(f"{shared.url}/readyz").status_code == 200


# -- draining


def test_a_drained_server_is_not_ready_and_serves(start_server: Start) -> None:
    """POST /admin/drain, once or twice, makes both listeners say no; events are answered; DELETE takes it back."""
    server = start_server("--admin-port", "0")
    url = f"{admin_url(server)}/admin/drain"
    with stream_to(f"ws://127.0.0.1:{server.port}/v1/stream") as stream:
        for _ in range(2):
            answer = httpx.post(url)
            assert (answer.status_code, answer.json()) == (200, {"status": "draining"})
        for where in (server.url, admin_url(server)):
            ready = httpx.get(f"{where}/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            assert httpx.get(f"{where}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 400
        assert httpx.get(f"{server.url}/v1/stats").json()["draining"] is True
        assert httpx.post(f"{server.url}/v1/sessions/u/events", json={"items": ["a"]}).json()["step"] == 1
        stream.send('{"session_id": "u", "items": ["b"]}')
        assert json.loads(stream.recv())["step"] == 2
        for _ in range(2):
            assert httpx.delete(url).json() == {"status": "ready"}
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    server.process.terminate()
    assert server.process.wait(20) == 0
    logged = server.process.communicate()[1].splitlines()
    said = [line.partition("/admin/drain: ")[2] for line in logged]
    assert said == [
        f"the server is {state}, as somebody without a key asked" for state in (*2 * ["not ready"], *2 * ["ready"])
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_probes_are_answered_while_the_server_stops(start_server: Start, number: signal.Signals) -> None:
    """Until the last public request is answered, /healthz says yes, /readyz no, and nothing makes it ready again."""
    server = start_server("--admin-port", "0")
    with closing(connect(server)) as client, httpx.Client(base_url=admin_url(server)) as admin:
        client.sendall(HEAD + BODY[:3])
        admin.get("/healthz")
        server.process.send_signal(number)
        while accepts(server.port):
            pass
        assert [admin.get(path).status_code for path in PROBES] == [200, 503, 200]
        assert httpx.get(f"{admin_url(server)}/readyz").status_code == 503
        assert "does not become ready" in check(admin.delete("/admin/drain"), "stopping")["detail"]
        assert admin.post("/admin/drain").status_code == 200
        client.sendall(BODY[3:])
        assert b'"step":1' in rest(client)
        assert server.process.wait(20) == 0
    assert server.process.communicate()[1].count("\n") == 1  # of POST /admin/drain


def test_an_admin_client_does_not_keep_the_server(start_server: Start) -> None:
    """A probe that sends half a request does not keep a server that is told to stop."""
    server = start_server("--admin-port", "0", "--request-timeout", "300")
    with closing(to_admin(server)) as client:
        client.sendall(b"POST /admin/drain HTTP/1.1\r\nHost: localhost\r\n")
        httpx.get(f"{admin_url(server)}/healthz")
        server.process.terminate()
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.process.communicate()[1]


# -- --public-metrics


def test_the_public_side_can_be_without_probes(start_server: Start) -> None:
    """With --public-metrics off the three paths are 404 on the public listener, and not in its document."""
    server = start_server("--admin-port", "0", "--public-metrics", "off")
    for path in PROBES:
        check(httpx.get(server.url + path), "not_found")
        assert httpx.head(server.url + path).status_code == 404
        assert httpx.get(admin_url(server) + path).status_code == 200
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert not set(PROBES) & set(paths)
    assert {"/v1/stats", "/v1/sessions/{session_id}/events", "/v2/health/ready"} <= set(paths)
    assert httpx.get(f"{server.url}/v1/stats").status_code == 200


# -- keys


@pytest.fixture
def keyed(start_server: Start, tmp_path: Path) -> ServerProcess:
    """A server whose listeners ask for keys: Alice's on the public one, Bob's on the other one."""
    (tmp_path / "api").write_text(line("alice", ALICE))
    (tmp_path / "admin").write_text(line("bob", BOB))
    flags = ("--api-keys", str(tmp_path / "api"), "--admin-keys", str(tmp_path / "admin"))
    return start_server("--admin-port", "0", *flags)


def test_the_admin_listener_has_its_own_keys(keyed: ServerProcess) -> None:
    """Probes need no key, on either side. Metrics and draining need an admin key, which an API key is not."""
    assert "API keys asked for" in keyed.greeting.split("  admin")[1]
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert httpx.get(admin_url(keyed) + path).status_code == 200
    for key, let_in in ((None, False), (ALICE, False), (BOB, True)):
        headers = bearer(key) if key else {}
        for method, path in (("GET", "/metrics"), ("DELETE", "/admin/drain"), ("POST", "/admin/drain")):
            response = httpx.request(method, admin_url(keyed) + path, headers=headers)
            assert response.status_code == 200 if let_in else check(response, "unauthorized")
        assert (httpx.get(f"{keyed.url}/readyz").status_code == 503) == let_in
    assert keyed.process.stderr
    assert "the server is ready, as bob asked" in keyed.process.stderr.readline()
    assert httpx.get(f"{keyed.url}/v1/stats", headers=bearer(BOB)).status_code == 401
    check(httpx.get(f"{admin_url(keyed)}/admin/nothing"), "unauthorized")
    check(httpx.get(f"{admin_url(keyed)}/admin/nothing", headers=bearer(BOB)), "not_found")


# -- the start


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--admin-host", "0.0.0.0"), "--admin-host is for the admin listener; give --admin-port too"),
        (("--admin-host", "::1"), "--admin-host is for the admin listener"),
        (("--admin-keys", "keys"), "--admin-keys is for the admin listener; give --admin-port too"),
        (("--public-metrics", "off"), "--public-metrics off leaves nobody who answers /healthz, /readyz and /metrics"),
        (("--admin-port", "0", "--admin-host", "0.0.0.0"), "--admin-host 0.0.0.0 is not a loopback address"),
        (("--admin-port", "0", "--admin-host", "::"), "--admin-host :: is not a loopback address"),
        (("--admin-port", "0", "--admin-host", "host.example"), "--admin-host host.example is not a loopback address"),
        (("--admin-port", "0", "--admin-keys", "/nowhere"), "--admin-keys /nowhere cannot be read: No such file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(bundle_path: Path, flags: tuple[str, ...], said: str) -> None:
    """A setting of the admin listener that means nothing, or lets strangers in, is one line on stderr and status 2."""
    done = run(str(bundle_path), "--port", "0", *flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"arraylstm-serve: {said}" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host: str) -> None:
    """On this machine's own addresses the listener may be without keys; with keys it may be anywhere."""
    Settings(admin_port=0, admin_host=host).check_admin()
    Settings(admin_port=0, admin_host="0.0.0.0", admin_keys=Path("keys")).check_admin()
    with pytest.raises(StartupError):
        Settings(admin_port=0, admin_host="10.0.0.1").check_admin()


def test_the_port_has_a_range(bundle_path: Path, refusal: Refusal) -> None:
    """A port beyond 65535, or a word, is refused."""
    for value in ("65536", "-1", "http"):
        assert "--admin-port" in refusal(str(bundle_path), "--admin-port", value, COLUMNS="200")


def test_a_port_in_use_is_one_clear_line(bundle_path: Path) -> None:
    """An admin port that is taken, by another process or by the public side, is told with the flags that help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(str(bundle_path), "--port", "0", "--admin-port", port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"cannot listen on host 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert "--admin-host and --admin-port" in done.stderr
    done = run(str(bundle_path), "--port", port, "--admin-port", port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--admin-host and --admin-port" in done.stderr


def test_open_files_are_allowed_for_both(
    bundle_path: Path, shell: Callable[[str, int], Path], start_server: Start
) -> None:
    """The admin listener's connections count among the open files that the server needs."""
    needed = 40 + SPARE_FILES + ADMIN_CONNECTIONS
    flags = ("--max-connections", "40", "--admin-port", "0")
    server = start_server(*flags, python=shell("-n", needed))
    assert httpx.get(f"{admin_url(server)}/readyz").status_code == 200
    server.stop()
    with pytest.raises(AssertionError) as refused:
        start_server(*flags, python=shell("-n", needed - 1))
    assert f"needs {needed} open files" in str(refused.value)
    assert "give --max-connections 39" in str(refused.value)


def test_a_server_without_the_setting_has_no_admin_listener(start_server: Start) -> None:
    """Nothing of /admin is on the public listener, with an admin listener or without."""
    for flags in ((), ("--admin-port", "0")):
        server = start_server(*flags)
        assert ("  admin  " in server.greeting) == bool(flags)
        check(httpx.post(f"{server.url}/admin/drain"), "not_found")


def test_it_speaks_tls_with_the_same_certificate(folder: Path, start_server: Start, trust: ssl.SSLContext) -> None:
    """With --tls-certificate both listeners are encrypted, the admin one also while the public one is full."""
    both = str(folder / "both.pem")
    server = start_server("--tls-certificate", both, "--admin-port", "0", "--max-connections", "1")
    url = f"https://127.0.0.1:{admin_port(server)}"
    assert url in server.greeting
    with closing(connect(server)):
        for path in PROBES:
            assert httpx.get(url + path, verify=trust).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http") + "/healthz")
    server.process.terminate()
    assert server.process.wait(20) == 0


# -- its description


@pytest.mark.parametrize("operation", [f"{op.method} {op.path}" for op, _ in ENDPOINTS])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_document_holds_for_random_requests(described: Any, operation: str, data: st.DataObject) -> None:
    """Random requests meet no answer that the document does not describe, with a key of some scope or without."""
    method, path = operation.split()
    case = data.draw(described[path][method].as_strategy())
    key = data.draw(st.sampled_from([ALICE, BOB, "wrong", None]))
    response = case.call_and_validate(headers=None if key is None else bearer(key))
    asked_for = path not in ("/healthz", "/readyz")
    assert (response.status_code == 401) == (asked_for and key not in (ALICE, BOB))
    assert (response.status_code == 403) == (path.startswith("/admin/") and key == BOB)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The admin application as its own document describes it; Alice may do everything, Bob read."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "keys").write_text(line("alice", ALICE) + line("bob", BOB).strip() + " read-only")
    harness = Harness(write_bundle(folder / "bundle"), allowed_host=("*",))  # schemathesis has a name of its own for it
    app = AdminApplication(harness.service, harness.service.settings.of_admin, Keys(folder / "keys"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.anyio
async def test_the_document_is_the_one_in_the_repository(harness: Harness) -> None:
    """/openapi.json of the admin listener is docs/openapi-admin.json, which `make openapi` writes; it is valid."""
    app = AdminApplication(harness.service, harness.service.settings.of_admin, None)
    document = app.openapi()
    document["info"]["version"] = "0"
    assert DOCUMENT.read_text() == published()
    assert json.loads(published()) == document
    described = {f"{method} {path}" for path, methods in document["paths"].items() for method in methods}
    assert described == {f"{op.method.lower()} {op.path}" for op, _ in ENDPOINTS}
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    answers = [await client.post("/admin/drain"), await client.get("/readyz"), await client.delete("/admin/drain")]
    for answer in answers:
        jsonschema_rs.validate({"$ref": "#/components/schemas/Health", **document}, answer.json())
    assert [answer.json()["status"] for answer in answers] == ["draining", "draining", "ready"]


def test_one_address_leaves_admin_connections_to_others(start_server: Start) -> None:
    """Whoever opens connections to the admin listener, without a key too, does not keep probes of other addresses out.

    They would fail, and the server be restarted with all its sessions.
    """
    server = start_server("--admin-port", "0")
    with ExitStack() as clients:
        for _ in range(40):
            clients.enter_context(to_admin(server, "127.0.0.2"))
        transport = httpx.HTTPTransport(local_address="127.0.0.3")
        with httpx.Client(transport=transport) as probe:
            assert probe.get(f"{admin_url(server)}/healthz").status_code == 200
