"""Sessions in a store that refuses writes alone, loses steps, or loses its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from arraylstm_serve.sessions import behind, keeper
from arraylstm_serve.stores.base import Change, Failed, Outcome
from arraylstm_serve.stores.record import decode

from ..waiting import until_soon
from .answers import check, near
from .bundles import expected_predictions, write_bundle
from .harness import Harness, predictions
from .test_durable import Store
from .test_durable import server as over

pytestmark = pytest.mark.anyio

FULL = Failed("the disk is full")


class WriteFails(Store):
    """A store that can refuse changes, those of large records alone if it is told so, and go on answering loads."""

    refusing = False
    room = 0

    async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
        if self.refusing and any(len(change.record or b"") > self.room for change in changes):
            return [FULL] * len(changes)
        return await super()._commit(changes)


async def readiness(harness: Harness) -> list[int]:
    """What each question after readiness is answered: /readyz, and those of /v2, where 400 means no."""
    paths = ("/readyz", "/v2/health/ready", "/v2/models/arraylstm/ready")
    return [(await harness.client.get(path)).status_code for path in paths]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server look at its store often."""
    monkeypatch.setattr(keeper, "PROBES", 0.01)
    monkeypatch.setattr(behind, "PROBES", 0.01)


@pytest.mark.parametrize("room", [0, 250])
async def test_a_store_that_refuses_changes_alone_makes_the_server_unready(
    bundle_path: Path, quick: None, room: int
) -> None:
    """Loads that work don't make it ready, nor does room for small records; a change that works does, asked or not."""
    store = WriteFails()
    harness = over(bundle_path, store)
    await harness.send("u", "a")
    store.refusing, store.room = True, room
    check(await harness.send("u", "b"), "store_unavailable")
    for _ in range(20):
        assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 1
        await asyncio.sleep(0.01)
        assert await readiness(harness) == [503, 400, 400]
    store.refusing = False
    await until_soon(lambda: not harness.service.fault)
    assert await readiness(harness) == [200] * 3
    assert not set(keeper.PROBED) & set(store._records)
    assert (await harness.send("u", "b", expected_step=1)).json()["step"] == 2


async def test_a_store_that_answers_no_loads_makes_the_server_unready(bundle_path: Path, quick: None) -> None:
    """Changes that work don't make it ready, as sessions that are not held cannot be loaded."""

    class LoadFails(Store):
        async def _load(self, keys: Sequence[str]) -> Any:
            return dict.fromkeys(keys, self.broken) if self.broken else await super()._load(keys)

        async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
            broken, self.broken = self.broken, None
            try:
                return await super()._commit(changes)
            finally:
                self.broken = broken

    store = LoadFails(shared=False)
    harness = over(bundle_path, store)
    await harness.send("u", "a")
    store.broken = Failed("nobody answers")
    check(await harness.send("new", "a"), "store_unavailable")
    assert (await harness.send("u", "b")).json()["step"] == 2
    assert await readiness(harness) == [503, 400, 400]
    store.broken = None
    await until_soon(lambda: not harness.service.fault)


async def test_a_store_of_which_a_part_fails_leaves_the_server_ready(bundle_path: Path, quick: None) -> None:
    """If some changes of a batch are made and others not, as without one node of a cluster, the server is ready."""

    class PartFails(Store):
        async def _commit(self, changes: Sequence[Change]) -> list[Outcome]:
            outcomes = await super()._commit([change for change in changes if change.key != "bad"])
            return [FULL if change.key == "bad" else outcomes.pop(0) for change in changes]

    harness = over(bundle_path, PartFails())
    events = [{"session_id": name, "items": ["a"]} for name in ("good", "bad", "fine")]
    results = (await harness.client.post("/v1/events", json={"events": events})).json()["results"]
    assert [result.get("code") for result in results] == [None, "store_unavailable", None]
    assert await readiness(harness) == [200] * 3


@pytest.mark.parametrize("held", [True, False])
async def test_a_bulk_requests_later_events_wait_for_a_refused_one(bundle_path: Path, store: Store, held: bool) -> None:
    """If the store fails for a moment, later events of the same session in the request are refused too.

    They would overtake the event that is sent again. Other sessions' events are applied.
    """
    harness = over(bundle_path, store)
    if held:
        await harness.send("u", "a")

    commit, failed = store._commit, []

    async def fail_once(changes: Sequence[Change]) -> list[Outcome]:
        if not failed and any(change.key == "u" for change in changes):
            failed.append(True)
            return [FULL if change.key == "u" else "applied" for change in changes]
        return await commit(changes)

    store._commit = fail_once  # type: ignore[method-assign]
    events = [{"session_id": name, "items": [item]} for name, item in (("u", "b"), ("v", "b"), ("u", "c"), ("u", "d"))]
    results = (await harness.client.post("/v1/events", json={"events": events})).json()["results"]
    assert [result.get("code", result.get("step")) for result in results] == [
        "store_unavailable",
        1,
        "store_unavailable",
        "store_unavailable",
    ]
    again = [event for event in events if event["session_id"] == "u"]
    results = (await harness.client.post("/v1/events", json={"events": again})).json()["results"]
    assert [result["step"] for result in results] == [held + step for step in (1, 2, 3)]
    assert predictions(results[-1]) == near(expected_predictions([*"a" * held, *"bcd"]))
    assert harness.service.pending == 0


async def test_a_version_that_comes_again_after_a_loss_is_another_value(bundle_path: Path, store: Store) -> None:
    """Two servers, and a store that has lost a step: the one that answered the lost step takes nothing for its own.

    The other server has made the same version again, with another item.
    """
    here, there = (over(bundle_path, store) for _ in range(2))
    await here.send("u", "a")
    older = dict(store._records)
    await there.send("u", "b")
    store._records = older
    assert (await here.send("u", "c")).json()["step"] == 2
    rewound = check(await there.send("u", "d"), "session_rewound")
    assert rewound["step"] == 2
    answer = (await there.send("u", "d", expected_step=2)).json()
    assert predictions(answer) == near(expected_predictions(["a", "c", "d"]))
    assert (there.service.counters.rewound, here.service.counters.rewound) == (1, 0)


@pytest.mark.parametrize("unknown", [False, True])
async def test_steps_that_a_store_has_lost_while_it_failed_are_told(
    bundle_path: Path, store: Store, unknown: bool
) -> None:
    """A server that could not write a session remembers what it had answered: a restart without it is told."""
    harness = over(bundle_path, store)
    await harness.send("u", "a")
    older = dict(store._records)
    for name in ("u", "begun", "right"):
        await harness.send(name, "b")
    newer = store._records["right"]
    store.broken = Failed("nobody answers", unknown=unknown)
    for name in ("u", "begun", "right"):
        check(await harness.send(name, "c"), "store_unavailable")
        check(await harness.send(name, "c"), "store_unavailable")
    store.broken = None
    store._records = older | {"right": newer}
    assert check(await harness.client.get("/v1/sessions/u/predictions"), "session_rewound")["step"] == 1
    assert check(await harness.send("begun", "c"), "session_rewound")["step"] == 0
    assert (await harness.send("right", "c")).json()["step"] == 2
    assert (await harness.send("u", "c")).json()["step"] == 2
    assert harness.service.counters.rewound == 2


@pytest.mark.parametrize("steps", [1, 2, 5])
async def test_a_session_that_was_lost_and_begun_again_elsewhere_is_told(
    bundle_path: Path, store: Store, steps: int
) -> None:
    """A store that has lost a whole session, which another server has begun anew since, has lost steps."""
    here, there = (over(bundle_path, store) for _ in range(2))
    for item in "abc":
        await there.send("u", item)
    store._records.clear()
    for _ in range(steps):
        await here.send("u", "d")
    assert check(await there.send("u", "e"), "session_rewound")["step"] == steps
    assert (await there.send("u", "e")).json()["step"] == steps + 1


async def test_a_session_that_ended_and_began_again_elsewhere_is_not_lost(bundle_path: Path, store: Store) -> None:
    """An end, a removal or a state from a client is no loss, however often the session has changed since."""
    here, there = (over(bundle_path, store) for _ in range(2))
    for changes in (1, 5, 20):
        await there.send("u", "a")
        state = (await there.client.get("/v1/sessions/u/state")).content
        await here.send("u", "b", end=True)
        for _ in range(changes):
            await here.send("u", "c")
        assert (await there.send("u", "d")).json()["step"] == changes + 1
        await here.client.delete("/v1/sessions/u")
        await here.client.put("/v1/sessions/u/state", content=state)
        assert (await there.send("u", "d")).json()["state"] == "restored"
    assert there.service.counters.rewound == 0


async def test_a_key_that_another_server_has_forgotten_is_new(bundle_path: Path, store: Store) -> None:
    """After a removal by another server, or 16 newer keys there, a key is not answered from an old value."""
    here, there = (over(bundle_path, store) for _ in range(2))
    await here.send("u", "a", key="k")
    await there.client.delete("/v1/sessions/u")
    assert (await here.send("u", "b", key="k")).json()["state"] == "new"
    for place in range(16):
        await there.send("u", "c", key=f"k{place}")
    assert (await here.send("u", "b", key="k")).json()["step"] == 18
    assert (await here.send("u", "c", key="k15")).json()["step"] == 17


async def test_write_behind_reads_what_it_has_answered(bundle_path: Path) -> None:
    """With --ack memory over a shared store, a look at a session shows the steps that the store does not have yet."""
    store = Store()
    harness = over(bundle_path, store, sessions="redis://x", ack="memory", sticky=True)
    await harness.send("u", "a")
    store.gate.clear()
    await harness.send("u", "b", key="k")
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 2
    assert (await harness.client.get("/v1/sessions/u/predictions")).json()["step"] == 2
    assert check(await harness.send("u", "c", expected_step=1), "step_conflict")["step"] == 2
    store.gate.set()
    assert (await harness.send("u", "c", expected_step=2)).json()["step"] == 3
    assert harness.service.counters.rewound == 0
    await harness.service.close()
    assert decode("u", store._records["u"][1]).step == 3


@pytest.mark.parametrize("later", ["", "c", "cdeabcdeabcdeabcdeabc"])
async def test_write_behind_knows_its_own_writes(bundle_path: Path, quick: None, later: str) -> None:
    """A write whose answer is lost is this server's own, however many steps have followed: no step is lost."""
    store = Store()
    harness = over(bundle_path, store, sessions="redis://x", ack="memory", sticky=True)
    await harness.send("u", "a")
    await until_soon(lambda: "u" in store._records and not harness.service.unsaved)
    store.loses_answers = True
    await harness.send("u", "b")
    await until_soon(lambda: decode("u", store._records["u"][1]).step == 2)
    for item in later:
        await harness.send("u", item)
    store.loses_answers = False
    await until_soon(lambda: not harness.service.unsaved)
    steps = 2 + len(later)
    assert decode("u", store._records["u"][1]).step == steps
    assert harness.service.keeper is not None
    assert harness.service.keeper.lost == 0
    answer = (await harness.send("u", "e", expected_step=steps)).json()
    assert predictions(answer) == near(expected_predictions(["a", "b", *later, "e"]))


async def test_unknown_items_are_counted_with_a_store_too(tmp_path: Path) -> None:
    """An item that the model has no label for counts once its event is answered."""
    path = write_bundle(tmp_path / "unknown", labels=["a", "b", "c", "d", "e", "f", "<unk>"], unknown="<unk>")
    harness = over(path, Store(shared=False), sessions="sqlite:x")
    await harness.send("u", "a", "nobody knows this")
    assert harness.service.counters.unknown_items == 1


@pytest.fixture
def store() -> Store:
    """The store of a test."""
    return Store()


async def test_a_look_does_not_forget_what_was_acknowledged(bundle_path: Path, store: Store) -> None:
    """After a failed write and a loss in the store, a look finds nothing, and the next event is still told of it."""
    harness = over(bundle_path, store)
    await harness.send("u", "a")
    store.broken = FULL
    check(await harness.send("u", "b"), "store_unavailable")
    store.broken, store._records = None, {}
    check(await harness.client.get("/v1/sessions/u"), "unknown_session")
    assert check(await harness.send("u", "c"), "session_rewound")["step"] == 0


async def test_a_store_is_tried_in_many_places(bundle_path: Path, store: Store, quick: None) -> None:
    """A server whose session lies on a node that is away is ready again if any other node of the store works."""
    load = store._load

    async def a_node_is_away(keys: Sequence[str]) -> dict[str, Any]:
        return await load(keys) | {key: FULL for key in keys if key == "u" or key in keeper.PROBED[:15]}

    store._load = a_node_is_away  # type: ignore[method-assign]
    harness = over(bundle_path, store)
    check(await harness.send("u", "a"), "store_unavailable")
    await until_soon(lambda: not harness.service.fault)
    assert await readiness(harness) == [200] * 3
