"""A real server in a thread, with real workers, for every end-to-end test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from voice_server.cli.serve import listen, listen_for_wyoming
from voice_server.config import Config, load_config
from voice_server.speech.service import SpeechService
from voice_server.web.app import Application, create_app
from voice_server.web.socket import BoundedWebSocket

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

BACKENDS = f"""
default: tone
backends:
  tone: {{python: {sys.executable}, options: {{seconds_per_word: 0.05}}, aliases: {{af_heart: high}}}}
  babble:
    python: {sys.executable}
    options: {{slots: 4, chars_per_second: 60, frame_ms: 40}}
  chaos:
    python: {sys.executable}
    first_chunk_timeout: 120
    gap_timeout: 120
  espeak: {{python: {sys.executable}, voice: en-us}}
  plain: {{python: {sys.executable}, path: plain}}
"""

# A backend that knows nothing of its words' times: 100 ms for each.
PLAIN = """
import numpy as np
import voice_worker as vw

class Plain(vw.Backend):
    name = "plain"

    def load(self, options):
        return vw.BackendInfo(sample_rate=24_000)

    def synthesize(self, job):
        for word in job.text.split():
            yield np.full(2_400, 100 * len(word), dtype=np.int16)

if __name__ == "__main__":
    vw.serve(Plain())
"""


class Server:
    """A running server. ``url`` and ``ws`` are its addresses; ``service`` its speech service."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.wyoming = listen_for_wyoming(config)
        self.app: Application = create_app(config, wyoming=self.wyoming)
        self.service: SpeechService = self.app.service
        limits = config.limits
        self._listener = listen(config)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.app,
                log_config=None,
                # One byte more than the limit must reach the application, to be answered.
                ws=BoundedWebSocket,
                ws_max_size=4 * limits.max_message_bytes,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._uvicorn.serve([self._listener])

        asyncio.run(serve())

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._uvicorn.started or not self._thread.is_alive())
        assert self._uvicorn.started, "the server did not start"
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws = f"ws://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE)
        self._listener.close()
        if self.wyoming is not None:
            self.wyoming.close()
        assert not self._thread.is_alive(), "the server does not end"

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's own event loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def begin_drain(self) -> Future[bool]:
        """What a SIGTERM does first."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self.app.drain(), self._loop)

    def wait_ready(self, *backends: str) -> None:
        """Wait until these backends speak; all of them when none is named."""
        pools = [self.service.pools[name] for name in backends or self.service.pools]
        wait_until(lambda: all(pool.is_ready for pool in pools))
        self._tasks_at_rest = self._tasks()

    @property
    def turns(self) -> int:
        """Turns that are not over."""
        return len(self.service._turns)

    @property
    def busy_slots(self) -> int:
        return sum(pool.slots - pool.free_slots for pool in self.service.pools.values())

    def expire_sessions(self) -> None:
        """Let the time be over in which a dropped session can be resumed."""

        async def expire() -> None:
            for conversation in self.service.parking:
                conversation.close()

        self.call(expire())

    def wait_quiet(self) -> None:
        """Wait until no turn, job, socket or task is left."""
        wait_until(lambda: not (self.turns or self.busy_slots or self.service._sockets))
        wait_until(lambda: self._tasks() <= self._tasks_at_rest)

    def _tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return int(self.call(count()))


def wait_until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return as soon as it holds; fail when it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:g} s"
        time.sleep(0.01)


@contextlib.contextmanager
def running(
    folder: Path, *backends: str, yaml: str = BACKENDS, **settings: Any
) -> Iterator[Server]:
    """A server over ``backends``, the first the default one. ``settings`` as of load_config."""
    (folder / "backends.yaml").write_text(yaml, encoding="utf-8")
    (folder / "plain").mkdir(exist_ok=True)
    (folder / "plain" / "backend.py").write_text(PLAIN, encoding="utf-8")
    config = load_config(
        backends_file=folder / "backends.yaml",
        data_dir=folder / "data",
        voice_samples_dir=folder / "voice_samples",
        port=0,
        **settings,
    ).with_backends(backends)
    server = Server(config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("VOICE_SERVER_"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """tone (the default) and four others, warm; one for all tests of the session."""
    folder = tmp_path_factory.mktemp("server")
    with running(folder, "tone", "babble", "chaos", "espeak", "plain") as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def http(server: Server, client: httpx.Client) -> Iterator[httpx.Client]:
    """An HTTP client of ``server``. Nothing of a test may be left in the server after it."""
    yield client
    server.wait_quiet()
