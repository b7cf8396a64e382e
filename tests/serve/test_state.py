"""A session's state as a file: it is saved, moved and given back, and refused if it is not valid."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from arraylstm_serve.sessions.commands import Caller, Command
from arraylstm_serve.sessions.management import Remove, Restore
from arraylstm_serve.sessions.rendering import render_session
from arraylstm_serve.sessions.session import RECENT
from arraylstm_serve.sessions.walking import Advance

from ..devices import same_bits
from .bundles import FINGERPRINT, LABELS, LANES, H, V, expected_predictions, step_model, write_bundle
from .harness import Harness, predictions
from .test_events import near
from .test_problems import check

pytestmark = pytest.mark.anyio

URL = "/v1/sessions/u/state"


def opened(body: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors and the metadata of a file."""
    (size,) = struct.unpack("<Q", body[:8])
    return safetensors.numpy.load(body), json.loads(body[8 : 8 + size])["__metadata__"]


def content(body: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return a file's content in a form to compare; the order of the metadata in a file varies."""
    tensors, metadata = opened(body)
    return {name: tensor.tobytes() for name, tensor in tensors.items()}, metadata


async def saved(harness: Harness, *items: Any, name: str = "u") -> bytes:
    """Let a session consume some items, and return its file."""
    await harness.send(name, *items)
    return (await harness.client.get(f"/v1/sessions/{name}/state")).content


async def test_a_file_has_exactly_the_promised_content(harness: Harness) -> None:
    """The file names format, model and step, and has the states, the last logits and the recent items."""
    await harness.send("u", "a", "b", 5)
    response = await harness.client.get(URL)
    tensors, metadata = opened(response.content)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == 'attachment; filename="u.safetensors"'
    assert metadata == {"format": "arraylstm-session-1", "model": FINGERPRINT, "step": "3"}
    assert {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()} == {
        "state_h": ("float32", (H,)),
        "state_m": ("float32", (LANES, H)),
        "logits": ("float32", (V,)),
        "recent": ("int64", (3,)),
    }
    assert tensors["recent"].tolist() == [0, 1, 5]
    weights = np.exp(tensors["logits"].astype(np.float64))
    order = np.argsort(-weights, kind="stable")
    expected = expected_predictions(["a", "b", 5])
    assert [(LABELS[n], weights[n] / weights.sum()) for n in order] == near(expected)


@same_bits
@pytest.mark.parametrize("steps", [1, 31, 32, 33, 200])
async def test_a_session_goes_on_elsewhere_as_it_would_have_here(tmp_path: Path, steps: int) -> None:
    """Restored on another server under another name, a session gets the same answers as here, bit for bit."""
    here, there = (Harness(write_bundle(tmp_path / name)) for name in ("here", "there"))
    items = [LABELS[n * n % V] for n in range(steps)]
    body = await saved(here, *items)
    info = (await there.client.put("/v1/sessions/moved/state", content=body)).json()
    assert info == (await there.client.get("/v1/sessions/moved")).json()
    assert (info["session_id"], info["step"], info["recent"]) == ("moved", steps, items[-RECENT:])
    for number, chunk in enumerate((["c"], ["d", "5", "a"], ["e"])):
        expected = (await here.send("u", *chunk)).json()
        state = "continued" if number else "restored"
        assert (await there.send("moved", *chunk)).json() == expected | {"session_id": "moved", "state": state}
    moved = await there.client.get("/v1/sessions/moved/state")
    assert content(moved.content) == content((await here.client.get(URL)).content)


async def test_restored_is_said_by_the_first_answer_alone(harness: Harness) -> None:
    """The first applied event says `restored`, and so does its replay; looks and refused events do not use it up."""
    body = await saved(harness, "a", "b")
    await harness.client.put("/v1/sessions/v/state", content=body)
    look = await harness.client.get("/v1/sessions/v/predictions")
    assert look.json()["state"] == "restored"
    harness.engine.poison = 2
    for fields, code in (({"expected_step": 9}, "step_conflict"), ({}, "internal")):
        assert (await harness.send("v", "c", **fields)).json()["code"] == code
    harness.engine.poison = None
    first = await harness.send("v", "c", key="k", expected_step=2)
    assert first.json()["state"] == "restored"
    assert (await harness.send("v", "c", key="k", expected_step=2)).content == first.content
    assert (await harness.send("v", "d")).json()["state"] == "continued"


async def test_a_restored_state_takes_the_place_of_a_sessions_own(harness: Harness) -> None:
    """A session that is held goes on from the file; it keeps its idempotency keys and its time of creation."""
    early = await saved(harness, "a")
    created = (await harness.client.get("/v1/sessions/u")).json()["created_at"]
    kept = await harness.send("u", "b", "c", key="k")
    harness.clock.now += 7
    info = (await harness.client.put(URL, content=early)).json()
    assert (info["step"], info["recent"], info["created_at"]) == (1, ["a"], created)
    assert info["last_used_at"] > created
    assert (await harness.send("u", "b", "c", key="k")).content == kept.content
    answer = (await harness.send("u", "d")).json()
    assert (answer["step"], answer["state"]) == (2, "restored")
    assert predictions(answer) == near(expected_predictions(["a", "d"]))


async def test_keys_of_an_ended_session_outlive_its_restoring(harness: Harness) -> None:
    """A session restored after its end still repeats its answers to earlier keys."""
    body = await saved(harness, "a")
    last = await harness.send("u", "b", key="k", end=True)
    await harness.client.put(URL, content=body)
    assert (await harness.send("u", "b", key="k", end=True)).content == last.content
    assert (await harness.client.get("/v1/sessions/u")).json()["step"] == 1


async def test_a_save_waits_for_its_turn(harness: Harness) -> None:
    """A file requested between events has the step after the events before it."""
    sends = [harness.send("u", *["a"] * 9), harness.client.get(URL), harness.send("u", "b")]
    responses = await asyncio.gather(*sends)
    assert opened(responses[1].content)[1]["step"] == "9"


async def test_what_a_restore_answers_is_its_own_session(harness: Harness) -> None:
    """A restore answers with its own session at its turn, even if another session has the slot when it is read."""
    body = await saved(harness, "a", "b", "c", name="v")
    await harness.send("secret", "e")
    caller = Caller("", "", perf_counter(), perf_counter() + 60)

    def ask(command: Command) -> Awaitable[bytes]:
        return harness.service.ask(command, caller)

    def advance(name: str, *items: str) -> Awaitable[bytes]:
        return ask(Advance(session_id=name, items=items, top_k=10, render=render_session))

    replies = [advance("v", "d", "d")]
    restored = ask(Restore(session_id="v", file=body, describe=harness.service.describe))
    replies += [ask(Remove(session_id="v")), advance("secret", "e"), advance("secret", "e", "e")]
    answer = json.loads(await restored)
    assert (answer["session_id"], answer["step"], answer["recent"]) == ("v", 3, ["a", "b", "c"])
    await asyncio.gather(*replies)


async def test_a_restored_session_begins_within_the_bounds(bundle_path: Path) -> None:
    """A restored session takes the place of the least recently used one, and is refused while all are busy."""
    harness = Harness(bundle_path, max_sessions=1)
    body = await saved(harness, "a")
    assert (await harness.client.put("/v1/sessions/v/state", content=body)).status_code == 200
    assert (await harness.client.get("/v1/sessions/u")).status_code == 404
    busy = harness.send("v", *["b"] * 9)
    _, refused = await asyncio.gather(busy, harness.client.put("/v1/sessions/w/state", content=body))
    check(refused, "capacity")
    assert len(harness.service.sessions) == 1


async def test_a_file_may_be_larger_than_other_bodies(bundle_path: Path) -> None:
    """A valid file larger than max_body is accepted; one larger than any state of this model is refused."""
    source, harness = Harness(bundle_path), Harness(bundle_path, max_body=20)
    body = await saved(source, *["a"] * 40)
    assert (await harness.client.put(URL, content=body)).json()["step"] == 40
    check(await harness.client.put(URL, content=body.ljust(harness.service.largest_state + 1)), "payload_too_large")


async def test_a_state_of_another_model_is_refused(harness: Harness, tmp_path: Path) -> None:
    """A file that another model made is answered 409, and nothing changes."""
    other = "sha256:" + "f" * 64
    model = step_model(**{"arraylstm.fingerprint": other})
    stranger = Harness(write_bundle(tmp_path / "other", model=model, fingerprint=other))
    await harness.send("u", "a")
    problem = check(await harness.client.put(URL, content=await saved(stranger, "b", "c")), "model_mismatch")
    assert other[:20] in problem["detail"]
    assert (await harness.client.get("/v1/sessions/u")).json()["recent"] == ["a"]


async def test_a_save_or_restore_of_what_is_not_there(harness: Harness) -> None:
    """A GET of the state of a session that is not held is answered 404; a malformed id is refused before the body."""
    assert check(await harness.client.get(URL), "unknown_session")["session_id"] == "u"
    for method in ("GET", "PUT"):
        check(await harness.client.request(method, "/v1/sessions/a b/state"), "invalid_session_id")


async def test_a_sessions_version_counts_its_changes(harness: Harness) -> None:
    """Every event and every PUT of a state adds one to the version, whatever the session's step is afterwards."""
    young = await saved(harness, "a", name="v")
    sessions = []
    for items in (["a"], ["b", "c", "d"], ["e"]):
        await harness.send("u", *items)
        sessions.append(harness.service.sessions.find("u"))
    assert (await harness.client.put(URL, content=young)).status_code == 200
    sessions.append(harness.service.sessions.find("u"))
    assert [session.version for session in sessions] == [1, 2, 3, 4]
    assert len({session.incarnation for session in sessions}) == 1


BEGUN = {
    "inputs": [{"name": "items", "datatype": "INT64", "shape": [1], "data": [1]}],
    "parameters": {"sequence_id": "u", "sequence_start": True},
}


@pytest.mark.parametrize("how", ["removed", "ended", "started"])
async def test_a_session_that_begins_again_is_another_incarnation(harness: Harness, how: str) -> None:
    """After a removal, an end or the start of a sequence, the session has another incarnation, and version 1 again."""
    await harness.send("u", "a", end=how == "ended")
    first = harness.service.sessions.find("u")
    if how == "removed":
        await harness.client.delete("/v1/sessions/u")
    if how == "started":
        assert (await harness.client.post("/v2/models/arraylstm/infer", json=BEGUN)).status_code == 200
    else:
        await harness.send("u", "b")
    again = harness.service.sessions.find("u")
    assert (again.version, again.step) == (1, 1)
    assert again.incarnation not in (0, first.incarnation)
