"""A relay and a box as two processes, and a wire between them that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.cli_process import running_server, wait_for
from tests.end_to_end.hosts import Host
from tests.tunnelling import API_KEY, BOX_KEY, Wire

PATIENCE = 60.0
HERE = Host()
AUTHORISED = {"Authorization": f"Bearer {API_KEY}"}


class ThreadedWire:
    """A Wire with a thread and an event loop of its own."""

    def __init__(self, port: int, target: str = "127.0.0.1", host: str = "127.0.0.1") -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.wire = Wire(port, target, host)
        self.call(self.wire.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def cut(self) -> None:
        async def cut() -> None:
            self.wire.cut()

        self.call(cut())

    def stop(self) -> None:
        self.call(self.wire.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


@dataclass
class Pair:
    """``port`` is the relay's, ``direct`` the box's own; each on its host."""

    port: int
    direct: int
    wire: ThreadedWire
    relay_host: Host = HERE
    box_host: Host = HERE

    @property
    def url(self) -> str:
        return f"http://{self.relay_host.address}:{self.port}"

    def status(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/v1/status", headers=AUTHORISED, timeout=PATIENCE)
        status: dict[str, Any] = answer.json()
        return status

    def wait_connected(self) -> None:
        wait_for(lambda: self.status().get("tunnel_connected") is True)


@contextlib.contextmanager
def relay(
    folder: Path, port: int = 0, *, is_killed: bool = False, host: Host = HERE, **env: str
) -> Iterator[int]:
    """A relay on its own; its port. ``is_killed``: that is how it ends."""
    (folder / "relay").mkdir(exist_ok=True)
    env = {
        "VOICE_SERVER_API_KEY": API_KEY,
        "VOICE_SERVER_RELAY_BOXES": f"home={BOX_KEY}",
        **env,
    }
    with running_server(
        folder / "relay", "--host", host.listens, command=("relay",), port=port,
        prefix=host.prefix, **env,
    ) as (running, found):  # fmt: skip
        yield found
        if is_killed:
            running.kill()


@contextlib.contextmanager
def box(folder: Path, relay_url: str, *flags: str, host: Host = HERE, **env: str) -> Iterator[int]:
    """A server that dials a relay; its own port. Warm."""
    (folder / "box").mkdir(exist_ok=True)
    env = {"VOICE_SERVER_API_KEY": API_KEY, "VOICE_SERVER_RELAY_KEY": BOX_KEY, **env}
    with running_server(
        folder / "box", "--relay", relay_url, "--host", host.listens, *flags,
        prefix=host.prefix, **env,
    ) as (_, port):  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while httpx.get(f"http://{host.address}:{port}/ready", timeout=PATIENCE).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port


@contextlib.contextmanager
def pair(
    folder: Path, *flags: str, hosts: tuple[Host, Host] = (HERE, HERE), **env: str
) -> Iterator[Pair]:
    """Both, connected."""
    there, here = hosts
    with relay(folder, host=there) as port:
        wire = ThreadedWire(port, there.address, here.ours)
        url = f"ws://{here.ours}:{wire.wire.port}"
        if here.is_separate:
            env["VOICE_SERVER_RELAY_PLAIN"] = "true"
        try:
            with box(folder, url, *flags, host=here, **env) as direct:
                found = Pair(port, direct, wire, there, here)
                found.wait_connected()
                yield found
        finally:
            wire.stop()
