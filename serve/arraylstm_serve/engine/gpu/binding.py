"""Graphs bound to a device's memory: the rows stay there, only a run's other inputs and outputs cross the bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from arraylstm_serve.arrays import Floats, Integers
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.step_graph import CPU, CUDA, open_session

ROWS, NEXT_ROWS = "rows", "next_rows"
NUMPY: dict[str, Any] = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
_UNCAPTURED = "-1"


class Place(NamedTuple):
    """The device that runs graphs and holds rows.

    Attributes:
        kind: onnxruntime's name for the device, `cuda` or `cpu`.
        name: a description of the device, for people.
        options: the options of the CUDA provider; empty on the CPU.
    """

    kind: str
    name: str
    options: dict[str, str]

    @property
    def providers(self) -> list[Any]:
        """The only execution provider, so it must run every node of a graph."""
        return [CPU] if self.kind == "cpu" else [(CUDA, self.options)]

    def bounded(self, gpu_memory: int | None) -> Place:
        """Return the same place, with a bound on the bytes that a graph may use for weights and between its nodes."""
        return self if gpu_memory is None else self._replace(options={**self.options, "gpu_mem_limit": str(gpu_memory)})

    def empty(self, shape: Sequence[int], dtype: Any) -> ort.OrtValue:
        """Allocate memory of the device; it may hold anything."""
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.kind, 0)


class _Bound(NamedTuple):
    """The buffers of one batch size, bound to the graph's inputs and outputs."""

    binding: Any
    options: Any
    inputs: dict[str, ort.OrtValue]
    outputs: list[ort.OrtValue]


class BoundGraph:
    """A graph over rows. Its inputs and outputs lie at fixed addresses, as a captured CUDA graph needs.

    Args:
        model: the graph. It has an input `rows`; an output `next_rows` overwrites the rows. Dimension `B` is free.
        rows: the matrix of rows.
        place: the device where the rows lie.
        sizes: the batch sizes to prepare for.
        threads: threads that one run may use on the CPU.
        capture: whether to capture the first run of each size as a CUDA graph, which later runs replay. To capture a
            run, onnxruntime runs the graph several times.
        folder: the folder of the model's external data.

    Attributes:
        provider: the onnxruntime execution provider in use.
        captured: whether runs replay CUDA graphs.

    Raises:
        StartupError: onnxruntime cannot load the graph, or cannot run all of it on the device.
    """

    def __init__(
        self,
        model: ModelProto,
        rows: ort.OrtValue,
        place: Place,
        sizes: Sequence[int],
        *,
        threads: int = 1,
        capture: bool = False,
        folder: str = "",
    ) -> None:
        options = {**place.options, "enable_cuda_graph": str(int(capture))}
        entries = {} if place.kind == "cpu" else {"session.disable_cpu_ep_fallback": "1"}
        if folder:
            entries["session.model_external_initializers_file_folder_path"] = folder
        providers = place._replace(options=options).providers
        self._session = open_session(model.SerializeToString(), providers, threads, entries)
        self.provider: str = self._session.get_providers()[0]
        self.captured = capture
        self._bound = {
            size: self._bind(rows, place, size, str(number) if capture else _UNCAPTURED)
            for number, size in enumerate(sizes, start=1)
        }

    def _bind(self, rows: ort.OrtValue, place: Place, size: int, graph_id: str) -> _Bound:
        def buffer(tensor: Any) -> ort.OrtValue:
            if tensor.name in (ROWS, NEXT_ROWS):
                return rows
            return place.empty([size if side == "B" else side for side in tensor.shape], NUMPY[tensor.type])

        binding = self._session.io_binding()
        inputs = {tensor.name: buffer(tensor) for tensor in self._session.get_inputs()}
        outputs = {tensor.name: buffer(tensor) for tensor in self._session.get_outputs()}
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph_id)
        returned = [value for name, value in outputs.items() if name != NEXT_ROWS]
        return _Bound(binding, options, inputs, returned)

    def run(self, feed: Integers, values: Floats | None = None) -> list[NDArray[Any]]:
        """Run a batch of one of the prepared sizes.

        Args:
            feed: (n, B) int64, the graph's input `feed`.
            values: (B, width) float32, the graph's input `values`, if it has one.

        Returns:
            Copies of the outputs, without `next_rows`.
        """
        bound = self._bound[feed.shape[1]]
        bound.inputs["feed"].update_inplace(feed)
        if values is not None:
            bound.inputs["values"].update_inplace(values)
        self._session.run_with_iobinding(bound.binding, bound.options)
        return [np.array(output.numpy()) for output in bound.outputs]  # on the CPU, numpy() returns the buffer itself

    def run_apart(self, rows: Floats, feed: Integers) -> list[NDArray[Any]]:
        """Run on rows in the host's memory, which do not change. Return all outputs, the next rows first."""
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", _UNCAPTURED)
        outputs: list[NDArray[Any]] = self._session.run(None, {ROWS: rows, "feed": feed}, options)
        return outputs
