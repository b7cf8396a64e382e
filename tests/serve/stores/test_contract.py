"""What every store promises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arraylstm_serve.stores.base import Change, Failed, Store, StoreError
from arraylstm_serve.stores.record import Record, decode, encode, new_write

from .kinds import KINDS, Case
from .records import NEVER, change, first, following, removal, step_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    """An empty store of each kind."""
    async with KINDS[request.param](request) as case:
        yield case


@pytest.fixture
def store(case: Case) -> Store:
    """The case's store."""
    return case.store


async def load(store: Store, key: str) -> int | None:
    """Return the step of the record under a key, None if there is none."""
    return step_of(key, (await store.load([key]))[key])


async def test_a_record_comes_back(store: Store) -> None:
    """What is committed is loaded to the byte, and what is not there is None; a batch may be empty."""
    one, other = first("ns/one"), first("other")
    assert await store.commit([change(one), change(other)]) == ["applied", "applied"]
    found = await store.load(["ns/one", "missing", "other"])
    assert found == {"ns/one": encode(one), "missing": None, "other": encode(other)}
    assert (await store.load([]), await store.commit([])) == ({}, [])


async def test_keys_of_all_allowed_characters_are_different(store: Store) -> None:
    """Session ids with any allowed character, in namespaces too, do not meet each other."""
    keys = ["a", "A", "a.b", "a:b", "a~b", "a_b", "a-b", "n/a", "n/A", "a" * 128, "0", "00", "1.0"]
    assert await store.commit([change(first(key, step)) for step, key in enumerate(keys)]) == ["applied"] * len(keys)
    assert {key: step_of(key, data) for key, data in (await store.load(keys)).items()} == {
        key: step for step, key in enumerate(keys)
    }


async def test_a_change_replaces_only_what_was_expected(store: Store) -> None:
    """Another version, another incarnation, and a missing or unexpected record are stale, and nothing changes."""
    one = first("s")
    two = following(one)
    stranger = Record(key="s", incarnation=one.incarnation + 1, version=1, writes=(new_write(),))
    assert await store.commit([change(two, one)]) == ["stale"]
    assert await load(store, "s") is None
    assert await store.commit([change(one)]) == ["applied"]
    assert await store.commit([change(stranger)]) == ["stale"]
    assert await store.commit([change(following(stranger), stranger)]) == ["stale"]
    assert await store.commit([change(following(two), two)]) == ["stale"]
    assert await load(store, "s") == 1
    assert await store.commit([change(two, one)]) == ["applied"]
    assert await load(store, "s") == 2


async def test_a_batch_has_an_outcome_for_each_change(store: Store) -> None:
    """Stale changes do not hinder the others of their batch, and outcomes come in the order of the changes."""
    records = [first(f"s{place}") for place in range(40)]
    await store.commit([change(record) for record in records[::2]])
    outcomes = await store.commit([change(following(record), record) for record in records])
    assert outcomes == ["applied", "stale"] * 20
    assert [await load(store, record.key) for record in records] == [2, None] * 20


async def test_a_write_that_comes_again_is_applied(store: Store) -> None:
    """A change that took effect is not stale when it is sent again, even after other writes, and does nothing then."""
    one = first("s")
    two = following(one)
    three = following(two)
    for _ in range(2):
        assert await store.commit([change(one)]) == ["applied"]
    assert await store.commit([change(two, one)]) == ["applied"]
    assert await store.commit([change(one)]) == ["applied"]
    assert await store.commit([change(three, two)]) == ["applied"]
    assert await store.commit([change(two, one)]) == ["applied"]
    assert await load(store, "s") == 3


async def test_the_16th_last_write_is_known_and_the_17th_is_not(store: Store) -> None:
    """A record knows its last 16 writes."""
    records = [first("s")]
    while len(records) < 17:
        records.append(following(records[-1]))
    for before, after in zip([None, *records], records, strict=False):
        assert await store.commit([change(after, before)]) == ["applied"]
    assert await store.commit([change(records[1], records[0])]) == ["applied"]
    assert await store.commit([change(records[0])]) == ["stale"]


async def test_a_removal_removes_what_was_expected(store: Store) -> None:
    """A removal of another version is stale; one that comes again finds nothing and is applied."""
    one = first("s")
    two = following(one)
    await store.commit([change(one)])
    await store.commit([change(two, one)])
    assert await store.commit([removal(one)]) == ["stale"]
    assert await load(store, "s") == 2
    assert await store.commit([removal(two)]) == ["applied"]
    assert await load(store, "s") is None
    assert await store.commit([removal(two)]) == ["applied"]
    assert await store.commit([Change("never", NEVER, None)]) == ["applied"]
    assert await store.commit([change(first("s", 5))]) == ["applied"]


async def test_of_two_that_change_the_same_record_one_wins(store: Store) -> None:
    """However many change a record at the same time, one is applied and the others are stale."""
    before = first("s")
    await store.commit([change(before)])
    for _ in range(20):
        rivals = [following(before, step) for step in range(8)]
        outcomes = await asyncio.gather(*(store.commit([change(rival, before)]) for rival in rivals))
        assert sorted(map(str, outcomes)) == ["['applied']"] + ["['stale']"] * 7
        before = rivals[outcomes.index(["applied"])]
        assert (await store.load(["s"]))["s"] == encode(before)


async def test_no_increment_is_lost_or_made_twice(store: Store) -> None:
    """Tasks that each load, count up and commit until they are applied end at their number of increments."""
    before = first("s", 0)
    await store.commit([change(before)])

    async def count(times: int) -> None:
        while times:
            data = (await store.load(["s"]))["s"]
            assert isinstance(data, bytes)
            record = decode("s", data)
            times -= await store.commit([change(following(record), record)]) == ["applied"]

    await asyncio.gather(*(count(10) for _ in range(4)))
    assert await load(store, "s") == 40


async def test_a_record_expires_after_its_last_write(case: Case, store: Store) -> None:
    """A record not written for the time to live is missing, for changes too; each write begins the time anew."""
    if not case.kind.expires:
        pytest.skip("the toy keeps no time")
    one, other = first("s"), first("other")
    two = following(one)
    await store.commit([change(one), change(other)])
    await case.pass_time(0.6)
    assert await store.commit([change(two, one)]) == ["applied"]
    await case.pass_time(0.6)
    assert await load(store, "s") == 2
    assert await load(store, "other") is None
    assert await store.commit([change(following(other), other)]) == ["stale"]
    assert await store.commit([change(first("other", 9))]) == ["applied"]
    await case.pass_time(1.2)
    assert await load(store, "s") is None


async def test_a_sweep_removes_what_has_expired(case: Case, store: Store) -> None:
    """After a sweep, expired records are gone, and the others are still there."""
    if not case.kind.expires:
        pytest.skip("the toy keeps no time")
    await store.commit([change(first(f"old{place}")) for place in range(30)])
    await case.pass_time(0.7)
    await store.commit([change(first("young"))])
    await case.pass_time(0.6)
    removed = await store.sweep()
    assert removed == store.counters.swept == case.kind.sweeps * 30
    assert await store.sweep() == 0
    assert await load(store, "young") == 1


async def test_a_key_comes_once_in_a_batch(store: Store) -> None:
    """A batch that names a key twice is a mistake of the caller."""
    with pytest.raises(AssertionError):
        await store.load(["s", "s"])
    with pytest.raises(AssertionError):
        await store.commit([change(first("s")), change(first("s"))])


async def test_a_store_counts_what_it_does(store: Store) -> None:
    """Operations are timed, and records are counted by their outcomes and bytes."""
    one = first("s")
    await store.commit([change(one), change(first("t"))])
    await store.commit([change(following(following(one)), following(one))])
    await store.load(["s", "missing"])
    counters = store.counters
    assert {name: histogram.count for name, histogram in counters.seconds.items()} == {"commit": 2, "load": 1}
    assert counters.commits == {"applied": 2, "stale": 1}
    assert counters.loads == {"found": 1, "missing": 1}
    assert (counters.bytes_read, counters.bytes_written) == (len(encode(one)), 2 * len(encode(one)))


async def test_a_store_describes_itself(case: Case, store: Store) -> None:
    """The description names the kind, and holds no password."""
    assert re.match(case.kind.described, store.describe())
    assert "secret" not in store.describe()


async def test_only_some_stores_make_backups(
    case: Case, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A store without backups of its own says so."""
    path = tmp_path_factory.mktemp("backup") / "copy"
    if case.kind.backs_up:
        await store.backup(path)
        assert path.stat().st_size > 0
    else:
        with pytest.raises(StoreError, match="makes no backups itself"):
            await store.backup(path)


async def test_after_its_end_a_store_fails(store: Store) -> None:
    """A closed store answers with failures that say so; closing twice does no harm."""
    await store.close()
    await store.close()
    closed = Failed("The session store is closed")
    assert await store.commit([change(first("s"))]) == [closed]
    assert await store.load(["s"]) == {"s": closed}
    for late in (store.sweep(), store.backup(Path("copy"))):
        with pytest.raises(StoreError, match="is closed"):
            await late
