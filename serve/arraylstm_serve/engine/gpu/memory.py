"""The device that runs graphs, and the memory that they are bound to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from arraylstm_serve.engine.gpu.driver import Allocation
from arraylstm_serve.engine.step_graph import CPU, CUDA


class Memory(NamedTuple):
    """Zeroed memory of a place.

    Attributes:
        device: onnxruntime's name for the device that it is bound as.
        address: where it begins.
        shape: the shape of the tensor in it.
        dtype: the type of its numbers.
        array: the tensor itself; None if only the device can reach it.
        owner: what frees the memory when nothing refers to it any more.
    """

    device: str
    address: int
    shape: tuple[int, ...]
    dtype: Any
    array: NDArray[Any] | None
    owner: object


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

    def held(self, shape: Sequence[int], dtype: Any) -> Memory:
        """Allocate memory of the device."""
        return self._memory(tuple(shape), dtype, on_host=False)

    def shared(self, shape: Sequence[int], dtype: Any) -> Memory:
        """Allocate memory of the host that the device can reach: its kernels read and write it without a copy."""
        return self._memory(tuple(shape), dtype, on_host=True)

    def _memory(self, shape: tuple[int, ...], dtype: Any, *, on_host: bool) -> Memory:
        if self.kind == "cpu":
            array = np.zeros(shape, dtype)
            return Memory("cpu", array.ctypes.data, shape, dtype, array, array)
        size = max(1, prod(shape) * np.dtype(dtype).itemsize)
        owner = Allocation(size, on_host=on_host)
        if not on_host:
            return Memory(self.kind, owner.address, shape, dtype, None, owner)
        content = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(owner.address))
        return Memory(self.kind, owner.address, shape, dtype, content.view(dtype)[: prod(shape)].reshape(shape), owner)
