"""Clients in turn and shares of bounds: nobody is in the way of the others, however much he asks for."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arraylstm_serve.api.problems import Problem
from arraylstm_serve.counters import Counters
from arraylstm_serve.engine.ranking import Ranking, log_sum_exp, rank, rank_in_pieces
from arraylstm_serve.fairness import Holdings, Rounds, client_of, has_share_left
from arraylstm_serve.heavy import MOST, Admission, HeavyWork, Pieces
from arraylstm_serve.sessions import limits
from arraylstm_serve.sessions.limits import Bodies, Bound, Connections, Rates
from arraylstm_serve.sessions.table import Table

pytestmark = pytest.mark.anyio

CLIENTS = ("a", "b", "c", "d")


def test_rounds_serve_clients_in_turn() -> None:
    """However many entries one client has, another's first entry comes second; a client's own stay in order."""
    rounds: Rounds[str] = Rounds()
    for number in range(5):
        rounds.append("many", f"many {number}")
    rounds.append("one", "one 0")
    rounds.append("two", "two 0")
    rounds.append("two", "two 1")
    assert rounds.first() == "many 0"
    taken = [rounds.popleft() for _ in range(len(rounds))]
    assert taken == ["many 0", "one 0", "two 0", "many 1", "two 1", "many 2", "many 3", "many 4"]
    with pytest.raises(IndexError):
        rounds.popleft()


@given(st.lists(st.tuples(st.sampled_from(CLIENTS), st.integers(-5, 5)), max_size=200))
def test_holdings_know_who_holds_most(changes: list[tuple[str, int]]) -> None:
    """After any changes, the amounts, the total and the largest are those of a plain count."""
    holdings, plain = Holdings(), Counter[str]()
    for client, amount in changes:
        change = max(amount, -plain[client])
        holdings.add(client, change)
        plain[client] += change
        assert holdings.total == plain.total()
        if holdings.total:
            assert plain[holdings.largest()] == max(plain.values())
    assert {client: holdings[client] for client in CLIENTS} == {client: plain[client] for client in CLIENTS}


@given(st.integers(1, 5000), st.integers(0, 100))
def test_one_client_leaves_something_to_others(limit: int, others: int) -> None:
    """A client that takes all it may have leaves an eighth of what the others have left."""
    others = min(others, limit)
    held = 0
    while held + others < limit and has_share_left(held, held + others, limit):
        held += 1
    left = limit - others
    assert left - held == (left // 8 if left % 8 else max(left // 8 - 1, 0))


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_a_network(address: str, client: str) -> None:
    """All addresses that one IPv6 client may have are one client; an IPv4 address in IPv6 is that address."""
    assert client_of(address) == client


def test_a_quota_is_a_bound_of_its_own() -> None:
    """A quota holds where the fair share would allow more; the empty client has neither."""
    bound = Bound("things are there", 100, quota=2)
    bound.enter("a")
    bound.enter("a")
    with pytest.raises(Problem, match="2 things are there, 2 of them yours; you may have no more now"):
        bound.enter("a")
    bound.enter("b")
    for _ in range(97):
        bound.enter("")
    with pytest.raises(Problem, match="100 things are there; at most 100 are allowed"):
        bound.enter("c")
    bound.leave("a")
    bound.enter("a")


class Steps:
    """A table of sessions without tensors."""

    def __init__(self, **bounds: int | None) -> None:
        self.counters = Counters()
        self.released: list[str] = []
        plain = {"max_sessions": 10, "max_answer_bytes": 10_000, **bounds}
        self.table = Table(
            self.counters,
            lambda: 1000.0,
            lambda session: self.released.append(session.key),
            {},
            ttl=60.0,
            **plain,  # type: ignore[arg-type]
        )

    def step(self, client: str, name: str, answer: int = 0, *, end: bool = False) -> None:
        """Advance a session, and remember an answer of so many bytes."""
        after = self.table.find(name).advanced(len(self.released) + 1, "model", ["x"], 1000.0, client)
        if end:
            after = after.at_end(1000.0)
        if answer:
            after = after.remembering(f"{name}{after.version}", b"", b"x" * answer)
        self.table.commit(after)
        self.table.trim()

    def held(self, name: str) -> bool:
        """Whether the table holds a session."""
        return self.table.find(name).begun


def test_who_holds_most_loses_first() -> None:
    """One client's thousand sessions evict its own, and never the fewer ones of another."""
    steps = Steps()
    for number in range(4):
        steps.step("victim", f"v{number}")
    for number in range(1000):
        steps.step("attacker", f"a{number}")
    assert all(steps.held(f"v{number}") for number in range(4))
    assert sum(steps.held(f"a{number}") for number in range(1000)) == len(steps.table) - 4 == 6
    assert steps.held("a999")
    assert steps.counters.evicted["room"] == 994


def test_whose_answers_take_most_loses_first() -> None:
    """One client's remembered answers cost it its own sessions, ended ones first, and nobody else any."""
    steps = Steps(max_sessions=1000)
    steps.step("victim", "v", 500)
    steps.step("victim", "w", 500, end=True)
    for number in range(50):
        steps.step("attacker", f"a{number}", 1000, end=number % 2 == 1)
    assert steps.held("v")
    assert steps.table.find("w").answers.by_key
    assert steps.table.answer_bytes <= 10_000
    assert steps.held("a48")
    assert not steps.held("a0")


def test_quotas_of_sessions_and_answers() -> None:
    """A client beyond its quota loses its own least recently used sessions, though there is room."""
    steps = Steps(max_sessions=100, quota_sessions=3, quota_answer_bytes=5000)
    for number in range(5):
        steps.step("a", f"a{number}")
        steps.step("b", f"b{number}", 1000)
    assert [steps.held(f"a{number}") for number in range(5)] == [False, False, True, True, True]
    assert [steps.held(f"b{number}") for number in range(5)] == [False, False, True, True, True]
    steps.step("b", "b4", 2500)
    assert [steps.held(f"b{number}") for number in range(5)] == [False, False, False, False, True]


def test_a_session_counts_for_who_began_it() -> None:
    """Another client's event leaves the owner; a session that ends and begins again has the new one."""
    steps = Steps()
    steps.step("a", "u")
    steps.step("b", "u")
    assert steps.table.find("u").owner == "a"
    steps.step("a", "u", end=True)
    steps.step("b", "u")
    assert steps.table.find("u").owner == "b"
    assert len(steps.table) == 1


def test_rates_let_a_second_be_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send its rate at once, then at that rate; others are not affected; the refusal says when."""
    now = 100.0
    monkeypatch.setattr(limits, "perf_counter", lambda: now)
    rates = Rates(10.0)
    for _ in range(10):
        rates.spend("a")
    with pytest.raises(Problem, match="You may send 10 requests a second") as caught:
        rates.spend("a")
    assert (caught.value.kind.status, caught.value.headers["Retry-After"]) == (429, "1")
    rates.spend("b", 10)
    now += 0.1
    rates.spend("a")
    with pytest.raises(Problem):
        rates.spend("a")
    now += 60
    for _ in range(10):
        rates.spend("a")
    Rates(None).spend("a", 10**9)


async def test_long_bodies_wait_for_memory() -> None:
    """Bodies beyond the bound wait in turn, or are refused in the end; one larger than the bound goes alone."""
    bodies = Bodies(100)
    assert await bodies.take("a", 70, 1.0) == 70
    waiting = [asyncio.create_task(bodies.take("a", 60, 5.0)), asyncio.create_task(bodies.take("a", 50, 5.0))]
    other = asyncio.create_task(bodies.take("b", 40, 5.0))
    with pytest.raises(Problem, match="Long request bodies take all of the 100 bytes"):
        await bodies.take("c", 1000, 0.01)
    assert not any(task.done() for task in (*waiting, other))
    bodies.give("a", 70)
    await asyncio.gather(waiting[0], other)
    assert not waiting[1].done()
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)
    bodies.give("a", 60)
    bodies.give("b", 40)
    assert await bodies.take("c", 1000, 1.0) == 100


async def test_bodies_of_a_client_beyond_its_share_do_not_hold_up_others() -> None:
    """A client that has its share waits alone; one that only lacks room is not overtaken for ever."""
    bodies = Bodies(1000)
    for _ in range(8):
        await bodies.take("a", 100, 0.0)
    waiting = asyncio.create_task(bodies.take("a", 100, 5.0))
    await asyncio.sleep(0)
    assert await bodies.take("b", 50, 0.0) == 50
    large = asyncio.create_task(bodies.take("c", 200, 5.0))
    await asyncio.sleep(0)
    with pytest.raises(Problem, match="Long request bodies"):
        await bodies.take("d", 50, 0.01)
    bodies.give("a", 100)
    assert await large == 200
    assert not waiting.done()
    bodies.give("c", 200)
    await waiting


def test_connections_count_for_address_and_name() -> None:
    """Connections of an address and of a name are bounded; a proxy's are not bounded by its address."""
    connections = Connections(100, 3, lambda address: address == "10.0.0.1")
    mine = [connections.open("192.0.2.1") for _ in range(3)]
    with pytest.raises(Problem, match="3 of them yours"):
        connections.open("192.0.2.1")
    mine.pop().close()
    mine.append(connections.open("192.0.2.1"))
    through = [connections.open("10.0.0.1") for _ in range(50)]
    for connection in through[:3]:
        connection.show("alice")
        connection.show("alice")
    with pytest.raises(Problem) as caught:
        through[3].show("alice")
    assert caught.value.headers["Connection"] == "close"
    through[0].show("bob")
    through[3].show("alice")
    for connection in (*mine, *through):
        connection.close()
    assert (connections.by_address.inside, connections.by_name.inside) == (0, 0)


async def test_long_work_takes_a_round_for_each_piece() -> None:
    """Between two pieces of work the loop runs; clients take turns; a client's work is done one after the other."""
    heavy, done = HeavyWork(), list[str]()

    def work(name: str, pieces: int) -> Pieces:
        for number in range(pieces):
            done.append(f"{name}{number}")
            yield

    heavy.submit("a", work("a", 3))
    heavy.submit("a", work("b", 1))
    heavy.submit("c", work("c", 2))
    rounds = 0
    while len(done) < 6:
        before = len(done)
        await asyncio.sleep(0)
        rounds += 1
        assert len(done) - before <= 1
    assert done == ["a0", "c0", "a1", "c1", "a2", "b0"]


async def test_a_turn_comes_at_once_if_nobody_works() -> None:
    """The first turn takes no round; those that ask in the same round get one each, clients in turn."""
    heavy, done = HeavyWork(), list[str]()

    async def piece(client: str) -> None:
        await heavy.turn(client)
        done.append(client)

    first = piece("a")
    with pytest.raises(StopIteration):
        first.send(None)
    assert done == ["a"]
    await asyncio.gather(piece("a"), piece("a"), piece("a"), piece("b"))
    assert done == ["a", "a", "a", "b", "a"]
    gone = asyncio.create_task(piece("c"))
    await asyncio.sleep(0)
    gone.cancel()
    await piece("a")


async def test_few_events_begin_in_a_round() -> None:
    """Of a client's hundred events some begin in each round, and another's is among the next ones."""
    admission, begun = Admission(), list[str]()

    async def event(client: str) -> None:
        await admission.enter(client)
        begun.append(client)

    tasks = [asyncio.create_task(event("many")) for _ in range(100)]
    tasks.append(asyncio.create_task(event("one")))
    await asyncio.sleep(0)
    assert begun == ["many"] * MOST
    await asyncio.gather(*tasks)
    assert begun.index("one") <= 2 * MOST
    assert len(begun) == 101


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, 1.5, -3.0, 2.0, -np.inf]), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(1, 20),
)
def test_a_ranking_in_pieces_is_the_same(values: list[float], depth: int, piece: int) -> None:
    """Whatever ties there are and however it is cut, the items, their order and their probabilities are the same."""
    if all(value == -np.inf for value in values):
        values[0] = 0.0
    logits = np.array([values], np.float32)
    depth, piece = min(depth, len(values)), min(piece, len(values))
    log_sums = log_sum_exp(logits)
    (whole,) = rank(logits, log_sums, depth)
    pieces = list(rank_in_pieces(logits, log_sums, depth, piece))
    ids = [item for part in pieces for item in part.ids]
    assert Ranking(ids, [value for part in pieces for value in part.probabilities]) == whole
    assert len(pieces) <= depth / piece + 1
