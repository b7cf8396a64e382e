"""The device's engine, checked against the host's; it runs on the CPU unless --device cuda is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.engine.gpu import binding as device_binding
from arraylstm_serve.engine.gpu import engine as device_engine
from arraylstm_serve.engine.gpu import graphs as device_graphs
from arraylstm_serve.engine.gpu.binding import BoundGraph
from arraylstm_serve.engine.gpu.engine import DeviceEngine, cuda_place, open_cuda
from arraylstm_serve.engine.gpu.graphs import TOP
from arraylstm_serve.engine.gpu.memory import Memory, Place
from arraylstm_serve.engine.host import HostEngine
from arraylstm_serve.engine.open import open_engine
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.slots import INITIAL
from arraylstm_serve.engine.step_graph import CPU, CUDA, batch_sizes, open_session
from arraylstm_serve.errors import StartupError
from arraylstm_serve.settings import Device, Settings

from ..devices import ENGINES, Chosen
from .bundles import LABELS, V, step_model, write_bundle
from .harness import Harness, observed, predictions
from .test_events import near

SLOTS, LARGEST = 41, 24
FIRST = INITIAL + 1
ONE = np.array([INITIAL]), np.array([FIRST])
"""The sources and targets of a session's first step."""
CLOSE = 1e-6 if Chosen.device == "cpu" else 1e-5


def on_device(path: Path, slots: int = SLOTS, max_batch: int = LARGEST) -> DeviceEngine:
    """Open the device's engine for a bundle."""
    place = Place("cpu", "CPU", {}) if Chosen.device == "cpu" else cuda_place(Settings())
    return DeviceEngine(Bundle.load(path), place, slots, max_batch)


def on_host(path: Path) -> HostEngine:
    """Open the host's engine for a bundle."""
    engine = open_engine(Bundle.load(path), Settings(device="cpu"), SLOTS)
    assert isinstance(engine, HostEngine)
    return engine


def test_it_does_what_the_hosts_engine_does(bundle_path: Path) -> None:
    """Steps of every batch size, in place and from row to row, reads and writes give what the host's engine gives."""
    device, host = on_device(bundle_path), on_host(bundle_path)
    device.warm_up(LARGEST)
    random = np.random.default_rng(0)
    begun = [INITIAL]
    for _ in range(300):
        rows = random.integers(1, LARGEST + 1).item()
        targets = FIRST + random.permutation(SLOTS - FIRST)[:rows]
        others = [slot for slot in begun if slot not in targets]
        sources = np.where(np.isin(targets, begun) & (random.random(rows) < 0.5), targets, random.choice(others, rows))
        items = random.integers(0, V, rows)
        depths = random.integers(0, V + 1, rows).tolist()
        one, other = (engine.step(sources, targets, items, depths) for engine in (device, host))
        old = np.flatnonzero(sources != INITIAL)
        np.testing.assert_allclose(one.probabilities[old], other.probabilities[old], atol=CLOSE)
        assert one.ranks[old].tolist() == other.ranks[old].tolist()
        assert one.finite.all()
        assert [ranking.ids for ranking in one.rankings] == [ranking.ids for ranking in other.rankings]
        for ranking, expected in zip(one.rankings, other.rankings, strict=True):
            np.testing.assert_allclose(ranking.probabilities, expected.probabilities, atol=CLOSE)
        begun = sorted({*begun, *targets.tolist()})
        if random.random() < 0.2:
            pair = FIRST + random.permutation(SLOTS - FIRST)[:2]
            tensors = host.read(np.array(begun)[-2:])
            device.write(pair, tensors)
            host.write(pair, tensors)
            begun = sorted({*begun, *pair.tolist()})
    held = np.array(begun)
    assert len(held) > LARGEST  # more rows than one run of the graph can read
    found, kept = device.read(held), host.read(held)
    assert list(found) == list(kept)
    for name, values in kept.items():
        np.testing.assert_allclose(found[name], values, atol=CLOSE)
        assert not found[name][0].any()
    for one_row, row in zip(device.rank(held, 3), host.rank(held, 3), strict=True):
        assert one_row.ids == row.ids


def test_a_step_moves_no_other_row(bundle_path: Path) -> None:
    """Rows that are not targets keep every bit, even if they are sources, whatever the batch is filled up with."""
    engine = on_device(bundle_path, slots=FIRST + 2 * LARGEST)
    sources, targets = np.split(FIRST + np.arange(2 * LARGEST), 2)
    engine.step(np.full(LARGEST, INITIAL), sources, sources % V, [0] * LARGEST)
    engine.step(sources, targets, sources % V, [0] * LARGEST)
    for rows in range(1, LARGEST):
        others = np.array([INITIAL, *sources, *targets[rows:]])
        before = engine.read(others)
        engine.step(sources[:rows], targets[:rows], sources[:rows] % V, [1] * rows)
        after = engine.read(others)
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_look_repeats_what_the_step_told(bundle_path: Path) -> None:
    """Ranking a stepped row gives the same bits as the step gave."""
    engine = on_device(bundle_path)
    slots = FIRST + np.arange(5)
    depth = min(TOP, V)
    step = engine.step(np.full(5, INITIAL), slots, slots, [depth] * 5)
    assert engine.rank(slots, depth) == step.rankings


@pytest.mark.parametrize(("weight", "bad"), [("E", np.nan), ("b", np.inf)])
def test_a_row_without_finite_logits_is_told(tmp_path: Path, weight: str, bad: float) -> None:
    """A row without finite logits has no ranking, and its source does not change; other rows of the batch go on."""
    model = step_model()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[3] = bad  # item 3's embedding, which spoils rows of item 3, or its bias, which spoils all rows
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    engine = on_device(write_bundle(tmp_path / "bundle", model=model))
    sources, targets, fine = np.full(2, INITIAL), np.array([3, 4]), weight == "E"
    for first in (False, True):
        if first and fine:
            engine.step(sources, np.array([1, 2]), np.array([1, 2]), [0, 0])
            sources = np.array([1, 2])
        before = engine.read(sources)
        step = engine.step(sources, targets, np.array([3, 2]), [4, 4])
        assert step.finite.tolist() == [False, fine]
        assert [len(ranking.ids) for ranking in step.rankings] == [0, 4 * fine]
        after = engine.read(sources)
        assert all(np.array_equal(values, after[name]) for name, values in before.items())
        assert np.isfinite(engine.read(targets[1:])["logits"]).all() == fine


def test_rows_that_are_not_stepped_in_place_are_an_error(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a step in place differs from a step on a copy of the rows, the engine refuses to start."""
    unchanged = lambda self, rows, feeds: {f"next_{name}": values for name, values in rows.items()}  # noqa: E731
    monkeypatch.setattr(BoundGraph, "run_apart", unchanged)
    with pytest.raises(StartupError, match="does not step 1 sessions in place; use --device cpu"):
        on_device(bundle_path)


def test_a_graph_with_its_weights_beside_it_is_found(bundle_path: Path) -> None:
    """A step graph is loaded with weights in a separate file, as models over 2 GB have them."""
    expected = on_device(bundle_path).step(*ONE, np.array([4]), [V])
    bundle = Bundle.load(bundle_path)
    onnx.save(onnx.load(bundle.step_path), bundle.step_path, save_as_external_data=True, size_threshold=100)
    place = Place("cpu", "CPU", {}) if Chosen.device == "cpu" else cuda_place(Settings())
    engine = DeviceEngine(bundle, place, SLOTS, LARGEST)
    assert engine.step(*ONE, np.array([4]), [V]).rankings == expected.rankings


def test_more_rows_than_there_is_memory_for_are_an_error(bundle_path: Path) -> None:
    """If the device cannot hold the rows, the error says so and names the settings to lower."""
    with pytest.raises(StartupError, match="cannot hold or step that many sessions: .*; lower --max-sessions or"):
        on_device(bundle_path, slots=10**13)


@pytest.mark.anyio
async def test_sessions_move_between_host_and_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that moves between the two engines with its file gets the same answers as one that never moves."""
    servers = []
    for engine in ENGINES:
        monkeypatch.setattr(Chosen, "engine", engine)
        servers.append(Harness(write_bundle(tmp_path / engine)))
    items = [LABELS[number * number % V] for number in range(40)]
    for number, item in enumerate(items):
        here, there = servers[number % 2], servers[1 - number % 2]
        moved = (await here.send("moved", item)).json()
        stayed = (await servers[0].send("stayed", item)).json()
        assert predictions(moved) == near(predictions(stayed))
        assert observed(moved) == near(observed(stayed))
        state = await here.client.get("/v1/sessions/moved/state")
        assert (await there.client.put("/v1/sessions/moved/state", content=state.content)).status_code == 200


def test_cuda_asked_for_and_not_there_is_an_error(bundle_path: Path) -> None:
    """--device cuda is an error if onnxruntime has no CUDA; the server does not fall back to the CPU."""
    if CUDA in ort.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(StartupError, match="--device cuda was asked for but onnxruntime runs on .*serve-gpu"):
        open_engine(Bundle.load(bundle_path), Settings(device="cuda"), SLOTS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Any], dict[str, str]]]:
    """Let the CPU stand in for a GPU; return the providers and configuration entries of each session opened."""
    opened: list[tuple[list[Any], dict[str, str]]] = []

    def record(model: bytes, providers: list[Any], threads: int, entries: dict[str, str]) -> Any:
        opened.append((providers, entries))
        return open_session(model, [CPU], threads)

    memory = Place._memory

    def on_the_host(self: Place, shape: tuple[int, ...], dtype: Any, *, on_host: bool) -> Memory:
        return memory(self._replace(kind="cpu"), shape, dtype, on_host=on_host)

    monkeypatch.setattr(device_binding, "open_session", record)
    monkeypatch.setattr(Place, "_memory", on_the_host)
    monkeypatch.setattr(device_engine, "card", lambda: "a card")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA])
    return opened


def test_what_a_gpu_is_asked_for(bundle_path: Path, asked: list[tuple[list[Any], dict[str, str]]]) -> None:
    """Every graph runs on CUDA only; the step graph is captured, and has its bound on memory and its precision."""
    settings = Settings(device="cuda", tf32=True, gpu_memory=10**9, max_batch=4)
    engine = open_cuda(Bundle.load(bundle_path), settings, SLOTS)
    options = {"use_tf32": "1", "arena_extend_strategy": "kSameAsRequested"}
    small = (CUDA, options | {"enable_cuda_graph": "0"})
    step = (CUDA, options | {"enable_cuda_graph": "1", "gpu_mem_limit": "1000000000"})
    assert [providers for providers, _ in asked] == [[small]] * 3 + [[step]]
    assert all(entries["session.disable_cpu_ep_fallback"] == "1" for _, entries in asked)
    assert engine.device.startswith("a card, onnxruntime for CUDA")
    assert engine.device.endswith("TF32 on, CUDA graphs on")


@pytest.mark.usefixtures("asked")
def test_capturing_moves_no_session(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime runs a graph several times to capture it; those runs change no session's row."""
    captured: set[tuple[BoundGraph, int]] = set()
    run = BoundGraph.run

    def capture(bound: BoundGraph, feeds: Any, wanted: int) -> Any:
        size = len(next(iter(feeds.values())))
        if bound.captured and (bound, size) not in captured:
            captured.add((bound, size))
            for _ in range(2):
                run(bound, feeds, wanted)
        return run(bound, feeds, wanted)

    monkeypatch.setattr(BoundGraph, "run", capture)
    engine = open_cuda(Bundle.load(bundle_path), Settings(device="cuda", max_batch=LARGEST), SLOTS)
    host = on_host(bundle_path)
    for rows in (1, 2, 5, LARGEST):
        slots = FIRST + np.arange(rows)
        one, other = (each.step(np.full(rows, INITIAL), slots, slots % V, [V] * rows) for each in (engine, host))
        assert [ranking.ids for ranking in one.rankings] == [ranking.ids for ranking in other.rankings]
    assert len(captured) == len(batch_sizes(LARGEST))


@pytest.mark.usefixtures("asked")
def test_a_graph_that_cannot_be_captured_runs_as_it_is(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If onnxruntime cannot capture the step graph, the log says so, and the graph runs node by node."""
    run = BoundGraph.run

    def refuse(bound: BoundGraph, feeds: Any, wanted: int) -> Any:
        if bound.captured:
            raise RuntimeError("operation not permitted when stream is capturing")
        return run(bound, feeds, wanted)

    monkeypatch.setattr(BoundGraph, "run", refuse)
    engine = open_cuda(Bundle.load(bundle_path), Settings(device="cuda", max_batch=2), SLOTS)
    assert engine.device.endswith("CUDA graphs off")
    assert "not permitted when stream is capturing" in caplog.text
    assert engine.step(*ONE, np.array([1]), [1]).finite.all()


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_fails_is_told_in_a_sentence(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, device: Device
) -> None:
    """If the GPU fails, the start ends with onnxruntime's reason; --device auto logs it and uses the CPU."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("CUDA failure 700: an illegal memory access\n was encountered")

    monkeypatch.setattr(BoundGraph, "run", fail)
    bundle = Bundle.load(bundle_path)
    if device == "auto":
        assert isinstance(open_engine(bundle, Settings(device=device), SLOTS), HostEngine)
        assert "--device auto takes the CPU: a card" in caplog.text
    else:
        with pytest.raises(StartupError, match="a card.*CUDA failure 700: an illegal memory access was encountered"):
            open_engine(bundle, Settings(device=device), SLOTS)


def test_without_a_driver_the_gpu_cannot_be_had(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If onnxruntime has CUDA but there is no NVIDIA driver, the error says so."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(device_engine, "card", lambda: "")
    with pytest.raises(StartupError, match="no NVIDIA driver or no GPU; use --device cpu"):
        open_engine(Bundle.load(bundle_path), Settings(device="cuda"), SLOTS)


def test_rows_that_ask_for_many_items_are_read_together(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rankings longer than the device computes take one more run for the whole batch."""
    monkeypatch.setattr(device_graphs, "TOP", 2)
    engine = on_device(bundle_path)
    runs: list[int] = []
    run = BoundGraph.run
    monkeypatch.setattr(BoundGraph, "run", lambda bound, *args: runs.append(1) or run(bound, *args))
    slots = FIRST + np.arange(8)
    step = engine.step(np.full(8, INITIAL), slots, slots % V, [1, 2, 3, 4, 5, 6, 7, 0])
    assert len(runs) == 2
    assert [len(ranking.ids) for ranking in step.rankings] == [1, 2, 3, 4, 5, 6, 7, 0]
    expected = on_host(bundle_path).step(np.full(8, INITIAL), slots, slots % V, [1, 2, 3, 4, 5, 6, 7, 0])
    assert [ranking.ids for ranking in step.rankings] == [ranking.ids for ranking in expected.rankings]
