"""Graphs bound to memory: rows stay on the device, and both it and the host reach a run's other inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from arraylstm_serve.engine.gpu.memory import Memory, Place
from arraylstm_serve.engine.runtime import onnxruntime as ort
from arraylstm_serve.engine.step_graph import open_session

NEXT = "next_"
"""What the name of an output begins with that overwrites the rows of its name."""

Arrays = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]

_NUMPY: dict[str, Any] = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
_UNCAPTURED = "-1"


class BoundGraph:
    """A graph over rows. Its inputs and outputs lie at fixed addresses, as a captured CUDA graph needs.

    Args:
        model: the graph; its inputs and outputs that are not rows begin with the dimension `B`, the batch.
        rows: the matrices of rows, by the names of the graph's inputs. An output `next_<name>` overwrites the rows.
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
        rows: Mapping[str, Memory],
        place: Place,
        sizes: Sequence[int],
        *,
        threads: int = 1,
        capture: bool = False,
        folder: str = "",
    ) -> None:
        options = {**place.options, "enable_cuda_graph": str(int(capture))} if place.kind != "cpu" else {}
        entries = {} if place.kind == "cpu" else {"session.disable_cpu_ep_fallback": "1"}
        if folder:
            entries["session.model_external_initializers_file_folder_path"] = folder
        providers = place._replace(options=options).providers
        self._session = open_session(model.SerializeToString(), providers, threads, entries)
        self.provider: str = self._session.get_providers()[0]
        self.captured = capture
        self._rows = {prefix + name: memory for name, memory in rows.items() for prefix in ("", NEXT)}
        self._inputs, self._outputs = (
            {
                tensor.name: self._shared(tensor, place, max(sizes))
                for tensor in tensors
                if tensor.name not in self._rows
            }
            for tensors in (self._session.get_inputs(), self._session.get_outputs())
        )
        self._bound = {
            size: (self._bind(size), _run_options(str(number) if capture else _UNCAPTURED))
            for number, size in enumerate(sizes, start=1)
        }

    @staticmethod
    def _shared(tensor: Any, place: Place, largest: int) -> Memory:
        return place.shared([largest if side == "B" else side for side in tensor.shape], _NUMPY[tensor.type])

    def _bind(self, size: int) -> Any:
        binding = self._session.io_binding()
        for tensors, kept, bind in (
            (self._session.get_inputs(), self._inputs, binding.bind_input),
            (self._session.get_outputs(), self._outputs, binding.bind_output),
        ):
            for name in (tensor.name for tensor in tensors):
                memory = self._rows.get(name) or kept[name]
                shape = memory.shape if name in self._rows else (size, *memory.shape[1:])
                bind(name, memory.device, 0, memory.dtype, shape, memory.address)
        return binding

    def run(self, feeds: Arrays, wanted: int) -> Outputs:
        """Run a batch of one of the prepared sizes.

        Args:
            feeds: the graph's inputs that are not rows, by name; the first axis of each is B long.
            wanted: how many rows of the outputs to return.

        Returns:
            Copies of the first rows of the outputs, by name, without those that overwrite rows.
        """
        size = len(next(iter(feeds.values())))
        for name, values in feeds.items():
            _reached(self._inputs[name])[:size] = values
        binding, options = self._bound[size]
        self._session.run_with_iobinding(binding, options)
        return {name: _reached(memory)[:wanted].copy() for name, memory in self._outputs.items()}

    def run_apart(self, rows: Arrays, feeds: Arrays) -> Outputs:
        """Run on rows in the host's memory, which do not change. Return all outputs by name, the next rows too."""
        names = [output.name for output in self._session.get_outputs()]
        found = self._session.run(names, {**rows, **feeds}, _run_options(_UNCAPTURED))
        return dict(zip(names, found, strict=True))


def _reached(memory: Memory) -> NDArray[Any]:
    """Return the tensor in memory that the host can reach."""
    assert memory.array is not None
    return memory.array


def _run_options(graph_id: str) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options
