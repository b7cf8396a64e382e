"""Requests of `/v2`, the Open Inference Protocol: their bodies, and how their answers are judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from .history import Ask, Item
from .replay import Life, Replay, probabilities

PATH = "/v2/models/arraylstm/infer"
OUTPUTS = ("step", "predictions", "probabilities", "logits")


def body_of(session: str, ask: Ask, labels: Sequence[Item]) -> bytes:
    """Return the body of a request; the same request has the same bytes.

    Args:
        session: the id of the sequence.
        ask: what is asked for.
        labels: the model's items; the request names them by their places.
    """
    ids = [next(place for place, label in enumerate(labels) if _same(label, item)) for item in ask.items]
    tensor = {"name": "items", "shape": [1, len(ids)], "datatype": "INT64", "data": ids}
    sequence = {"sequence_id": session, "sequence_start": ask.start, "sequence_end": ask.end}
    parameters = sequence | {"top_k": ask.top_k}
    outputs = [{"name": name} for name in OUTPUTS]
    return msgspec.json.encode({"inputs": [tensor], "outputs": outputs, "parameters": parameters})


def is_refusal(content: Any) -> bool:
    """Return whether an answer is a refusal of the server's own."""
    return isinstance(content, dict) and set(content) == {"error"} and isinstance(content["error"], str)


def tensors_fault(replay: Replay, ask: Ask, after: Life, found: dict[str, Any]) -> str | None:
    """Return which tensor of an answer is not the replay's; None if all are."""
    try:
        outputs = {output["name"]: output["data"] for output in found["outputs"]}
        logits, chances = (np.array(outputs[name], np.float32) for name in ("logits", "probabilities"))
        labels = [str(label) for label in outputs["predictions"]]
    except (KeyError, TypeError, ValueError):
        return "The answer does not have the outputs that were asked for."
    assert after.logits is not None
    true = probabilities(after.logits)
    order = replay.ranking(after.logits)[: ask.top_k]
    due = np.array([true[index] for index in order], np.float32)
    if not _near(logits, after.logits, replay.tolerance):
        return "`logits` are not the replay's."
    if not _near(chances, due, replay.tolerance):
        return "`probabilities` are not the replay's."
    if replay.tolerance == 0 and labels != [str(replay.labels[index]) for index in order]:
        return f"`predictions` are {labels}; the model has {[str(replay.labels[index]) for index in order]}."
    return None


def _near(found: Any, due: Any, tolerance: float) -> bool:
    return found.shape == due.shape and bool((abs(found - due) <= tolerance).all())


def _same(one: Item, other: Item) -> bool:
    return type(one) is type(other) and one == other
