"""Count what kill -9 of a server loses under --ack memory, beside --ack store.

    python benchmarks/losses.py
    python benchmarks/losses.py --kills 10 --max-unsaved 100 --connections 64

Connections send events of their own sessions one after the other, and remember the last step that was answered. Then
the server is killed, another one is started over the same store, and every session is asked where it stands.
"""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

from bundles import Served, served
from cyclopts import App, Parameter
from durable import ACK_MEMORY, BEHIND, redis
from events import SESSION
from load import LoadError, post
from publishing import published
from report import Row, Table
from servers import HOST, Server, ours
from timing import single_thread

from arraylstm import console

app = App(name="losses", help=__doc__, result_action="return_value")

Steps = dict[str, int]
"""The last step of each session that was answered."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure."""

    kills: int = 5
    """How often each server is killed."""
    seconds: float = 2.0
    """Seconds of load before a kill."""
    connections: int = 64
    """Connections, each with its own sessions."""
    own: int = 8
    """Sessions of each connection."""
    max_unsaved: tuple[int, ...] = (1000, 50)
    """Values of --max-unsaved."""
    cores: str = "0,1"
    """Cores of the servers, as taskset takes them."""
    json: Path | None = None
    """File to write the results to as JSON."""


async def talk(server: Server, sessions: Sequence[str], answered: Steps) -> None:
    """Send events of some sessions in turn until the server is gone."""
    reader, writer = await asyncio.open_connection(HOST, server.port)
    try:
        while True:
            for session in sessions:
                writer.write(post(SESSION.format(session), {"items": [1], "top_k": 1}))
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                if not head.startswith(b"HTTP/1.1 200"):
                    raise LoadError(f"{server.name}: {body}")
                answered[session] = body["step"]
    except (ConnectionError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def load_and_kill(server: Server, sizes: Sizes, answered: Steps) -> None:
    """Load a server, and kill it."""
    names = [[f"c{place}-{own}" for own in range(sizes.own)] for place in range(sizes.connections)]
    talks = [asyncio.create_task(talk(server, sessions, answered)) for sessions in names]
    await asyncio.sleep(sizes.seconds)
    for pid in server.pids():
        os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*talks)


def stands(server: Server, sessions: Steps) -> Steps:
    """Return the step at which each session stands."""
    answers = {name: server.get(f"/v1/sessions/{name}") for name in sessions}
    return {name: json.loads(body)["step"] if status == 200 else 0 for name, (status, body) in answers.items()}


def lost(model: Served, flags: Sequence[str], sizes: Sizes) -> dict[str, float]:
    """Return what some kills of a server have lost."""
    answered: Steps = {}
    sessions, steps, most, events = [], [], 0, []
    for _ in range(sizes.kills):
        before = sum(answered.values())
        with ours(model.bundle, sizes.cores, *flags, patience=90) as server:
            asyncio.run(load_and_kill(server, sizes, answered))
        events.append(sum(answered.values()) - before)
        with ours(model.bundle, sizes.cores, *flags, patience=90) as server:
            found = stands(server, answered)
        behind = {name: step - found[name] for name, step in answered.items() if found[name] < step}
        sessions.append(len(behind))
        steps.append(sum(behind.values()))
        most = max(most, *behind.values(), 0)
        answered = found
    return {
        "events": median(events),
        "sessions behind": median(sessions),
        "at most": max(sessions),
        "steps lost": median(steps),
        "at most ": max(steps),
        "of one session": most,
    }


def tables(sizes: Sizes) -> Iterator[Table]:
    """Kill servers over SQLite, and over Redis if it is there."""
    with ExitStack() as stack:
        model = stack.enter_context(served(None))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": f"sqlite:{folder / 'store'}.db"}
        if shutil.which("redis-server"):
            urls["Redis"] = stack.enter_context(redis(folder / "redis", "everysec"))
        for name, url in urls.items():
            rows = [Row(name, {}, lost(model, ("--sessions", url), sizes))]
            for most in sizes.max_unsaved:
                flags = ("--sessions", url, *ACK_MEMORY, "--max-unsaved", str(most))
                rows.append(Row(f"{name}{BEHIND} --max-unsaved {most}", {}, lost(model, flags, sizes)))
            note = f"Medians of {sizes.kills} kills. The load average was {os.getloadavg()[0]:.1f} at the end"
            yield Table(f"{name}: steps that were answered and are gone after kill -9", rows, [note])


@app.default
def main(*, sizes: Annotated[Sizes, Parameter(name="*")] = Sizes()) -> int:
    """Kill servers over SQLite and Redis. Exit status: 1 if a server failed."""
    single_thread()
    return 1 if published("losses", tables(sizes), sizes, sizes.json) is None else 0


if __name__ == "__main__":
    console.run(app)
