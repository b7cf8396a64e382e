"""Test vectors that any embedding of a bundle can replay: inputs of a graph, and the results of float64 PyTorch.

`vectors/<graph>/test_data_set_<n>/` holds `input_<i>.pb` and `output_<i>.pb` in the order of the graph's inputs and
outputs (the layout of ONNX's own backend tests); `vectors/<graph>/test_data_set_<n>.npz` holds the same arrays by name.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from arraylstm_export.arrays import Array, Result
from arraylstm_export.formats.runner import Runner
from arraylstm_export.interface import Interface, Signature
from arraylstm_export.parity.differences import differences, first_over
from arraylstm_export.parity.reference import Reference
from arraylstm_export.parity.scenarios import Scenario, make_scenario
from arraylstm_export.parity.schedules import at_once

_POOL = 256


def write_vectors(
    reference: Reference, forms: Collection[Runner], tolerance: float, folder: Path, seed: int = 1
) -> None:
    """Write vectors of the step graph (from the start and a random state) and of the sequence graph (full and ragged).

    Only rows without undecidable ties are kept, so that every runtime must reproduce them. Where too few are left, rows
    are cut before their first tie.
    """
    interface = reference.interface
    states, num_items = interface.states, interface.num_items
    rng = np.random.default_rng(seed)
    for number, scale in enumerate((None, 1.0)):
        drawn = make_scenario("step", num_items, states, np.ones(3, int), rng, scale)
        one = _decided(reference, forms, tolerance, drawn, rng)
        (logits, *diagnostics), following = reference(one)
        outputs = [logits[:, 0], *following, *(diagnostic[:, 0] for diagnostic in diagnostics)]
        _write(folder / "step", number, interface.step, [one.items[:, 0], *one.state], outputs)
    for number, lengths in enumerate(([7, 7], [4, 0, 7])):
        scale = 1.0 if number else None
        drawn = make_scenario("sequence", num_items, states, np.array(lengths), rng, scale)
        many = _decided(reference, forms, tolerance, drawn, rng)
        (logits, *diagnostics), following = reference(many)
        inputs, outputs = [many.items, many.lengths, *many.state], [logits, *following, *diagnostics]
        _write(folder / "sequence", number, interface.sequence, inputs, outputs)


def _decided(
    reference: Reference, forms: Collection[Runner], tolerance: float, drawn: Scenario, rng: np.random.Generator
) -> Scenario:
    """Return the scenario, or a similar one from random states, in which float32 can decide every step."""
    steps = drawn.items.shape[1]
    if (_decided_steps(reference, forms, tolerance, drawn) == steps).all():
        return drawn
    interface = reference.interface
    pool = make_scenario(drawn.name, interface.num_items, interface.states, np.full(_POOL, steps), rng)
    decided = _decided_steps(reference, forms, tolerance, pool)
    longest = np.argsort(-decided, kind="stable")[: len(drawn.lengths)]
    rows = longest[: max(1, int((decided[longest] > 0).sum()))]
    lengths = np.minimum(drawn.lengths[: len(rows)], decided[rows])
    chosen = replace(pool.rows(rows), lengths=lengths)
    while (shorter := _decided_steps(reference, forms, tolerance, chosen) < chosen.lengths).any():
        chosen = replace(chosen, lengths=chosen.lengths - shorter)  # a row's state is compared at its end only
    return chosen


def _decided_steps(reference: Reference, forms: Collection[Runner], tolerance: float, scenario: Scenario) -> Array:
    """Return for every row the number of steps before a twin or a form first differs from the reference, S at most."""
    decided = reference.first_undecided(scenario, scenario.lengths - 1, tolerance)
    expected = reference(scenario)
    for run in forms:
        found = differences(at_once(run, scenario), expected)
        decided = np.minimum(decided, first_over(found, scenario.lengths, tolerance))
    return decided


def read_vectors(folder: Path, interface: Interface) -> Iterator[tuple[Scenario, Result]]:
    """Yield every vector as a scenario and its result; a single step is a sequence of length 1."""
    for path in sorted(folder.glob("*/*.npz")):
        with np.load(path) as archive:
            arrays = dict(archive)
        single = arrays["items"].ndim == 1
        items = arrays["items"][:, None] if single else arrays["items"]
        lengths = np.ones(len(items), np.int64) if single else arrays["lengths"]
        series = [arrays[tensor.name][:, None] if single else arrays[tensor.name] for tensor in interface.series]
        scenario = Scenario(
            f"{path.parent.name} {path.stem}", items, lengths, [arrays[state.input.name] for state in interface.states]
        )
        yield scenario, (series, [arrays[state.output.name] for state in interface.states])


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
