"""The model replayed on a session's items alone: step.onnx in onnxruntime, one row, one item at a time.

This reads the bundle by itself and shares no code with the server. Its arithmetic is the one that the server promises,
so that answers can be compared bit for bit where the server steps on the same kind of CPU.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from .history import Item
from .labels import labels_of

RECENT = 64
"""How many of a session's last items the server tells."""

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Seen = tuple[float, int, int] | None
"""What the model gave an item before it was consumed: its probability, and the first and last rank it may have."""


class ReplayError(Exception):
    """The bundle cannot be replayed, or a state file cannot be read; the message says why."""


@dataclass(eq=False, slots=True)
class Life:
    """A session from its beginning to some point: its items and where they lead.

    Attributes:
        step: how many items it has consumed.
        states: the states (*shape) float32, by name.
        logits: (V,) float32, or None before the first item.
        recent: its last items, 64 at most, as labels.
        seen: what the model gave to each of its last event's items.
        before: the life before its last event; None at the beginning.
        items: its last event's items.
        later: the lives that are known to follow, by the next event's items.
    """

    step: int
    states: dict[str, Floats]
    logits: Floats | None = None
    recent: tuple[Item, ...] = ()
    seen: tuple[Seen, ...] = ()
    before: Life | None = None
    items: tuple[Item, ...] = ()
    later: dict[tuple[Item, ...], Life] = field(default_factory=dict)


class Replay:
    """The model of a bundle.

    Args:
        bundle: the folder of the bundle.
        tolerance: by how much numbers may differ; 0 asks for the same bits.

    Attributes:
        items: the labels of its items.
        labels: the label of each id.
        fresh: the session that has consumed nothing.

    Raises:
        ReplayError: the folder is not a bundle that can be replayed.
    """

    def __init__(self, bundle: Path, tolerance: float = 0.0) -> None:
        self.bundle = bundle
        self.tolerance = tolerance
        try:
            manifest = json.loads((bundle / "manifest.json").read_bytes())
            self.fingerprint: str = manifest["fingerprint"]
            starts = {state["name"]: _start(state) for state in manifest["states"]}
            self.items = labels_of(bundle)
            self._session = _open(bundle / "step.onnx")
        except OSError as error:
            raise ReplayError(f"{bundle} is not a bundle: {error.filename}: {error.strerror}.") from None
        except Exception as error:  # onnxruntime's exception classes share no narrower base
            raise ReplayError(f"{bundle} is not a bundle that can be replayed: {error!r}.") from None
        self.labels = self.items.labels
        self.fresh = Life(0, starts)
        self._restored: dict[str, Life] = {}

    def knows(self, item: Item) -> bool:
        """Return whether the model has an item, as a label or by its unknown item."""
        return self.items.taken(item) is not None

    def ranking(self, logits: Floats, exclude: Sequence[Item] = ()) -> list[int]:
        """Return the ids of the items that may be predicted, most likely first; the unknown item never is."""
        never = {self.items.unknown, *map(self.items.listed, exclude)}
        return [index for index in np.argsort(-logits, kind="stable").tolist() if index not in never]

    def after(self, life: Life, items: tuple[Item, ...]) -> Life:
        """Return a life after one more event. Every item must be known."""
        known = life.later.get(items)
        if known is None:
            known = life.later[items] = self._walk(life, items)
        return known

    def restored(self, file: str) -> Life:
        """Return the life that a state file in base64 holds.

        Raises:
            ReplayError: the text is not a state file.
        """
        if file not in self._restored:
            self._restored[file] = self._read(file)
        return self._restored[file]

    def forget(self) -> None:
        """Forget all lives, for the sake of memory."""
        self.fresh.later.clear()
        self._restored.clear()

    def _walk(self, life: Life, items: tuple[Item, ...]) -> Life:
        states, logits, seen = life.states, life.logits, []
        for item in items:
            index = self.items.taken(item)
            assert index is not None, f"the model does not know {item!r}"
            seen.append(None if logits is None else self._observe(logits, index))
            states, logits = self._step(states, index)
        recent = self.items.kept((*life.recent, *items)[-RECENT:])
        return Life(life.step + len(items), states, logits, recent, tuple(seen), life, items)

    def _step(self, states: dict[str, Floats], item: int) -> tuple[dict[str, Floats], Floats]:
        feeds = {"items": np.array([item]), **{f"state_{name}": value[None] for name, value in states.items()}}
        logits, *after = self._session.run(["logits", *(f"next_state_{name}" for name in states)], feeds)
        return {name: value[0] for name, value in zip(states, after, strict=True)}, logits[0]

    def _observe(self, logits: Floats, item: int) -> Seen:
        """Return what the model gave an item. The unknown item is behind all others, and before none."""
        chances = probabilities(logits)
        chance, unknown = float(chances[item]), self.items.unknown
        if item == unknown:
            return chance, len(logits), len(logits)
        others = np.arange(len(logits)) != (-1 if unknown is None else unknown)
        if not self.tolerance:
            rank = 1 + int((logits > logits[item])[others].sum())
            return chance, rank, rank
        first = 1 + int((chances > chance + self.tolerance)[others].sum())
        return chance, first, int((chances >= chance - self.tolerance)[others].sum())

    def _read(self, file: str) -> Life:
        try:
            body = base64.b64decode(file, validate=True)
            tensors = safetensors.numpy.load(body)
            header: dict[str, Any] = msgspec.json.decode(body[8 : 8 + int.from_bytes(body[:8], "little")])
            facts = header["__metadata__"]
            if facts["model"] != self.fingerprint:
                raise ReplayError(f"the state file is of the model {facts['model']}")
            recent = tuple(self.labels[index] for index in tensors["recent"])
            states = {name: tensors[f"state_{name}"] for name in self.fresh.states}
            return Life(int(facts["step"]), states, tensors["logits"], recent)
        except (binascii.Error, ValueError, KeyError, IndexError, safetensors.SafetensorError) as error:
            raise ReplayError(f"the body is not a state file: {error!r}") from None


def _start(state: dict[str, Any]) -> Floats:
    """Return what every session's state starts from: zeros, or the manifest's numbers."""
    if state["initial"] == "zeros":
        return np.zeros(state["shape"], np.float32)
    return np.array(state["initial"], np.float32).reshape(state["shape"])


def _open(graph: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def probabilities(logits: Floats) -> Doubles:
    """Return the probabilities (V,) float64 of logits (V,): their softmax, summed in float64 as the server sums."""
    row = logits[None]
    top = row.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(row - top).sum(axis=1, dtype=np.float64)) + top[:, 0]
    chances: Doubles = np.minimum(np.exp(logits - log_sum), 1.0)
    return chances
