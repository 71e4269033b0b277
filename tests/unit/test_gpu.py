"""What /health says of graphics cards, with a stand-in for NVIDIA's library."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from voice_server.web import gpu


class Nvml:
    """Two cards; ``hold`` makes the driver hang."""

    def __init__(self, used: tuple[int, ...]) -> None:
        self.used = used
        self.hold = threading.Event()
        self.hold.set()

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        self.hold.wait(30)
        count._obj.value = len(self.used)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        device._obj.value = index + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> int:
        memory._obj.used = self.used[device.value - 1]
        return 0


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_reading", None)
    monkeypatch.setattr(gpu, "_last", None)
    monkeypatch.setattr(gpu, "_PATIENCE", 0.05)


def use(monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None) -> None:
    monkeypatch.setattr(gpu, "_library", lambda: nvml)


def test_memory_is_summed_over_all_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Nvml((1_000_000_000, 24_500_000)))
    monkeypatch.setattr(gpu, "_PATIENCE", 60)
    assert asyncio.run(gpu.memory_used_mb()) == 1024.5


@pytest.mark.parametrize("nvml", [None, Nvml(())])
def test_without_a_card_there_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, nvml: Nvml | None
) -> None:
    use(monkeypatch, nvml)
    monkeypatch.setattr(gpu, "_PATIENCE", 60)
    assert asyncio.run(gpu.memory_used_mb()) is None


def test_a_driver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml((5_000_000,))
    use(monkeypatch, nvml)

    async def ask() -> None:
        nvml.hold.clear()
        assert await gpu.memory_used_mb() is None
        assert await gpu.memory_used_mb() is None
        nvml.hold.set()
        monkeypatch.setattr(gpu, "_PATIENCE", 60)
        assert await gpu.memory_used_mb() == 5.0

    asyncio.run(ask())
