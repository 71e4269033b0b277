"""What the graphics cards hold, read from NVIDIA's own library where there is one (NVML)."""

from __future__ import annotations

import asyncio
import ctypes
from functools import cache
from typing import Any

_PATIENCE = 0.5
_reading: asyncio.Future[float | None] | None = None
_last: float | None = None


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


async def memory_used_mb() -> float | None:
    """Memory in use on all cards, in MB; None where there is no card.

    Read in a thread, one reading at a time: a driver that hangs must not take the caller along.
    """
    global _reading, _last
    if _reading is None or _reading.done():
        _reading = asyncio.get_running_loop().run_in_executor(None, _read)
    done, _ = await asyncio.wait({_reading}, timeout=_PATIENCE)
    if done:
        _last = _reading.result()
    return _last


def _read() -> float | None:
    nvml = _library()
    count = ctypes.c_uint()
    if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) or not count.value:
        return None
    used = 0
    for index in range(count.value):
        device, memory = ctypes.c_void_p(), _Memory()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
            nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
            used += memory.used
    return round(used / 1e6, 1)


@cache
def _library() -> Any:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return nvml if nvml.nvmlInit_v2() == 0 else None
