"""Test vectors that any embedding of a bundle can replay: what goes into a graph, and what float64 PyTorch answers.

`vectors/<graph>/test_data_set_<n>/` holds `input_<i>.pb` and `output_<i>.pb` in the order of the graph's inputs and
outputs (the layout of ONNX's own backend tests); `vectors/<graph>/test_data_set_<n>.npz` holds the same arrays by name.
"""

from pathlib import Path

import numpy as np
from onnx import numpy_helper

from arraylstm_export.reference import Reference
from arraylstm_export.runners import Array
from arraylstm_export.scenarios import make_scenario
from arraylstm_export.signature import Interface, Signature


def write_vectors(reference: Reference, interface: Interface, folder: Path, seed: int = 1) -> None:
    """Write vectors of the step graph (zero and random state) and of the sequence graph (full and ragged lengths)."""
    states, num_items = interface.states, interface.num_items
    source = np.random.default_rng(seed)
    for number, scale in enumerate((0.0, 1.0)):
        one = make_scenario("step", num_items, states, np.ones(3, int), source, scale)
        (logits, *traces), following = reference(one)
        outputs = [logits[:, 0], *following, *(trace[:, 0] for trace in traces)]
        _write(folder / "step", number, interface.step, [one.items[:, 0], *one.state], outputs)
    for number, lengths in enumerate(([7, 7], [4, 0, 7])):
        many = make_scenario("sequence", num_items, states, np.array(lengths), source, scale=float(number > 0))
        (logits, *traces), following = reference(many)
        inputs, outputs = [many.items, many.lengths, *many.state], [logits, *following, *traces]
        _write(folder / "sequence", number, interface.sequence, inputs, outputs)


def _write(folder: Path, number: int, signature: Signature, inputs: list[Array], outputs: list[Array]) -> None:
    data_set = folder / f"test_data_set_{number}"
    data_set.mkdir(parents=True)
    arrays: dict[str, Array] = {}
    for kind, tensors, values in (("input", signature.inputs, inputs), ("output", signature.outputs, outputs)):
        for index, (tensor, value) in enumerate(zip(tensors, values, strict=True)):
            array = np.ascontiguousarray(value, tensor.dtype)
            arrays[tensor.name] = array
            proto = numpy_helper.from_array(array, tensor.name)
            (data_set / f"{kind}_{index}.pb").write_bytes(proto.SerializeToString())
    np.savez(data_set.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
