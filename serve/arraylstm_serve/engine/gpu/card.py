"""Ask CUDA's driver which GPU there is; no small package on PyPI does that."""

from __future__ import annotations

import ctypes

_LIBRARY = "libcuda.so.1"
_NAME_BYTES = 256


def card() -> str:
    """Describe CUDA's first GPU: its name, its memory, and the newest CUDA version that its driver supports.

    The description is empty if there is no driver or no GPU.
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
