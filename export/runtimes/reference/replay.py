"""Replays a bundle's test vectors in onnx.reference, the specification of ONNX in numpy: python replay.py BUNDLE.

Exit status: 0 within the manifest's tolerance, 1 beyond it, 2 bad input. Needs onnx and numpy, nothing else.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx.checker import ValidationError
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class Model:
    """A bundle's graphs in onnx.reference. Copy this class and what it calls.

    >>> model = Model(Path("bundle"))
    >>> state = model.initial_state(1)
    >>> for item in (3, 1, 4):
    ...     outputs, state = model.step(np.array([item]), state)  # outputs["logits"] is (1, V)
    """

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle / "manifest.json")
        self.states = [state["name"] for state in self.manifest["states"]]
        step, sequence = (read_graph(bundle / name) for name in ("step.onnx", "sequence.onnx"))
        # onnx.reference does not look at the input sequence_lens of an LSTM operator.
        self.heeds_lengths = all(node.op_type != "LSTM" for node in sequence.graph.node)
        self._step = ReferenceEvaluator(step)
        self._sequence = ReferenceEvaluator(sequence)

    def initial_state(self, batch: int) -> Arrays:
        """Return the state a session starts from: by name, arrays (B, ...)."""
        return {state["name"]: start_of(state, batch) for state in self.manifest["states"]}

    def step(self, items: Array, state: Arrays) -> tuple[Arrays, Arrays]:
        """Consume one item per row: items (B) int64 -> the logits (B, V) and diagnostics by name, the next state."""
        return self._run(self._step, {"items": items}, state)

    def sequence(self, items: Array, lengths: Array, state: Arrays) -> tuple[Arrays, Arrays]:
        """Consume a sequence per row: items (B, S), lengths (B) int64 -> logits (B, S, V), diagnostics, states by name.

        A row's state is that after its own length; but unless `heeds_lengths`, every length has to be S.
        """
        return self._run(self._sequence, {"items": items, "lengths": lengths}, state)

    def _run(self, graph: ReferenceEvaluator, inputs: Arrays, state: Arrays) -> tuple[Arrays, Arrays]:
        feed = {**inputs, **{f"state_{name}": array for name, array in state.items()}}
        outputs = dict(zip(graph.output_names, graph.run(None, feed), strict=True))
        following = {name: outputs.pop(f"next_state_{name}") for name in self.states}
        return outputs, following


class BadBundleError(Exception):
    """Says in a sentence why a folder cannot be replayed."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into a sentence about it."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, EOFError, DecodeError, BadZipFile, ValidationError) as error:
        raise BadBundleError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what the manifest says, if it says nothing that this program would not heed."""
    if not path.is_file():
        raise BadBundleError(f"{path.parent}: is no bundle, for it has no manifest.json")
    with reading(path):
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema_version"] not in (1, 2):
            raise ValueError(f"it has schema_version {manifest['schema_version']}; this program reads 1 and 2")
        for state in manifest["states"]:
            check_state(state)
    return manifest


def check_state(state: dict[str, Any]) -> None:
    """Refuse a state that the program would not start or keep rightly."""
    name, dtype, initial, size = state["name"], state["dtype"], state["initial"], math.prod(state["shape"])
    if dtype != "float32":
        raise ValueError(f"state {name} has dtype {dtype}; this program knows float32 only")
    if initial != "zeros" and not isinstance(initial, list):
        raise ValueError(
            f"state {name} has initial {initial}; this program knows zeros, or the {size} numbers of a row"
        )
    if initial != "zeros" and len(initial) != size:
        raise ValueError(f"state {name} has {len(initial)} numbers as initial; a row of it has {size}")


def start_of(state: dict[str, Any], batch: int) -> Array:
    """Return what a state starts from, for each row of a batch: zeros, or the manifest's numbers."""
    row = np.zeros(state["shape"]) if state["initial"] == "zeros" else np.reshape(state["initial"], state["shape"])
    return np.repeat(row[np.newaxis].astype(state["dtype"]), batch, axis=0)


def read_graph(path: Path) -> onnx.ModelProto:
    """Return a graph that keeps ONNX's rules."""
    with reading(path):
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
    return graph


def read_vectors(bundle: Path, model: Model, graph: str) -> dict[str, Arrays]:
    """Return a graph's test vectors by file name."""
    signature = model.manifest["graphs"][f"{graph}.onnx"]
    names = [tensor["name"] for tensor in (*signature["inputs"], *signature["outputs"])]
    found = {}
    for path in sorted((bundle / "vectors" / graph).glob("*.npz")):
        with reading(path), path.open("rb") as file, np.load(file) as archive:
            found[path.name] = {name: archive[name] for name in names}
    if not found:
        raise BadBundleError(f"{bundle}: has no vectors/{graph}/*.npz")
    return found


def main() -> int:
    """Replay a bundle, print what was found, return the exit status."""
    parser = argparse.ArgumentParser(description="Replay a bundle's test vectors in onnx.reference.")
    parser.add_argument("bundle", type=Path, help="folder that arraylstm-export wrote")
    bundle = parser.parse_args().bundle
    try:
        model = Model(bundle)
        return replay(model, read_vectors(bundle, model, "step"), read_vectors(bundle, model, "sequence"))
    except BadBundleError as error:
        print(error, file=sys.stderr)
        return 2


def replay(model: Model, steps: dict[str, Arrays], sequences: dict[str, Arrays]) -> int:
    """Run all vectors in every way there is, print the differences, return the exit status."""
    whole = sequences if model.heeds_lengths else full_rows(sequences)
    largest = max(
        compare("step.onnx", steps, lambda v: model.step(v["items"], first_state(model, v))),
        compare("sequence.onnx", whole, lambda v: model.sequence(v["items"], v["lengths"], first_state(model, v))),
        compare("step.onnx, item by item", sequences, lambda v: item_by_item(model, v)),
    )
    if not model.heeds_lengths:
        print(
            "sequence.onnx: only full rows were compared, for onnx.reference ignores an LSTM operator's sequence_lens"
        )
    print(f"largest difference {largest:.1e}")
    return 0 if largest <= max(model.manifest["tolerance"]["allowed"], 1e-5) else 1


def full_rows(sequences: dict[str, Arrays]) -> dict[str, Arrays]:
    """Return the vectors' rows whose length is S."""
    rows = {file: vector["lengths"] == vector["items"].shape[1] for file, vector in sequences.items()}
    return {file: {name: array[rows[file]] for name, array in sequences[file].items()} for file in rows}


def first_state(model: Model, vector: Arrays) -> Arrays:
    """Return the state a vector starts from. If its rows all start alike, as sessions do, it is the model's to say."""
    state = {name: vector[f"state_{name}"].copy() for name in model.states}
    rows = len(vector["items"])
    alike = rows > 1 and all((array == array[:1]).all() for array in state.values())
    return model.initial_state(rows) if alike else state


def item_by_item(model: Model, vector: Arrays) -> tuple[Arrays, Arrays]:
    """Run every row as a session of its own, keeping its state; behind its length, logits and diagnostics are zero."""
    kept = first_state(model, vector)
    others = {"items", "lengths"} | {f"{side}_{name}" for side in ("state", "next_state") for name in model.states}
    series = {name: np.zeros_like(array) for name, array in vector.items() if name not in others}
    for row, length in enumerate(vector["lengths"]):
        state = {name: array[row : row + 1] for name, array in kept.items()}
        for t in range(length):
            outputs, state = model.step(vector["items"][row : row + 1, t], state)
            for name, array in outputs.items():
                series[name][row, t] = array[0]
        for name, array in state.items():
            kept[name][row] = array[0]
    return series, kept


def compare(form: str, chosen: dict[str, Arrays], run: Callable[[Arrays], tuple[Arrays, Arrays]]) -> float:
    """Run vectors, print and return the largest difference from what they expect."""
    found = []
    for file, vector in chosen.items():
        outputs, state = run(vector)
        following = {f"next_state_{name}": array for name, array in state.items()}
        found += [
            (difference(array, vector[name]), f"{name} of {file}") for name, array in (outputs | following).items()
        ]
    largest, where = max(found)
    print(f"{form}: {len(chosen)} vectors, largest difference {largest:.1e} in {where}")
    return largest


def difference(found: Array, expected: Array) -> float:
    """Return the largest |a - b| / max(1, |b|), infinite where a is NaN or of another shape."""
    if found.shape != expected.shape:
        return np.inf
    relative = np.abs(found.astype(np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.nan_to_num(relative, nan=np.inf).max(initial=0.0))


if __name__ == "__main__":
    sys.exit(main())
