"""The command and the process: start, fault, drain, stop."""

from __future__ import annotations

import gc
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from onnx import helper, numpy_helper

from arraylstm_serve import Bundle, Settings, cli
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.errors import StartupError
from arraylstm_serve.server import memory
from arraylstm_serve.server import process as serving
from arraylstm_serve.server.process import allocate

from ..servers import Start
from .bundles import FINGERPRINT, step_model, write_bundle
from .commands import run
from .harness import Harness


def test_the_greeting_says_what_is_served_and_where(start_server: Start) -> None:
    """The start-up lines name model, device, bound and the real port; the server there is ready."""
    server = start_server("--max-sessions", "12")
    for words in (FINGERPRINT, "tiny, 7 items", "CPUExecutionProvider", "at most 12", f"{server.url}/docs"):
        assert words in server.greeting
    assert httpx.get(f"{server.url}/readyz").json() == {"status": "ready"}


def test_the_greeting_leads_to_the_console_and_the_documentation(start_server: Start) -> None:
    """The addresses that the greeting gives for them, opened as they stand, are those pages."""
    lines = dict(line.split(maxsplit=1) for line in start_server().greeting.splitlines())
    for name, words in (("console", "What happened?"), ("docs", "swagger-ui")):
        page = httpx.get(lines[name])
        assert page.headers["content-type"].startswith("text/html")
        assert words in page.text


def test_who_listens_everywhere_greets_with_an_address_to_open(harness: Harness) -> None:
    """Bound to every address, which no browser can be sent to, the server names its console at localhost."""
    with serving.listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        greeting = serving.greeting(harness.service, listener)
    assert f"serving   http://0.0.0.0:{port}\n" in greeting
    assert f"console   http://localhost:{port}/\n" in greeting
    assert greeting.endswith(f"docs      http://localhost:{port}/docs")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_what_is_in_flight(start_server: Start, number: signal.Signals) -> None:
    """Told to stop amid a request, the server accepts no further ones, finishes this one and exits with 0."""
    server = start_server()
    body = b'{"items":["a","b"]}'
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:5])
        httpx.get(f"{server.url}/healthz")
        server.process.send_signal(number)
        while accepts(server.port):
            pass
        client.sendall(body[5:])
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"step":2' in answer
    assert server.process.wait() == 0
    assert server.process.communicate()[1] == ""


def accepts(port: int) -> bool:
    """Whether anybody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_a_stuck_client_does_not_keep_the_server(start_server: Start) -> None:
    """A request that never ends is given up after shutdown_timeout, and the exit status is 0 still."""
    server = start_server("--shutdown-timeout", "1")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        httpx.get(f"{server.url}/healthz")
        server.process.terminate()
        assert server.process.wait() == 0


def test_a_client_that_leaves_does_not_disturb_the_others(start_server: Start) -> None:
    """Connections cut in the head, in the body or before the answer leave the server answering."""
    server = start_server()
    body = b'{"items":["a"]}'
    head = b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for sent in (head[:20], head + body[:3], head + body):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(sent)
    answer = httpx.post(f"{server.url}/v1/sessions/v/events", content=body)
    assert answer.json()["step"] == 1


def test_many_clients_at_once_are_each_answered(start_server: Start) -> None:
    """Threads with a session each, over real connections, see every step of theirs once and in order."""
    server = start_server()
    steps: dict[str, list[int]] = {}

    def play(name: str) -> None:
        with httpx.Client(base_url=server.url) as client:
            events = [client.post(f"/v1/sessions/{name}/events", json={"items": ["a"]}) for _ in range(30)]
        steps[name] = [event.json()["step"] for event in events]

    threads = [threading.Thread(target=play, args=(f"s{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert steps == {f"s{number}": list(range(1, 31)) for number in range(8)}


def test_large_bodies_and_ids_get_clear_answers(start_server: Start) -> None:
    """Over a real connection a megabyte id and a body over the bound are answered, not cut off."""
    server = start_server("--max-body", "1000")
    long_id = httpx.post(f"{server.url}/v1/sessions/{'x' * 60_000}/events", json={"items": ["a"]})
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/sessions/" + b"x" * 1_000_000 + b"/events HTTP/1.1\r\nHost: x\r\n\r\n")
        longer_id = b"".join(iter(lambda: client.recv(4096), b""))
    large = httpx.post(f"{server.url}/v1/sessions/u/events", content=b" " * 2_000_000)
    assert (long_id.status_code, long_id.json()["code"]) == (422, "invalid_session_id")
    head, _, body = longer_id.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"
    assert (large.status_code, large.json()["code"]) == (413, "payload_too_large")


def test_a_port_in_use_is_one_clear_line(bundle_path: Path) -> None:
    """A port that is taken is told in one line with the flags that help; the status is 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(str(bundle_path), "--port", port)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"cannot listen on host 127.0.0.1 port {port}: Address already in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.anyio
async def test_of_two_servers_on_one_port_the_second_does_not_start(harness: Harness) -> None:
    """An address bound by two servers that warm up at once is served by one; the other one is told."""
    first = serving.listen("127.0.0.1", 0)
    second = serving.listen("127.0.0.1", first.getsockname()[1])
    first.listen()
    config = uvicorn.Config(harness.app, lifespan="off")
    with pytest.raises(StartupError, match=r"port \d+: Address already in use"):
        await serving.Server(config, harness.service, "", []).startup([second])
    for listener in (first, second):
        listener.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_server_serves_is_heeded(bundle_path: Path, number: signal.Signals) -> None:
    """Told to stop while it loads, the server ends with status 0 and never says that it serves."""
    program = (
        "import os, sys\n"
        "from arraylstm_serve import cli\n"
        "from arraylstm_serve.engine.host import HostEngine\n"
        f"HostEngine.warm_up = lambda *_: os.kill(os.getpid(), {number})\n"
        "sys.exit(cli.main())"
    )
    command = [sys.executable, "-c", program, str(bundle_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_model_is_warm_before_the_server_listens(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving begins once warm-up has run every batch size up to max_batch."""
    done: list[object] = []
    monkeypatch.setattr(HostEngine, "warm_up", lambda self, max_batch: done.append(max_batch))
    monkeypatch.setattr(serving.Server, "run", lambda self, sockets: done.append("run") or sockets[0].close())
    for name in ("settle_memory", "record_signals"):
        monkeypatch.setattr(serving, name, list)
    serving.serve(bundle_path, Settings(port=0, max_batch=48))
    assert done == [48, "run"]


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_told_to_stop_is_not_ready(harness: Harness, number: signal.Signals) -> None:
    """From the signal on /readyz answers 503 on the connections that are still open."""
    config = uvicorn.Config(harness.app, lifespan="off")
    serving.Server(config, harness.service, "", []).handle_exit(number, None)
    assert (await harness.client.get("/readyz")).status_code == 503


def test_a_second_signal_cuts_requests_off_in_good_order(start_server: Start) -> None:
    """A server told twice to stop answers 503 to what is in flight, prints no traceback, and ends with status 0."""
    process = start_server()
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        client.sendall(b"POST /v1/sessions/u/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        httpx.get(f"{process.url}/healthz")
        for _ in range(2):
            process.process.send_signal(signal.SIGINT)
            while accepts(process.port):
                pass
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert process.process.wait() == 0
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in process.process.communicate()[1]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/model", "/docs", "/openapi.json"])
def test_what_can_be_got_has_a_head(start_server: Start, path: str) -> None:
    """HEAD is answered as GET is, without the body."""
    process = start_server()
    whole, head = httpx.get(f"{process.url}{path}"), httpx.head(f"{process.url}{path}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_the_head_of_a_request_is_bounded(start_server: Start) -> None:
    """Headers without an end are refused once after 65,536 bytes; whatever comes then is dropped."""
    process = start_server()
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000)
        answer = client.recv(4096)
        client.sendall(b"\r\nno header\r\n\r\n")
        answer += b"".join(iter(lambda: client.recv(4096), b""))
    process.process.terminate()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1
    assert process.process.communicate()[1] == ""


def test_bodies_do_not_count_as_heads(start_server: Start) -> None:
    """A body longer than any head, and a later head that comes in parts, are taken."""
    process = start_server()
    body = b'{"items":["a"]}'.ljust(100_000)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", process.port)) as client:
        for part in (head + body[:70_000], body[70_000:] + b"GET /healthz HTTP/1.1\r\n"):
            client.sendall(part)
            httpx.get(f"{process.url}/healthz")
        client.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: client.recv(4096), b""))
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_connections_are_bounded(start_server: Start) -> None:
    """While more than max_connections are open, requests are answered 503; later ones are served again."""
    process = start_server("--max-connections", "2")
    with httpx.Client(base_url=process.url) as first, httpx.Client(base_url=process.url) as second:
        assert [first.get("/healthz").status_code, second.get("/healthz").status_code] == [200, 200]
        assert httpx.get(f"{process.url}/healthz").status_code == 503
        assert first.get("/healthz").status_code == 200


def test_settled_memory_is_not_collected_again() -> None:
    """What was loaded before serving is frozen, and the youngest generation is collected seldom."""
    thresholds = gc.get_threshold()
    try:
        serving.settle_memory()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == serving.YOUNG_OBJECTS
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    ("flag", "value", "bound"),
    [
        ("--session-ttl", "315360001.0", "<= 315360000"),
        ("--shutdown-timeout", "315360001", "<= 315360000"),
        ("--max-answer-bytes", "0", ">= 1"),
        ("--max-pending", str(10**30), "<= 1000000000000"),
        ("--max-items", str(10**30), "<= 1000000000000"),
        ("--max-batch", "4097", "<= 4096"),
        ("--max-batch", str(10**30), "<= 4096"),
        ("--threads", "1025", "<= 1024"),
    ],
)
def test_a_bound_has_bounds(bundle_path: Path, flag: str, value: str, bound: str) -> None:
    """A setting out of its range is refused with status 2, by its flag, its value and what is allowed."""
    done = run(str(bundle_path), flag, value, COLUMNS="200")
    assert done.returncode == 2
    assert f'Invalid value "{value}" for {flag}. Must be {bound}' in done.stderr


def test_the_largest_bounds_are_served(start_server: Start) -> None:
    """The largest batch and the largest of the other bounds that take no memory do not keep the server from serving."""
    largest = {"--max-batch": 4096, "--threads": 1024, "--shutdown-timeout": 315_360_000}
    unbounded = dict.fromkeys(("--max-session-pending", "--max-items", "--max-events", "--max-body"), 10**12)
    server = start_server(*(str(word) for pair in (largest | unbounded).items() for word in pair))
    answer = httpx.post(f"{server.url}/v1/sessions/u/events", json={"items": ["a"]})
    assert answer.json()["step"] == 1
    server.process.terminate()
    assert server.process.wait(20) == 0


SMALL = {"max_sessions": 1, "max_pending": 1, "max_batch": 1, "max_answer_bytes": 1}


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_sessions", 20_000), ("max_pending", 10_000), ("max_batch", 4096), ("max_answer_bytes", 2**22)],
)
def test_a_bound_beyond_the_control_groups_memory_is_a_fault(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    """Bounds above the control group's memory are refused with the flag to lower and its value; no limit is none."""
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "absent", limit))
    bundle, settings = Bundle.load(bundle_path), Settings(**SMALL | {name: value})
    for text in ("max\n", str(2**40)):
        limit.write_text(text)
        allocate(bundle, settings)
    limit.write_text(f"{2**22}\n")
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(StartupError, match=f"for {flag} {value}, but there are 4.2 MB; lower {flag}"):
        allocate(bundle, settings)


def test_rows_on_a_gpu_take_no_memory_of_the_host(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU is found, under --device auto too, sessions may be more than the host could hold."""
    bundle = Bundle.load(bundle_path)
    monkeypatch.setattr(serving, "memory_limit", lambda: 5_000_000)
    settings = Settings(**SMALL | {"max_sessions": 14_000})
    with pytest.raises(StartupError, match="lower --max-sessions"):
        allocate(bundle, settings)
    on_gpu = open_engine(bundle, Settings(device="cpu"), 1)
    monkeypatch.setattr(serving, "open_accelerator", lambda *_: on_gpu)
    assert allocate(bundle, settings) is on_gpu


def test_what_is_for_a_gpu_is_refused_on_the_cpu(bundle_path: Path) -> None:
    """--tf32 and --gpu-memory are no settings of the CPU's."""
    for flags in (("--tf32",), ("--gpu-memory", "1000000")):
        done = run(str(bundle_path), "--port", "0", "--device", "cpu", *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--tf32 and --gpu-memory are for a GPU, but the model runs on the CPU" in done.stderr


@pytest.mark.parametrize("fault", ["missing", "changed", "host", "label", "long"])
def test_a_fault_at_the_start_is_one_line_and_status_2(bundle_path: Path, fault: str) -> None:
    """A bundle or an address that cannot be had is one sentence on stderr, no traceback, and status 2."""
    if fault == "changed":
        (bundle_path / "vocabulary.json").write_text("{}")
    path = bundle_path / {"missing": "nowhere", "long": "x" * 300}.get(fault, "")
    host = {"host": "no.such.host.invalid", "label": "x" * 70}.get(fault, "127.0.0.1")
    done = run(str(path), "--port", "0", "--host", host)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("arraylstm-serve: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["--max-sessions", "--max-pending", "--max-answer-bytes"])
def test_too_much_for_the_machine_is_a_clear_fault(bundle_path: Path, flag: str) -> None:
    """A bound that the machine's memory cannot meet is told with its value and the flag to lower."""
    done = run(str(bundle_path), "--port", "0", flag, str(10**12))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"for {flag} {10**12}, but there are" in done.stderr
    assert f"lower {flag}." in done.stderr


def test_a_batch_that_cannot_be_run_is_a_fault_at_the_start(tmp_path: Path) -> None:
    """Where warm-up fails at a batch, its size and the setting are told on stderr, and the status is 2."""
    model = step_model()
    model.graph.node[-1].output[0] = "sums"
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(32, np.float32), "shelf"))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["items"], ["rows"]),
            helper.make_node("Gather", ["shelf", "rows"], ["place"]),  # there is none for 32 rows and more
            helper.make_node("Add", ["sums", "place"], ["logits"]),
        ]
    )
    done = run(str(write_bundle(tmp_path / "bundle", model=model)), "--port", "0", "--max-batch", "48")
    assert (done.returncode, done.stdout) == (2, "")
    assert "arraylstm-serve: the model cannot run a batch of 32 sessions (--max-batch is 48): " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["b", "--port", "65536"], ["b", "--device", "tpu"], ["b", "--nope"]])
def test_a_bad_command_line_is_status_2(arguments: list[str]) -> None:
    """A flag unknown or out of range, or no bundle at all, ends with status 2."""
    assert run(*arguments).returncode == 2


def test_settings_come_from_flags_and_variables(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting is taken from its flag, else from its ARRAYLSTM_ variable, else from its default."""
    served: list[cli.Settings] = []
    monkeypatch.setattr(cli, "serve", lambda path, settings: served.append(settings))
    monkeypatch.setenv("ARRAYLSTM_PORT", "1234")
    monkeypatch.setenv("ARRAYLSTM_SESSION_TTL", "2.5")
    monkeypatch.setattr(sys, "argv", ["arraylstm-serve", str(bundle_path), "--port", "4321"])
    assert cli.main() == 0
    assert (served[0].port, served[0].session_ttl, served[0].max_batch) == (4321, 2.5, 64)


def test_help_explains_every_setting() -> None:
    """--help lists each setting with its flag, its variable and its explanation."""
    text = run("--help", COLUMNS="200").stdout
    for name in cli.Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
        assert f"ARRAYLSTM_{name.upper()}" in text
    assert "Seconds without use after which a session expires" in text


def test_version_is_the_distributions() -> None:
    """--version prints the version of the installed distribution."""
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, cli.__version__)
