"""Which GPU there is, asked of CUDA's driver, which no package on PyPI wraps in a few kilobytes."""

from __future__ import annotations

import ctypes

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256


def card() -> str:
    """The name of the GPU that CUDA counts as the first, its memory, and the newest CUDA that its driver knows.

    Empty where there is no driver or no GPU.
    """
    try:
        cuda = ctypes.CDLL(_LIBRARY)
    except OSError:
        return ""
    device, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        or cuda.cuDriverGetVersion(ctypes.byref(version))
    )
    if failed:
        return ""
    major, minor = version.value // 1000, version.value % 1000 // 10
    return f"{name.value.decode()}, {memory.value / 1e9:.0f} GB, driver for CUDA {major}.{minor}"
