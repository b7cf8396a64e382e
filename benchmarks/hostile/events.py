"""Attacks with events that are as they should be: too many, too large, or never read."""

from itertools import count

from hostile.registry import attack, crowd
from hostile.wire import BULK, EVENTS, SMALL_WINDOW, Target

_BOTH = (False, True)  # without API keys, and with them
_BULK_EVENTS = 1000
_WALK = 1000


@attack(keys=_BOTH)
async def single_events(target: Target) -> None:
    """Three hundred clients send ordinary events, each to a session of its own."""

    async def client(number: int) -> None:
        request = target.post(EVENTS.format(f"single-{number}"), {"items": target.items[:1]})
        async with target.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(300, client)


@attack(keys=_BOTH)
async def bulk_unread(target: Target) -> None:
    """Two hundred clients send bulk requests of 100 events with 1,000 predictions each, and never read."""

    async def client(number: int) -> None:
        events = [
            {"session_id": f"unread-{number}-{place}", "items": target.items[:1], "top_k": 1000} for place in range(100)
        ]
        async with target.connected(SMALL_WINDOW) as connection:
            await connection.repeat(target.post(BULK, {"events": events}))

    await crowd(200, client)


@attack(keys=_BOTH, flags=("--max-sessions", "2000"))  # few, so that seconds fill them
async def new_sessions(target: Target) -> None:
    """Eight clients send bulk requests of 1,000 events, each for a new session; the server holds 2,000 at most."""
    numbers = count()

    async def client(_: int) -> None:
        async with target.connected() as connection:
            while True:
                events = [
                    {"session_id": f"new-{next(numbers)}", "items": target.items[:1], "top_k": 0}
                    for _ in range(_BULK_EVENTS)
                ]
                await connection.ask(target.post(BULK, {"events": events}))

    await crowd(8, client)


@attack(keys=_BOTH, flags=("--max-answer-bytes", str(16 * 2**20)))  # few, so that seconds fill them
async def remembered_answers(target: Target) -> None:
    """Sixteen clients send events with 1,000 predictions and an idempotency key to ever new sessions; at most 16 MB of
    answers are remembered.
    """
    numbers = count()

    async def client(_: int) -> None:
        async with target.connected() as connection:
            while True:
                number = next(numbers)
                event = {"items": target.items[:1], "top_k": 1000}
                path = EVENTS.format(f"remembered-{number // 16}")
                await connection.ask(target.post(path, event, f"Idempotency-Key: {number}"))

    await crowd(16, client)


@attack(keys=_BOTH)
async def walks(target: Target) -> None:
    """Sixty-four clients send events of 1,000 items each."""
    items = [target.items[place % len(target.items)] for place in range(_WALK)]

    async def client(number: int) -> None:
        request = target.post(EVENTS.format(f"walk-{number}"), {"items": items})
        async with target.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(64, client)


@attack(keys=_BOTH, flags=("--max-sessions", "1000"), wide=True)  # a row of 50,000 logits is large
async def wide_answers(target: Target) -> None:
    """Thirty-two clients ask for all of 50,000 predictions after each event."""

    async def client(number: int) -> None:
        request = target.post(EVENTS.format(f"wide-{number}"), {"items": target.items[:1], "top_k": 50_000})
        async with target.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(32, client)


@attack()
async def state_files(target: Target) -> None:
    """A hundred clients each fetch the state of a session again and again."""

    async def client(number: int) -> None:
        async with target.connected() as connection:
            await connection.ask(target.post(EVENTS.format(f"fetched-{number}"), {"items": target.items[:1]}))
            while True:
                await connection.ask(target.get(f"/v1/sessions/fetched-{number}/state"))

    await crowd(100, client)


@attack()
async def state_restores(target: Target) -> None:
    """A hundred clients put a state into ever new sessions."""
    numbers = count()

    async def client(number: int) -> None:
        async with target.connected() as connection:
            await connection.ask(target.post(EVENTS.format(f"copied-{number}"), {"items": target.items[:1]}))
            state = await connection.ask(target.get(f"/v1/sessions/copied-{number}/state"))
            while True:
                path = f"/v1/sessions/copy-{next(numbers)}/state"
                await connection.ask(target.upload(path, state, method="PUT"))

    await crowd(100, client)


@attack()
async def logits(target: Target) -> None:
    """A hundred clients ask for all logits after a history of 1,000 items, over the Open Inference Protocol."""
    items = [target.items[place % len(target.items)] for place in range(_WALK)]
    kind = "INT64" if all(isinstance(item, int) for item in items) else "BYTES"
    given = {"name": "items", "datatype": kind, "shape": [1, _WALK], "data": items}
    request = target.post("/v2/models/arraylstm/infer", {"inputs": [given], "outputs": [{"name": "logits"}]})

    async def client(_: int) -> None:
        async with target.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(100, client)


@attack(keys=_BOTH)
async def hang_ups(target: Target) -> None:
    """Fifty clients send bulk requests of 100 events with 1,000 predictions each, and hang up at once."""
    numbers = count()

    async def client(_: int) -> None:
        events = [{"session_id": f"hung-{next(numbers)}", "items": target.items[:1], "top_k": 1000} for _ in range(100)]
        async with target.connected() as connection:
            await connection.send(target.post(BULK, {"events": events}))

    await crowd(50, client)


@attack(keys=(True,))
async def unknown_keys(target: Target) -> None:
    """A hundred clients send events with an API key that the server does not know (401)."""
    stranger = Target(target.port, target.items, "not-a-key")

    async def client(number: int) -> None:
        request = stranger.post(EVENTS.format(f"stranger-{number}"), {"items": target.items[:1]})
        async with stranger.connected() as connection:
            while True:
                await connection.ask(request)

    await crowd(100, client)
