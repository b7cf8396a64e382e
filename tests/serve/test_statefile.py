"""Files that are not valid states of a session."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from .bundles import LANES, H, V
from .harness import Harness
from .test_problems import check
from .test_state import URL, content, opened, saved

pytestmark = pytest.mark.anyio

Change = Callable[[dict[str, Any], dict[str, str]], None]


def changed(body: bytes, change: Change) -> bytes:
    """Return the file with its tensors and metadata changed."""
    tensors, metadata = opened(body)
    change(tensors, metadata)
    return safetensors.numpy.save(tensors, metadata)


def put(name: str, value: Any) -> Change:
    """Return a change that replaces one tensor."""
    return lambda tensors, metadata: tensors.update({name: value})


def say(name: str, value: str) -> Change:
    """Return a change that replaces one entry of the metadata."""
    return lambda tensors, metadata: metadata.update({name: value})


def holed(name: str, bad: float) -> Change:
    """Return a change that replaces the last number of a tensor."""

    def change(tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = bad

    return change


WRONG: dict[str, tuple[Change, str]] = {
    "an extra tensor": (put("state_x", np.zeros(H, np.float32)), "expected ['logits', 'recent', 'state_h', 'state_m']"),
    "a thousand extra tensors": (
        lambda tensors, metadata: tensors.update({f"x{n}": np.zeros(0, np.float32) for n in range(100)}),
        "expected",
    ),
    "a missing state": (lambda tensors, metadata: tensors.pop("state_m"), "expected"),
    "no logits": (lambda tensors, metadata: tensors.pop("logits"), "expected"),
    "no recent items": (lambda tensors, metadata: tensors.pop("recent"), "expected"),
    "a state transposed": (put("state_m", np.zeros((H, LANES), np.float32)), f"expected F32 [{LANES}, {H}]"),
    "a batch axis": (put("state_h", np.zeros((1, H), np.float32)), f"expected F32 [{H}]"),
    "logits too narrow": (put("logits", np.zeros(V - 1, np.float32)), f"expected F32 [{V}]"),
    "float64": (put("state_h", np.zeros(H)), "F64"),
    "float16": (put("logits", np.zeros(V, np.float16)), "F16"),
    "a NaN in a state": (holed("state_m", np.nan), "state_m has values that are not finite"),
    "an infinity in a state": (holed("state_h", -np.inf), "state_h has values that are not finite"),
    "a NaN in the logits": (holed("logits", np.nan), "logits has values that are not finite"),
    "an infinite logit": (holed("logits", np.inf), "logits has values that are not finite"),
    "recent items of int32": (put("recent", np.zeros(3, np.int32)), "expected I64 [3]"),
    "recent items in rows": (put("recent", np.zeros((3, 1), np.int64)), "expected I64 [3]"),
    "a recent item alone": (put("recent", np.array(1)), "expected I64 [3]"),
    "a recent item too high": (holed("recent", V), f"outside 0 to {V - 1}"),
    "a recent item below 0": (holed("recent", -1), f"outside 0 to {V - 1}"),
    "too few recent items": (put("recent", np.zeros(0, np.int64)), "expected I64 [3]"),
    "too many recent items": (put("recent", np.zeros(4, np.int64)), "expected I64 [3]"),
    "another format": (say("format", "arraylstm-session-2"), "arraylstm-session-2"),
    "no step": (lambda tensors, metadata: metadata.pop("step"), "allowed are 1 to 9007199254740992"),
    "no format": (lambda tensors, metadata: metadata.pop("format"), "null"),
    **{
        f"step {step[:24]!r}": (say("step", step), "allowed are 1 to 9007199254740992")
        for step in (
            *(
                "0",
                "-1",
                "+3",
                "3.0",
                "1e2",
                " 3",
                "",
                "03",
                "0x3",
                "³",
                "٣",
                "9007199254740993",
                "99999999999999999999",
            ),
            *("1" * 5000, "0" * 19 + "1" + "9" * 30, "0" * 19 + "3" + "9" * 5000),
        )
    },
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_file_that_is_not_right_is_refused(harness: Harness, wrong: str) -> None:
    """The refusal says what is wrong with the file, and the session does not change."""
    change, said = WRONG[wrong]
    body = await saved(harness, "a", "b", "c")
    problem = check(await harness.client.put(URL, content=changed(body, change)), "invalid_state")
    assert said in problem["detail"]
    assert content((await harness.client.get(URL)).content) == content(body)


def header(document: bytes, size: int | None = None) -> bytes:
    """Return a file with this header, which may claim to have another size."""
    return struct.pack("<Q", len(document) if size is None else size) + document


NO_FILES = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "zeros": b"\0" * 100,
    "a huge header": header(b"{}", 2**63),
    "a header beyond the end": header(b"{}", 3),
    "a header that is no JSON": header(b"nope"),
    "a header that is a list": header(b"[]"),
    "a header in no encoding": header(b'{"\xff":1}'),
    "a header that is deep": header(b'{"a":' * 3000),
    "a header of nothing": header(b"{}"),
    "metadata that is a number": header(b'{"__metadata__":1}'),
    "metadata of numbers": header(b'{"__metadata__":{"step":3}}'),
    "offsets beyond the end": header(b'{"recent":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}}'),
    "offsets that overflow": header(b'{"recent":{"dtype":"I64","shape":[4611686018427387904,4],"data_offsets":[0,0]}}'),
    "an unknown type": header(b'{"recent":{"dtype":"I65","shape":[],"data_offsets":[0,0]}}'),
    "json": b'{"items": ["a"]}',
}


@pytest.mark.parametrize("name", NO_FILES)
async def test_a_body_that_is_no_such_file_is_refused(harness: Harness, name: str) -> None:
    """Bytes that are not a safetensors file of a session are refused, and no session begins."""
    check(await harness.client.put(URL, content=NO_FILES[name]), "invalid_state")
    assert len(harness.service.sessions) == 0


async def test_no_part_of_a_file_is_a_file(harness: Harness) -> None:
    """A file that is cut off anywhere, or has a byte too many, is refused."""
    body = await saved(harness, "a", "b", "c")
    for part in (*(body[:size] for size in range(0, len(body), 7)), body[:-1], body + b"\0"):
        check(await harness.client.put(URL, content=part), "invalid_state")
