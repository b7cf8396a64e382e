"""Bundles that nobody exported: each is refused in one sentence, at once, and before it has taken memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from arraylstm_serve import Bundle
from arraylstm_serve.bundle.vocabulary import Vocabulary
from arraylstm_serve.engine.step_graph import open_graph
from arraylstm_serve.errors import BundleError

from ..bundles import STATES, describe, signature, step_model, write_bundle, write_manifest

BILLION = 10**9
ROOM = 4 * 2**30
"""Bytes of address space: enough for a server to start, not enough for a billion of anything."""


def refused(path: Path) -> str:
    """Start a server that may use ROOM bytes; return the one sentence that it ends with."""
    done = subprocess.run(
        [sys.executable, "-m", "arraylstm_serve", path, "--port", "0", "--device", "cpu"],
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_AS, (ROOM, ROOM)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,  # a server that waits for a pipe does not end
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("arraylstm-serve: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def claiming(path: Path, *, num_items: int = 7, shape: list[int] | None = None, **options: Any) -> Path:
    """Write a bundle whose manifest claims so many items, or such a shape of the first state, all over."""
    states: list[dict[str, Any]] = [STATES[0] | {"shape": shape or STATES[0]["shape"]}, STATES[1]]
    graph = signature()
    graph["inputs"][1]["shape"][1:] = graph["outputs"][1]["shape"][1:] = states[0]["shape"]
    graph["outputs"][0]["shape"][1] = num_items
    write_bundle(path, states=states, graphs={"step.onnx": graph}, **options)
    edit(path, model={"cell": "tiny", "num_items": num_items})
    return path


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a bundle's manifest, and vouch for it."""
    manifest = json.loads((path / "manifest.json").read_text())
    write_manifest(path, json.dumps(manifest | changes).encode())


def listed(path: Path, *names: str) -> dict[str, Any]:
    """Describe files of a bundle as its manifest does."""
    return {name: describe(path / name) for name in ("step.onnx", "vocabulary.json", *names)}


def test_a_billion_claimed_items_are_not_made(tmp_path: Path) -> None:
    """A manifest that claims items which its graph does not have is told so, labels or none."""
    words = refused(claiming(tmp_path / "unlabelled", num_items=BILLION, labels=None))
    assert "step.onnx does not have the outputs of the manifest" in words
    assert str(BILLION) in words
    words = refused(claiming(tmp_path / "labelled", num_items=BILLION))
    assert f"7 labels are listed but the model has {BILLION} items" in words


@pytest.mark.parametrize("shape", [[BILLION], [2**32, 2**32], [2**62, 4]])
def test_a_claimed_state_is_not_made(tmp_path: Path, shape: list[int]) -> None:
    """A manifest that claims a state which its graph does not have is told so, whatever its size."""
    words = refused(claiming(tmp_path / "bundle", shape=shape))
    assert "step.onnx does not have the inputs of the manifest" in words


@pytest.mark.parametrize("shape", [[BILLION], [2**32, 2**32], [2**62, 4]])
def test_a_state_that_the_graph_claims_too_needs_too_much(tmp_path: Path, shape: list[int]) -> None:
    """If the graph claims the state as well, the memory that it would take is refused."""
    model = step_model(**{"arraylstm.states": json.dumps([STATES[0] | {"shape": shape}, STATES[1]])})
    graph = model.graph
    used = [tensor for tensor in graph.initializer if tensor.name in ("E", "W")]
    del graph.node[:], graph.initializer[:]
    graph.initializer.extend(used)
    graph.node.extend(
        [
            helper.make_node("Identity", ["state_h"], ["next_state_h"]),
            helper.make_node("Identity", ["state_m"], ["next_state_m"]),
            helper.make_node("Gather", ["E", "items"], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "W"], ["logits"]),
        ]
    )
    for tensor in (graph.input[1], graph.output[1]):
        new = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, ["B", *shape])
        tensor.CopyFrom(new)
    assert "of memory" in refused(claiming(tmp_path / "bundle", shape=shape, model=model))


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "vocabulary.json", "step.onnx"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_is_not_waited_for(bundle_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """A pipe, a folder or a device in place of a file is named, and never read."""
    (bundle_path / name).unlink()
    make(bundle_path / name)
    assert f"{name} is not a regular file" in refused(bundle_path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
def test_a_file_that_nothing_vouches_for_has_a_bound(bundle_path: Path, name: str) -> None:
    """The manifest and its checksum are not read if they are far larger than any exporter's."""
    with (bundle_path / name).open("ab") as file:
        file.truncate(2**40)
    assert f"{name} has {2**40} bytes; at most " in refused(bundle_path)


def move(tensor: TensorProto, location: str) -> bytes:
    """Say that a tensor's values are in a file; return them."""
    content = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return content


def bundle_with_weights(path: Path, location: str, *, hashed: bool) -> Path:
    """Write a bundle whose first weight is in a file of its own, which the manifest hashes or not."""
    model = step_model()
    content = move(model.graph.initializer[0], location)
    write_bundle(path, model=model)
    file = path / location
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    if hashed:
        edit(path, files=listed(path, location))
    return path


def test_weights_that_the_manifest_does_not_hash_are_refused(tmp_path: Path) -> None:
    """Weights outside the graph's file are part of the model, so the manifest must vouch for them."""
    words = refused(bundle_with_weights(tmp_path / "bundle", "weights.bin", hashed=False))
    assert 'step.onnx keeps weights in "weights.bin", which ' in words
    assert "manifest.json does not list" in words


def test_weights_that_the_manifest_hashes_are_read(tmp_path: Path) -> None:
    """Weights in a file of the bundle that the manifest lists are verified like every other file."""
    path = bundle_with_weights(tmp_path / "bundle", "weights.bin", hashed=True)
    open_graph(Bundle.load(path), 1)
    content = bytearray((path / "weights.bin").read_bytes())
    content[0] ^= 1
    (path / "weights.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.bin has sha256"):
        Bundle.load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "", "./x/../step.onnx", "*/_ORT_MEM_ADDR_/*"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    """Weights outside the bundle are refused before anything looks for them."""
    model = step_model()
    move(model.graph.initializer[0], location)
    with pytest.raises(BundleError, match="keeps weights in"):
        Bundle.load(write_bundle(tmp_path / "bundle", model=model))


def constant(location: str) -> onnx.NodeProto:
    """A node that carries a tensor whose values are in a file."""
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    move(tensor, location)
    return helper.make_node("Constant", [], ["hidden"], value=tensor)


def in_a_node(model: onnx.ModelProto) -> None:
    """Hide weights in an attribute of a node."""
    model.graph.node.append(constant("hidden.bin"))


def in_a_subgraph(model: onnx.ModelProto) -> None:
    """Hide weights in the branch of a node."""
    branch = helper.make_graph([constant("hidden.bin")], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["flag"], ["hidden"], then_branch=branch, else_branch=branch))


def in_a_function(model: onnx.ModelProto) -> None:
    """Hide weights in a function of the model."""
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("local", "Hide", [], ["hidden"], [constant("hidden.bin")], opsets))


def sparse(model: onnx.ModelProto) -> None:
    """Hide weights in a sparse tensor."""
    values = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
    move(values, "hidden.bin")
    indices = numpy_helper.from_array(np.arange(3), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))


@pytest.mark.parametrize("hide", [in_a_node, in_a_subgraph, in_a_function, sparse])
def test_no_tensor_of_a_graph_escapes(tmp_path: Path, hide: Callable[[onnx.ModelProto], None]) -> None:
    """Weights in files are found wherever a graph can have a tensor."""
    model = step_model()
    hide(model)
    with pytest.raises(BundleError, match=r'keeps weights in "hidden\.bin"'):
        Bundle.load(write_bundle(tmp_path / "bundle", model=model))


@pytest.mark.parametrize(
    "content", [b"no graph", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b\x0c", b"\x3a" * 99]
)
def test_a_graph_that_cannot_be_looked_into_is_refused(bundle_path: Path, content: bytes) -> None:
    """Bytes that are no ONNX graph are named as such."""
    (bundle_path / "step.onnx").write_bytes(content)
    edit(bundle_path, files=listed(bundle_path))
    assert "step.onnx is not an ONNX graph" in refused(bundle_path)


def test_integers_as_labels_take_no_memory() -> None:
    """A vocabulary without labels is as small for a billion items as for seven, and maps them all."""
    vocabulary = Vocabulary(BILLION, None, unknown=5)
    assert sys.getsizeof(vocabulary.labels) < 100
    assert vocabulary.encode([0, BILLION - 1, BILLION, -1, "3", "x"]) == [0, BILLION - 1, 5, 5, 3, 5]
    assert vocabulary.decode([BILLION - 1]) == (BILLION - 1,)
