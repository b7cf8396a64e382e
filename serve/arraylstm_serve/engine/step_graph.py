"""The step graph in onnxruntime: load it, check it against the manifest, run it on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.bundle.load import Bundle
from arraylstm_serve.bundle.manifest import Graph, State, Tensor
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.errors import BundleError, StartupError
from arraylstm_serve.text import shortened

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
FINGERPRINT_KEY = "arraylstm.fingerprint"
STATES_KEY = "arraylstm.states"
DTYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


class StepGraph:
    """Steps a batch of rows by one item each, on the CPU; it keeps nothing between runs.

    Args:
        step_path: the ONNX file; its graph maps `items` and `state_<name>` to `logits` and `next_state_<name>`.
        threads: threads that one run may use.
        states: the states, in the order in which `run` takes and returns them.

    Raises:
        StartupError: onnxruntime cannot load the graph.
    """

    def __init__(self, step_path: Path, threads: int, states: Sequence[State]) -> None:
        refuse_two_runtimes()
        self._session = open_session(step_path, [CPU], threads)
        self._states = tuple(states)
        self._inputs = [f"state_{state.name}" for state in states]
        self._outputs = ["logits", *(f"next_state_{state.name}" for state in states)]
        self.provider: str = self._session.get_providers()[0]

    def run(self, items: Integers, states: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
        """Step every row by one item.

        Args:
            items: (B,) int64 item ids; B may be 0.
            states: an array (B, *shape) float32 for each state.

        Returns:
            Logits (B, V) float32 and the next states, shaped like `states`.
        """
        feeds = {"items": items, **dict(zip(self._inputs, states, strict=True))}
        logits, *next_states = self._session.run(self._outputs, feeds)
        return logits, next_states

    def warm_up(self, max_batch: int) -> None:
        """Run a batch of each size in `batch_sizes`.

        Raises:
            StartupError: the machine cannot run a batch of that size.
        """
        for rows in batch_sizes(max_batch):
            with batch_faults(rows, max_batch):
                states = [np.zeros((rows, *state.shape), np.float32) for state in self._states]
                self.run(np.zeros(rows, np.int64), states)

    def signature(self) -> Graph:
        """Return the inputs and outputs that the loaded graph declares."""
        return Graph(_tensors(self._session.get_inputs()), _tensors(self._session.get_outputs()))

    def metadata(self) -> dict[str, str]:
        """Return the graph's metadata_props."""
        return dict(self._session.get_modelmeta().custom_metadata_map)


def open_graph(bundle: Bundle, threads: int) -> StepGraph:
    """Load a bundle's step graph and check it against the manifest.

    Raises:
        BundleError: the graph's signature or metadata differ from the manifest's.
        StartupError: see `StepGraph`.
    """
    graph = StepGraph(bundle.step_path, threads, bundle.manifest.states)
    seen, promised = graph.signature(), bundle.step_graph
    _compare(bundle, "inputs", seen.inputs, promised.inputs)
    _compare(bundle, "outputs", seen.outputs, promised.outputs)
    _compare(bundle, "inputs", _expected_inputs(bundle), promised.inputs)
    needed = _expected_outputs(bundle)
    names = {tensor.name for tensor in needed}  # a graph may have more outputs, which show what a cell did
    _compare(bundle, "outputs", needed, [tensor for tensor in promised.outputs if tensor.name in names])
    _verify_metadata(bundle, graph.metadata())
    return graph


def refuse_two_runtimes() -> None:
    """Raise StartupError if onnxruntime and onnxruntime-gpu are both installed; the one for the CPU would win."""
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise StartupError(
            "onnxruntime and onnxruntime-gpu are both installed and hide each other; run "
            "`pip uninstall -y onnxruntime onnxruntime-gpu` and install the one you want again."
        )


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def batch_sizes(max_batch: int) -> list[int]:
    """Return the batch sizes to prepare for: the powers of two below max_batch, and max_batch."""
    return [*(1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch), max_batch]


@contextmanager
def batch_faults(rows: int, max_batch: int) -> Iterator[None]:
    """Turn an error of a run into a StartupError that names the size of the batch."""
    try:
        yield
    except Exception as error:  # onnxruntime's exception classes share no narrower base
        why = shortened(" ".join(str(error).split()), 400)
        raise StartupError(
            f"the model cannot run a batch of {rows} sessions (--max-batch is {max_batch}): {why}"
        ) from error


def open_session(
    model: Path | bytes, providers: Sequence[Any], threads: int, entries: Mapping[str, str] = MappingProxyType({})
) -> ort.InferenceSession:
    """Load a graph.

    Args:
        model: the path of an ONNX file, or the content of one.
        providers: onnxruntime's execution providers, in the order in which they may take nodes.
        threads: threads that one run may use on the CPU.
        entries: more entries for the configuration of the session.

    Raises:
        StartupError: onnxruntime cannot load the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's exception classes share no narrower base
        named = model if isinstance(model, Path) else "a graph"
        raise StartupError(f"onnxruntime cannot load {named}: {error}") from error


def _tensors(nodes: Iterable[Any]) -> list[Tensor]:
    return [Tensor(node.name, DTYPES.get(node.type, node.type), tuple(node.shape)) for node in nodes]


def _expected_inputs(bundle: Bundle) -> list[Tensor]:
    states = bundle.manifest.states
    return [
        Tensor("items", "int64", ("B",)),
        *(Tensor(f"state_{state.name}", state.dtype, ("B", *state.shape)) for state in states),
    ]


def _expected_outputs(bundle: Bundle) -> list[Tensor]:
    manifest = bundle.manifest
    return [
        Tensor("logits", "float32", ("B", manifest.model.num_items)),
        *(Tensor(f"next_state_{state.name}", state.dtype, ("B", *state.shape)) for state in manifest.states),
    ]


def _compare(bundle: Bundle, side: str, seen: list[Tensor], promised: list[Tensor]) -> None:
    here, there = {_described(tensor) for tensor in seen}, {_described(tensor) for tensor in promised}
    if here != there:
        raise BundleError(
            f"{bundle.step_path} does not have the {side} of the manifest: "
            f"seen {sorted(here - there)}, expected {sorted(there - here)}."
        )


def _described(tensor: Tensor) -> str:
    sizes = ", ".join(str(size) if isinstance(size, int) else "free" for size in tensor.shape)
    return f"{tensor.name} {tensor.dtype} [{sizes}]"


def _verify_metadata(bundle: Bundle, metadata: dict[str, str]) -> None:
    fingerprint = metadata.get(FINGERPRINT_KEY)
    if fingerprint != bundle.fingerprint:
        raise BundleError(
            f"{bundle.step_path} carries the fingerprint {fingerprint}; the manifest says {bundle.fingerprint}."
        )
    states = metadata.get(STATES_KEY, "")
    if _decoded_states(states) != bundle.manifest.states:
        expected = msgspec.json.encode(bundle.manifest.states).decode()
        raise BundleError(
            f"{bundle.step_path} carries the states {shortened(states, 400)}; "
            f"the manifest says {shortened(expected, 400)}."
        )


def _decoded_states(text: str) -> list[State] | None:
    try:
        return msgspec.json.decode(text, type=list[State])
    except msgspec.DecodeError:
        return None
