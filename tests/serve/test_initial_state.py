"""A model whose sessions start from numbers of its own: every beginning begins there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.base import Engine
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.errors import BundleError
from arraylstm_serve.settings import Settings

from ..histories.replay import Replay
from .answers import near
from .bundles import LABELS, LANES, STATES, WEIGHTS, H, Reference, V, index_of, step_model, write_bundle
from .harness import Harness, observed, predictions
from .test_device_engine import on_device

START = {
    "h": np.linspace(-0.9, 0.7, H, dtype=np.float32),
    "m": np.linspace(0.3, -0.4, LANES * H, dtype=np.float32).reshape(LANES, H),
}


def told(start: dict[str, Any]) -> list[dict[str, Any]]:
    """The states as a manifest tells them that start from these numbers."""
    return [state | {"initial": start[state["name"]].ravel().tolist()} for state in STATES]


def write_started(path: Path) -> Path:
    """Write a bundle whose sessions start from START."""
    states = told(START)
    return write_bundle(
        path, model=step_model(**{"arraylstm.states": json.dumps(states)}), states=states, schema_version=2
    )


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A bundle whose sessions start from START."""
    return write_started(tmp_path / "started")


def reference(items: list[Any]) -> np.ndarray:
    """The probabilities (S, V) after each of a session's items, by the float64 model."""
    model = Reference(h=START["h"].astype(float), m=START["m"].astype(float))
    return np.array([model.step(index_of(item)) for item in items])


def expected(items: list[Any]) -> list[tuple[Any, float]]:
    """All labels and probabilities after a session's items, most likely first."""
    row = reference(items)[-1]
    return [(LABELS[index], float(row[index])) for index in np.argsort(-row, kind="stable")]


@pytest.mark.anyio
async def test_sessions_begin_there(started: Path) -> None:
    """A new session, one that was deleted, one in bulk and a prediction without a session are the model's own."""
    harness = Harness(started)
    first = (await harness.send("u", "a", "b")).json()
    assert predictions(first) == near(expected(["a", "b"]))
    assert observed(first)[0] == (None, None)
    after_a = reference(["a"])[0]
    assert observed(first)[1][0] == pytest.approx(after_a[index_of("b")])
    assert predictions((await harness.send("u", "c")).json()) == near(expected(["a", "b", "c"]))
    assert (await harness.client.delete("/v1/sessions/u")).status_code == 204
    assert (await harness.send("u", "a", "b")).json() == first
    alone = (await harness.client.post("/v1/predict", json={"items": ["a", "b"]})).json()
    assert alone["predictions"] == first["predictions"]
    bulk = {"events": [{"session_id": "v", "items": ["a", "b"]}, {"session_id": "w", "items": [5]}]}
    one, other = (await harness.client.post("/v1/events", json=bulk)).json()["results"]
    assert one["predictions"] == first["predictions"]
    assert predictions(other) == near(expected([5]))
    assert (await harness.client.get("/v1/model")).json()["states"] == told(START)


@pytest.mark.anyio
async def test_sequences_of_open_inference_begin_there(started: Path) -> None:
    """With sequence_start, when it is given again, and without a sequence."""
    client = Harness(started).client
    model = Reference(h=START["h"].astype(float), m=START["m"].astype(float))
    model.step(3)
    logits = model.h @ WEIGHTS["W"].astype(float) + WEIGHTS["b"]
    items = [{"name": "items", "shape": [1, 1], "datatype": "INT64", "data": [3]}]
    for parameters in ({"sequence_id": 7, "sequence_start": True},) * 2 + ({},):
        body = {"inputs": items, "parameters": parameters}
        answer = (await client.post("/v2/models/arraylstm/infer", json=body)).json()
        np.testing.assert_allclose(answer["outputs"][0]["data"], logits, atol=1e-5)


@pytest.mark.anyio
async def test_state_that_is_restored_stays_what_it_is(started: Path) -> None:
    """A session that began there goes on from its own state elsewhere."""
    one, other = Harness(started), Harness(started)
    await one.send("u", "a", "b")
    state = (await one.client.get("/v1/sessions/u/state")).content
    assert (await other.client.put("/v1/sessions/u/state", content=state)).is_success
    answer = (await other.send("u", "c")).json()
    assert predictions(answer) == near(expected(["a", "b", "c"]))


def on_host(path: Path) -> Engine:
    """Open the host's engine for a bundle."""
    return open_engine(Bundle.load(path), Settings(device="cpu"), 5)


@pytest.mark.parametrize("opened", [on_host, on_device])
def test_each_engine_keeps_the_start_in_its_first_row(started: Path, opened: Any) -> None:
    """It is there before and after steps, and a step from it is the model's."""
    engine = opened(started)
    engine.warm_up(4)
    for items in ([0, 1, 2], [6]):
        rows = np.arange(len(items))
        step = engine.step(np.full(len(items), INITIAL), INITIAL + 1 + rows, np.array(items), [V] * len(items))
        for item, ranking in zip(items, step.rankings, strict=True):
            row = reference([LABELS[item]])[-1]
            assert ranking.ids == np.argsort(-row, kind="stable").tolist()
            np.testing.assert_allclose(ranking.probabilities, np.sort(row)[::-1], atol=1e-5)
        kept = engine.read(np.array([INITIAL]))
        for name, start in START.items():
            np.testing.assert_array_equal(kept[f"state_{name}"][0], start)


def test_the_checker_of_histories_begins_there(started: Path) -> None:
    """What it holds servers' answers against is the model from its start."""
    life = Replay(started).fresh
    for name, start in START.items():
        np.testing.assert_array_equal(life.states[name], start)


def test_numbers_are_told_exactly(started: Path) -> None:
    """Each float32 comes back from the manifest as it was."""
    states = Bundle.load(started).manifest.states
    for state in states:
        assert np.array(state.initial, np.float32).tobytes() == START[state.name].tobytes()


def test_a_start_in_a_manifest_of_version_1_is_refused(tmp_path: Path) -> None:
    """Servers that read version 1 alone would start from zeros, so the numbers need version 2."""
    states = told(START)
    model = step_model(**{"arraylstm.states": json.dumps(states)})
    with pytest.raises(BundleError, match="schema_version 1, in which all states start from zeros"):
        Bundle.load(write_bundle(tmp_path / "old", model=model, states=states))
