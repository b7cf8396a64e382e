"""A server's start: what it says, and what keeps it from starting."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from onnx import helper, numpy_helper

from arraylstm_serve import Settings
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.errors import StartupError
from arraylstm_serve.server import process as serving

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
        greeting = serving.greeting(harness.service, harness.keys, listener)
    assert f"serving   http://0.0.0.0:{port}\n" in greeting
    assert f"console   http://localhost:{port}/\n" in greeting
    assert greeting.endswith(f"docs      http://localhost:{port}/docs")


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


def test_the_model_is_warm_before_the_server_listens(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serving begins once warm-up has run every batch size up to max_batch."""
    done: list[object] = []
    monkeypatch.setattr(HostEngine, "warm_up", lambda self, max_batch: done.append(max_batch))
    monkeypatch.setattr(serving.Server, "run", lambda self, sockets: done.append("run") or sockets[0].close())
    for name in ("settle_memory", "record_signals"):
        monkeypatch.setattr(serving, name, list)
    serving.serve(bundle_path, Settings(port=0, max_batch=48))
    assert done == [48, "run"]


def test_the_largest_bounds_are_served(start_server: Start) -> None:
    """The largest batch and the largest of the other bounds that take no memory do not keep the server from serving."""
    largest = {"--max-batch": 4096, "--threads": 1024, "--shutdown-timeout": 315_360_000}
    unbounded = dict.fromkeys(("--max-session-pending", "--max-items", "--max-events", "--max-body"), 10**12)
    server = start_server(*(str(word) for pair in (largest | unbounded).items() for word in pair))
    answer = httpx.post(f"{server.url}/v1/sessions/u/events", json={"items": ["a"]})
    assert answer.json()["step"] == 1
    server.process.terminate()
    assert server.process.wait(20) == 0


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
