"""CUDA's driver: which GPU there is, and memory at addresses that both onnxruntime and this process know.

onnxruntime's Python interface has no memory of the host that a GPU can reach, and rounds memory of the GPU up.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from functools import cache

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NAME_BYTES = 256
_REACHABLE = 0x1 | 0x2  # CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP


class DriverError(Exception):
    """A call of the driver failed."""


class Allocation:
    """Zeroed memory that the GPU can address; it is freed with this object.

    Args:
        size: how many bytes.
        on_host: whether the memory is the host's. The GPU then reads and writes it over the bus, at the same address.

    Attributes:
        address: where it begins.

    Raises:
        DriverError: there is not that much memory.
    """

    def __init__(self, size: int, *, on_host: bool) -> None:
        address = ctypes.c_uint64()
        _use_gpu()
        if on_host:
            _call("cuMemHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_REACHABLE))
            ctypes.memset(address.value or 0, 0, size)
        else:
            _call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
            _call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(size))
        self.address: int = address.value
        weakref.finalize(self, _free, self.address, on_host=on_host).atexit = False  # the process's end frees it


def card() -> str:
    """Describe CUDA's first GPU: its name, its memory, and the newest CUDA version that its driver supports.

    The description is empty if there is no driver or no GPU.
    """
    try:
        device, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        _call("cuInit", 0)
        _call("cuDeviceGet", ctypes.byref(device), 0)
        _call("cuDeviceGetName", name, _NAME_BYTES, device)
        _call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        _call("cuDriverGetVersion", ctypes.byref(version))
    except (OSError, DriverError):
        return ""
    major, minor = version.value // 1000, version.value % 1000 // 10
    return f"{name.value.decode()}, {memory.value / 1e9:.0f} GB, driver for CUDA {major}.{minor}"


def _free(address: int, *, on_host: bool) -> None:
    _use_gpu()
    _call("cuMemFreeHost" if on_host else "cuMemFree_v2", ctypes.c_uint64(address))


def _use_gpu() -> None:
    """Let this thread's calls work in the context that onnxruntime uses."""
    _call("cuCtxSetCurrent", _context())


@cache
def _context() -> ctypes.c_void_p:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call("cuInit", 0)
    _call("cuDeviceGet", ctypes.byref(device), 0)
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    return context


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL(_LIBRARY)


def _call(name: str, *arguments: object) -> None:
    code = getattr(_driver(), name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        raise DriverError(f"{name} failed: {(text.value or b'unknown error').decode()} ({code})")
