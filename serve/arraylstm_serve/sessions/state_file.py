"""A session's state as a safetensors file that a client can keep, move and give back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from arraylstm_serve.api.problems import INVALID_STATE, MODEL_MISMATCH, Problem
from arraylstm_serve.arrays import Floats
from arraylstm_serve.engine.base import LOGITS
from arraylstm_serve.sessions.session import RECENT
from arraylstm_serve.text import shortened, shown

MEDIA_TYPE = "application/octet-stream"
FORMAT = "arraylstm-session-1"
LARGEST_STEP = 2**53
_is_natural = re.compile("[1-9][0-9]{0,15}").fullmatch
OVERHEAD = 16_384
"""The most bytes that a state file may have in addition to its tensors."""


class StateFile(NamedTuple):
    """The content of a state file.

    Attributes:
        step: how many items the session has consumed.
        tensors: the tensors of the session's row, by name.
        recent: the ids of the session's last items, oldest first.
    """

    step: int
    tensors: dict[str, Floats]
    recent: list[int]


def dump(tensors: dict[str, Floats], recent: Sequence[int], step: int, fingerprint: str) -> bytes:
    """Write a state file: a session's tensors and recent items, with their model and step.

    Answers remembered for idempotency keys are not part of it.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    metadata = {"format": FORMAT, "model": fingerprint, "step": str(step)}
    return safetensors.numpy.save({**arrays, "recent": np.array(recent, np.int64)}, metadata)


def parse(body: bytes, fingerprint: str, shapes: dict[str, tuple[int, ...]]) -> StateFile:
    """Read a state file of the model with this fingerprint and these tensor shapes.

    Raises:
        Problem: `model_mismatch`: another model made the state; `invalid_state`: the file is not a valid state.
    """
    try:
        tensors: dict[str, dict[str, Any]] = dict(safetensors.deserialize(body))  # type: ignore[no-untyped-call]
        metadata = _metadata(body)
    except (safetensors.SafetensorError, msgspec.MsgspecError, ValueError) as error:
        raise _invalid(f"The body is not a safetensors file: {shortened(str(error), 200)}.") from None
    if metadata.get("format") != FORMAT:
        raise _invalid(f"The file's format is {shown(metadata.get('format'))}; expected {shown(FORMAT)}.")
    if metadata.get("model") != fingerprint:
        detail = f"Model {shown(metadata.get('model'))} made the state; this server's model is {shown(fingerprint)}."
        raise Problem(MODEL_MISMATCH, detail)
    step = _step(metadata.get("step"))
    if set(tensors) != {*shapes, "recent"}:
        seen, expected = shown(sorted(tensors)), sorted((*shapes, "recent"))
        raise _invalid(f"The file has the tensors {seen}; expected {shortened(str(expected), 400)}.")
    values = {name: _array(name, tensors[name], "F32", shape) for name, shape in shapes.items()}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise _invalid(f"The tensor {name} has values that are not finite numbers.")
    return StateFile(step, values, _recent(tensors["recent"], step, shapes[LOGITS][0]))


def _metadata(body: bytes) -> dict[str, str]:
    size = int.from_bytes(body[:8], "little")
    header: dict[str, Any] = msgspec.json.decode(body[8 : 8 + size])
    return msgspec.convert(header.get("__metadata__", {}), dict[str, str])


def _step(text: str | None) -> int:
    if text is None or not _is_natural(text) or int(text) > LARGEST_STEP:
        raise _invalid(f"The file's step is {shown(text)}; allowed are 1 to {LARGEST_STEP}.")
    return int(text)


def _recent(tensor: dict[str, Any], step: int, num_items: int) -> list[int]:
    most = min(RECENT, step)
    kept = tensor["shape"][0] if len(tensor["shape"]) == 1 and 1 <= tensor["shape"][0] <= most else most
    recent = _array("recent", tensor, "I64", (kept,))  # files of older servers have at most 32
    if not (recent.min() >= 0 and recent.max() < num_items):
        raise _invalid(f"The tensor recent has ids outside 0 to {num_items - 1}.")
    ids: list[int] = recent.tolist()
    return ids


def _array(name: str, tensor: dict[str, Any], dtype: str, shape: tuple[int, ...]) -> Any:
    if (tensor["dtype"], tuple(tensor["shape"])) != (dtype, shape):
        seen = f"{tensor['dtype']} {tensor['shape']}"
        raise _invalid(f"The tensor {name} is {seen}; expected {dtype} {list(shape)}.")
    return np.frombuffer(tensor["data"], np.float32 if dtype == "F32" else np.int64).reshape(shape)


def _invalid(detail: str) -> Problem:
    return Problem(INVALID_STATE, detail)
