"""The step graph in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arraylstm_serve import Bundle
from arraylstm_serve.engine import step_graph as graph
from arraylstm_serve.engine.step_graph import StepGraph, open_graph
from arraylstm_serve.errors import StartupError

from .bundles import STATES, H, Reference, V


@pytest.fixture
def tiny(bundle_path: Path) -> StepGraph:
    """The graph of the bundle, on the CPU."""
    return open_graph(Bundle.load(bundle_path), 1)


def random_states(rows: int) -> list[np.ndarray]:
    """Random states of some rows."""
    random = np.random.default_rng(rows)
    return [random.normal(size=(rows, *state["shape"])).astype(np.float32) for state in STATES]


def test_a_step_is_that_of_the_float64_model(tiny: StepGraph) -> None:
    """Logits and next states agree with the float64 transcription from random states."""
    states = random_states(V)
    logits, (h, m) = tiny.run(np.arange(V), states)
    for row in range(V):
        model = Reference(h=states[0][row].astype(float), m=states[1][row].astype(float))
        weights = np.exp(logits[row].astype(float))
        np.testing.assert_allclose(weights / weights.sum(), model.step(row), atol=1e-5)
        np.testing.assert_allclose(h[row], model.h, atol=1e-5)
        np.testing.assert_allclose(m[row], model.m, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 15, 64])
def test_a_row_is_the_same_bits_in_any_batch(tiny: StepGraph, rows: int) -> None:
    """Each row of a batch, of no rows too, equals bit for bit that row run alone."""
    items, states = np.arange(rows) % V, random_states(rows)
    logits, next_states = tiny.run(items, states)
    assert logits.shape == (rows, V)
    assert next_states[0].shape == (rows, H)
    for row in range(rows):
        alone = slice(row, row + 1)
        one, one_states = tiny.run(items[alone], [state[alone] for state in states])
        assert np.array_equal(one[0], logits[row])
        assert all(np.array_equal(a[0], b[row]) for a, b in zip(one_states, next_states, strict=True))


def test_warm_up_runs_every_batch_size_it_promises(tiny: StepGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warm-up runs the powers of two below the largest batch, and the largest batch."""
    sizes: list[int] = []
    monkeypatch.setattr(tiny, "run", lambda items, states: sizes.append(len(items)))
    tiny.warm_up(48)
    assert sizes == [1, 2, 4, 8, 16, 32, 48]


def test_two_runtimes_at_once_are_an_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both distributions of onnxruntime installed is told together with the remedy."""
    monkeypatch.setattr(graph, "distribution", lambda name: name)
    with pytest.raises(StartupError, match="pip uninstall -y onnxruntime onnxruntime-gpu"):
        graph.StepGraph(bundle_path / "step.onnx", 1, [])
