"""Sessions in a store: they survive the server, move between servers, and every outcome is what the store has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from arraylstm_serve.sessions import behind
from arraylstm_serve.stores.base import Change, Failed, Loaded, Outcome
from arraylstm_serve.stores.memory import MemoryStore
from arraylstm_serve.stores.record import decode, encode

from ..waiting import until_soon
from .answers import check, near
from .bundles import LABELS, expected_predictions
from .harness import Harness, predictions

pytestmark = pytest.mark.anyio

TTL = 1800.0


class Store(MemoryStore):
    """A store that a test can make slow, break or change behind a server's back."""

    def __init__(self, clock: Any = lambda: 1_700_000_000.0, *, shared: bool = True) -> None:
        super().__init__(TTL, clock)
        self.shared = shared
        self.broken: Failed | None = None
        self.loses_answers = False
        self.commits: list[int] = []
        self.loads: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def _load(self, keys: Sequence[str]) -> dict[str, Loaded]:
        self.loads.append(len(keys))
        await self.gate.wait()
        return dict.fromkeys(keys, self.broken) if self.broken else await super()._load(keys)

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        self.commits.append(len(changes))
        await self.gate.wait()
        if self.broken:
            return [self.broken] * len(changes)
        outcomes = await super()._commit(changes)
        return [Failed("the answer was lost", unknown=True)] * len(changes) if self.loses_answers else outcomes

    async def _close(self) -> None:
        """Keep everything for the next server."""


def server(path: Path, store: Store, **settings: Any) -> Harness:
    """A server over the store."""
    harness = Harness(path, **settings)
    store._closed = False
    harness.service.keep(store)
    return harness


@pytest.fixture
def store() -> Store:
    """The store of a test."""
    return Store()


async def test_sessions_survive_the_server(bundle_path: Path, store: Store) -> None:
    """Another server goes on where the first one stopped, with the same numbers, keys, items and times."""
    first = server(bundle_path, store)
    await first.send("u", "a", "b", key="k")
    answer = await first.send("u", "c", key="l")
    described = await first.client.get("/v1/sessions/u")
    await first.service.close()
    second = server(bundle_path, store)
    assert (await second.client.get("/v1/sessions/u")).json() == described.json()
    assert (await second.send("u", "c", key="l")).content == answer.content
    continued = (await second.send("u", "d", expected_step=3)).json()
    assert (continued["step"], continued["state"]) == (4, "continued")
    assert predictions(continued) == near(expected_predictions(["a", "b", "c", "d"]))
    peek = await second.client.get("/v1/sessions/u/predictions")
    assert predictions(peek.json()) == predictions(continued)


async def test_two_servers_share_sessions(bundle_path: Path, store: Store) -> None:
    """Events that reach two servers in turn, or at once, apply in order and once each; each answer is the model's."""
    servers = [server(bundle_path, store) for _ in range(2)]
    items = [LABELS[index % len(LABELS)] for index in range(30)]
    for step, item in enumerate(items, 1):
        answer = (await servers[step % 2].send("u", item, key=f"k{step}")).json()
        assert answer["step"] == step
        assert predictions(answer) == near(expected_predictions(items[:step]))
    answers = await asyncio.gather(*(servers[n % 2].send("v", "a", key=f"k{n}") for n in range(40)))
    steps = {answer.json()["step"]: n for n, answer in enumerate(answers)}
    assert sorted(steps) == list(range(1, 41))
    last = [steps[step] for step in range(31, 41)]  # a session remembers its last 16 keys
    repeated = await asyncio.gather(*(servers[(n + 1) % 2].send("v", "a", key=f"k{n}") for n in last))
    assert [answer.content for answer in repeated] == [answers[n].content for n in last]
    assert (await servers[0].client.get("/v1/sessions/v")).json()["step"] == 40
    for one in servers:
        slots = one.service.model.slots
        assert slots.free == slots._count - 1 - len(one.service.sessions)


async def test_an_outcome_without_a_change_is_never_of_an_old_value(bundle_path: Path, store: Store) -> None:
    """What another server has done shows in looks, conflicts, repeated keys, state files and removals at once."""
    here, there = (server(bundle_path, store) for _ in range(2))
    await here.send("u", "a")
    await there.send("u", "b", key="k")
    assert (await here.client.get("/v1/sessions/u")).json()["step"] == 2
    await there.send("u", "c")
    assert (await here.client.get("/v1/sessions/u/predictions")).json()["step"] == 3
    await there.send("u", "d")
    conflict = check(await here.send("u", "e", expected_step=3), "step_conflict")
    assert conflict["step"] == 4
    assert (await here.send("u", "b", key="k")).json()["step"] == 2
    await there.client.delete("/v1/sessions/u")
    check(await here.client.get("/v1/sessions/u/state"), "unknown_session")
    check(await here.send("u", "a", expected_step=4), "session_gone")
    begun = (await here.send("u", "a")).json()
    assert (begun["step"], begun["state"]) == (1, "new")


async def test_memory_is_a_cache(bundle_path: Path) -> None:
    """More sessions live than are held; each goes on where it stood, and what is loaded is loaded together."""
    store = Store(shared=False)
    harness = server(bundle_path, store, max_sessions=5)
    names = [f"s{n}" for n in range(40)]
    for item in "abc":
        answers = []
        for start in range(0, 40, 5):  # at most five can be busy when a session begins
            answers += await asyncio.gather(*(harness.send(name, item) for name in names[start : start + 5]))
        assert [answer.status_code for answer in answers] == [200] * 40
    assert [answer.json()["step"] for answer in answers] == [3] * 40
    assert predictions(answers[-1].json()) == near(expected_predictions(["a", "b", "c"]))
    assert len(harness.service.sessions) == 5
    assert max(store.loads) > 1
    assert harness.service.model.slots.free == harness.service.model.slots._count - 1 - 5


async def test_nothing_is_seen_before_it_is_kept(bundle_path: Path, store: Store) -> None:
    """While a commit is under way its answer waits, and so does the session's next event."""
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    store.gate.clear()
    waiting = [asyncio.create_task(harness.send("u", item)) for item in "bc"]
    while len(store.commits) < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    assert harness.service.sessions.find("u").step == 1
    store.gate.set()
    assert [(await task).json()["step"] for task in waiting] == [2, 3]


async def test_a_store_that_fails_refuses_and_recovers(bundle_path: Path, store: Store) -> None:
    """Without its store the server is not ready and answers 503, applies nothing, and goes on once it works."""
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    store.broken = Failed("nobody answers at 192.0.2.1")
    refusal = check(await harness.send("u", "b"), "store_unavailable")
    assert "nobody answers at 192.0.2.1" in refusal["detail"]
    assert "was not applied" in refusal["detail"]
    check(await harness.send("new", "b"), "store_unavailable")
    assert (await harness.client.get("/readyz")).json() == {"status": "store unavailable"}
    assert (await harness.client.get("/healthz")).status_code == 200
    store.broken = None
    assert (await harness.send("u", "b", expected_step=1)).json()["step"] == 2
    assert (await harness.client.get("/readyz")).status_code == 200
    assert harness.service.pending == 0


async def test_a_lost_answer_of_the_store_applies_nothing_twice(bundle_path: Path, store: Store) -> None:
    """A commit of unknown outcome is 503; the same key then gets the first answer, and the session stands there."""
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    store.loses_answers = True
    refusal = check(await harness.send("u", "b", key="k"), "store_unavailable")
    assert "may have been applied" in refusal["detail"]
    store.loses_answers = False
    assert (await harness.send("u", "b", key="k")).json()["step"] == 2
    assert (await harness.send("u", "c")).json()["step"] == 3


async def test_a_store_that_has_lost_steps_is_not_taken_silently(bundle_path: Path, store: Store) -> None:
    """After a failover to an older copy the client is told the actual step, once; the session goes on from there."""
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    older = dict(store._records)
    await harness.send("u", "b")
    await harness.send("gone", "a")
    store._records = older
    rewound = check(await harness.send("u", "c"), "session_rewound")
    assert rewound["step"] == 1
    answer = (await harness.send("u", "c", expected_step=1)).json()
    assert predictions(answer) == near(expected_predictions(["a", "c"]))
    lost = check(await harness.client.get("/v1/sessions/gone/predictions"), "session_rewound")
    assert lost["step"] == 0
    assert (await harness.send("gone", "a")).json()["state"] == "new"
    assert harness.service.counters.rewound == 2


async def test_a_session_that_expired_is_not_lost(bundle_path: Path) -> None:
    """A record that the store has let go in its time is no loss of steps."""
    now = 1_700_000_000.0
    store = Store(lambda: now)
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    now += TTL + 1
    harness.clock.now += TTL + 1
    harness.service.sessions._next_expiry = harness.clock.now + 10  # this server has not looked yet
    check(await harness.send("u", "b", expected_step=1), "session_gone")
    assert harness.service.counters.rewound == 0


async def test_a_damaged_record_is_refused_by_name(bundle_path: Path, store: Store) -> None:
    """A record that cannot be read is told, and harms no other session."""
    first = server(bundle_path, store)
    await first.send("u", "a")
    await first.send("v", "a")
    expires, record = store._records["u"]
    store._records["u"] = expires, record[:-1] + bytes([record[-1] ^ 1])
    second = server(bundle_path, store)
    refusal = check(await second.send("u", "b"), "session_damaged")
    assert "The record of session" in refusal["detail"]
    assert (await second.send("v", "b")).json()["step"] == 2


@pytest.mark.parametrize("how", ["removed", "restored"])
async def test_a_damaged_session_can_be_removed_or_given_a_state(bundle_path: Path, store: Store, how: str) -> None:
    """What needs nothing of a damaged record but its header goes through; then the session works again."""
    first = server(bundle_path, store)
    await first.send("u", "a")
    state = (await first.client.get("/v1/sessions/u/state")).content
    expires, record = store._records["u"]
    store._records["u"] = expires, record[:-1] + bytes([record[-1] ^ 1])
    second = server(bundle_path, store)
    check(await second.send("u", "b"), "session_damaged")
    if how == "removed":
        assert (await second.client.delete("/v1/sessions/u")).status_code == 204
    else:
        assert (await second.client.put("/v1/sessions/u/state", content=state)).status_code == 200
    assert (await second.send("u", "b")).json()["step"] == (1 if how == "removed" else 2)
    assert (await server(bundle_path, store).send("u", "c")).json()["step"] == (2 if how == "removed" else 3)


async def test_a_bulk_requests_later_events_are_not_applied_to_a_session_that_went_back(
    bundle_path: Path, store: Store
) -> None:
    """The client learns of the loss before anything more happens to the session."""
    harness = server(bundle_path, store)
    await harness.send("u", "a")
    store._records = {}
    events = [{"session_id": "u", "items": [item]} for item in "bcd"]
    results = (await harness.client.post("/v1/events", json={"events": events})).json()["results"]
    assert [result.get("code") for result in results] == ["session_rewound"] * 3
    assert "u" not in store._records


async def test_another_models_state_is_refused(bundle_path: Path, store: Store) -> None:
    """A session of another model is named, can be looked at and removed, and never walks in this one."""
    await server(bundle_path, store).send("u", "a", "b")
    other = f"sha256:{'f' * 64}"
    expires, record = store._records["u"]
    theirs = msgspec.structs.replace(decode("u", record), model=other)
    store._records["u"] = expires, encode(theirs)
    harness = server(bundle_path, store)
    refusal = check(await harness.send("u", "c"), "model_mismatch")
    assert other in refusal["detail"]
    assert (await harness.client.get("/v1/sessions/u")).json()["model"] == other
    check(await harness.client.get("/v1/sessions/u/predictions"), "model_mismatch")
    assert (await harness.client.delete("/v1/sessions/u")).status_code == 204
    assert (await harness.send("u", "c")).json()["state"] == "new"


async def test_bulk_events_ends_and_states_are_kept_too(bundle_path: Path, store: Store) -> None:
    """Whatever changes a session goes through the store: bulk events, ends, restored states."""
    first = server(bundle_path, store)
    events = [{"session_id": f"s{n}", "items": ["a", "b"]} for n in range(10)]
    await first.client.post("/v1/events", json={"events": events})
    state = (await first.client.get("/v1/sessions/s0/state")).content
    await first.client.put("/v1/sessions/copy/state", content=state)
    await first.send("s1", "c", end=True)
    second = server(bundle_path, store)
    assert (await second.send("s9", "c")).json()["step"] == 3
    restored = (await second.send("copy", "c")).json()
    assert (restored["step"], restored["state"]) == (3, "restored")
    assert predictions(restored) == near(expected_predictions(["a", "b", "c"]))
    check(await second.client.get("/v1/sessions/s1"), "unknown_session")


async def test_write_behind_answers_first(bundle_path: Path) -> None:
    """With --ack memory answers leave while the store is slow; it gets the newest value of each session, ends too."""
    store = Store(shared=False)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    await harness.send("u", "a")
    await harness.send("v", "a")
    store.gate.clear()
    for step, item in enumerate("bcd", 2):
        assert (await harness.send("u", item)).json()["step"] == step
    await harness.send("v", "b", end=True)
    store.gate.set()
    await harness.service.close()
    assert (decode("u", store._records["u"][1]).step, decode("v", store._records["v"][1]).step) == (4, 0)
    second = server(bundle_path, store)
    assert predictions((await second.send("u", "e")).json()) == near(expected_predictions(["a", "b", "c", "d", "e"]))
    check(await second.client.get("/v1/sessions/v"), "unknown_session")


async def test_write_behind_has_a_bound(bundle_path: Path) -> None:
    """Beyond --max-unsaved sessions answers wait for the store; none is lost, and no slot is."""
    store = Store(shared=False)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory", max_unsaved=3, max_batch=1)
    store.gate.clear()
    sent = [asyncio.create_task(harness.send(f"s{n}", "a")) for n in range(10)]
    for _ in range(200):
        await asyncio.sleep(0.001)
    loaded = sum(task.done() for task in sent)
    assert loaded == 0  # the loads wait too
    store.gate.set()
    await asyncio.gather(*sent)
    writing = harness.service._behind
    assert writing is not None
    await until_soon(lambda: not writing.unsaved)
    store.gate.clear()
    sent = [asyncio.create_task(harness.send(f"s{n}", "b")) for n in range(10)]
    for _ in range(200):
        await asyncio.sleep(0.001)
    assert 3 <= sum(task.done() for task in sent) < 10
    store.gate.set()
    assert [answer.json()["step"] for answer in await asyncio.gather(*sent)] == [2] * 10
    await harness.service.close()
    assert {decode(f"s{n}", store._records[f"s{n}"][1]).step for n in range(10)} == {2}


@pytest.mark.parametrize("most", [1, 3, 7])
async def test_the_bound_of_write_behind_holds_for_a_whole_batch(bundle_path: Path, most: int) -> None:
    """Sessions that are stepped together are not all answered if --max-unsaved allows fewer."""
    store = Store(shared=False)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory", max_unsaved=most)
    await asyncio.gather(*(harness.send(f"s{n}", "a") for n in range(16)))
    writing = harness.service._behind
    assert writing is not None
    await until_soon(lambda: not writing.unsaved)
    store.gate.clear()
    sent = [asyncio.create_task(harness.send(f"s{n}", "b")) for n in range(16)]
    for _ in range(200):
        await asyncio.sleep(0.001)
    assert 1 <= sum(task.done() for task in sent) == len(writing.unsaved) <= most
    store.gate.set()
    assert [answer.json()["step"] for answer in await asyncio.gather(*sent)] == [2] * 16
    await harness.service.close()
    assert {decode(f"s{n}", store._records[f"s{n}"][1]).step for n in range(16)} == {2}


async def test_write_behind_outlasts_a_store_that_fails(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store fails, answers go on up to the bound; what waits is written once it works."""
    monkeypatch.setattr(behind, "PROBES", 0.01)
    store = Store(shared=False)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    store.broken = Failed("the disk is full")
    assert (await harness.send("u", "b")).json()["step"] == 2
    await until_soon(lambda: harness.service.fault)
    store.broken = None
    await until_soon(lambda: decode("u", store._records["u"][1]).step == 2)


async def test_write_behind_gives_way_at_its_bound(bundle_path: Path, store: Store) -> None:
    """A session that another server has changed holds nobody up, even if its next answer waits for the store too."""
    here = server(bundle_path, store, sessions="redis://x", ack="memory", sticky=True, max_unsaved=1)
    await here.send("u", "a")
    await here.send("v", "a")
    await until_soon(lambda: {"u", "v"} <= set(store._records))
    await server(bundle_path, store).send("u", "b")
    store.gate.clear()
    await here.send("u", "c")
    waiting = [asyncio.create_task(here.send(name, "d")) for name in ("u", "v")]
    for _ in range(100):
        await asyncio.sleep(0.001)
    assert not any(task.done() for task in waiting)
    store.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert [answer.status_code for answer in answers] == [200, 200]
    await until_soon(lambda: not here.service.sessions.find("u").version)
    assert (await here.send("u", "e")).json()["step"] == 3
    assert decode("v", store._records["v"][1]).step == 2


async def test_write_behind_gives_way_to_another_server(bundle_path: Path, store: Store) -> None:
    """If another server has changed a session all the same, its value counts; what was lost is counted and logged."""
    here = server(bundle_path, store, sessions="redis://x", ack="memory", sticky=True)
    await here.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    there = server(bundle_path, store)
    await there.send("u", "b")
    await here.send("u", "c")
    assert here.service.keeper is not None
    keeper = here.service.keeper
    await until_soon(lambda: keeper.lost)
    await until_soon(lambda: not here.service.sessions.find("u").version)
    assert (await here.send("u", "d")).json()["step"] == 3


async def test_an_unforeseen_error_does_not_end_the_writing(
    bundle_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Under --ack memory the writing goes on after an error that nobody foresaw; the log has it."""
    monkeypatch.setattr(behind, "PROBES", 0.01)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    keeper = harness.service.keeper
    assert keeper is not None
    write, failed = keeper.write, []

    async def fail_once(changes: Any) -> Any:
        if not failed:
            failed.append(True)
            raise ZeroDivisionError
        return await write(changes)

    monkeypatch.setattr(keeper, "write", fail_once)
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    assert "sessions could not be written" in caplog.text


async def test_answers_without_room_are_refused_while_the_store_fails(
    bundle_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under --ack memory a client does not wait for a store that is away; nothing is lost, and it goes on later."""
    monkeypatch.setattr(behind, "PROBES", 0.01)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory", max_unsaved=1)
    await harness.send("u", "a")
    await harness.send("v", "a")
    await until_soon(lambda: {"u", "v"} <= set(store._records))
    store.broken = Failed("the disk is full")
    assert (await harness.send("u", "b")).json()["step"] == 2
    refusal = check(await asyncio.wait_for(harness.send("v", "b"), 5), "store_unavailable")
    assert "was not applied" in refusal["detail"]
    check(await asyncio.wait_for(harness.send("u", "c"), 5), "store_unavailable")
    assert harness.service.pending == 0
    store.broken = None
    await until_soon(lambda: decode("u", store._records["u"][1]).step == 2)
    assert (await harness.send("v", "b")).json()["step"] == 2
    assert predictions((await harness.send("u", "c")).json()) == near(expected_predictions(["a", "b", "c"]))


@pytest.mark.parametrize("back", ["empty", "older"])
async def test_a_store_that_has_lost_records_gets_them_again(bundle_path: Path, store: Store, back: str) -> None:
    """Under --ack memory what the server still holds is written again, and no client notices."""
    harness = server(bundle_path, store, sessions="redis://x", ack="memory", sticky=True)
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    older = dict(store._records)
    await harness.send("u", "b")
    await until_soon(lambda: decode("u", store._records["u"][1]).step == 2)
    store._records = older if back == "older" else {}
    assert (await harness.send("u", "c")).json()["step"] == 3
    await until_soon(lambda: "u" in store._records and decode("u", store._records["u"][1]).step == 3)
    assert harness.service.keeper is not None
    assert harness.service.keeper.lost == 0


async def test_the_end_waits_for_a_store_that_comes_back(
    bundle_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under --ack memory a server that ends goes on trying to write, for as long as --shutdown-timeout."""
    monkeypatch.setattr(behind, "PROBES", 0.01)
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    store.broken = Failed("the disk is full")
    await harness.send("u", "b")
    closing = asyncio.create_task(harness.service.close())
    await asyncio.sleep(0.1)
    assert not closing.done()
    store.broken = None
    await closing
    assert decode("u", store._records["u"][1]).step == 2


@pytest.mark.parametrize("how", ["removed", "ended"])
async def test_an_end_that_waits_to_be_written_counts(bundle_path: Path, store: Store, how: str) -> None:
    """Under --ack memory a session that has ended is gone at once, though the store still has it."""
    harness = server(bundle_path, store, sessions="sqlite:x", ack="memory")
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records)
    store.gate.clear()
    if how == "removed":
        assert (await harness.client.delete("/v1/sessions/u")).status_code == 204
    else:
        await harness.send("u", "b", end=True)
    check(await harness.client.get("/v1/sessions/u"), "unknown_session")
    answer = (await harness.send("u", "c")).json()
    assert (answer["state"], answer["step"]) == ("new", 1)
    store.gate.set()
    await harness.service.close()
    assert decode("u", store._records["u"][1]).step == 1
