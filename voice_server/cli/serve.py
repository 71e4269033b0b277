"""``server.py`` and ``cli.py serve``: listen, run the application, leave without cutting a word."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Mapping, MutableMapping
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import errors_told
from voice_server.core.errors import ConfigError, VoiceServerError

if TYPE_CHECKING:
    import uvicorn

    from voice_server.config import Config, Limits
    from voice_server.workers.pool import WorkerPool

logger = logging.getLogger(__name__)

BACKLOG = 2048


def serve(
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Engine to run; repeat it for several, the first is the default."),
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option(help="Worker processes of each engine.", show_default="its entry")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address; another than loopback demands VOICE_SERVER_API_KEY."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    wyoming: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Speak Home Assistant's Wyoming protocol there too; it knows no keys.",
        ),
    ] = None,
) -> None:
    """Run the speech server: tokens in, speech out, at ws://HOST:PORT/stream-tokens.

    Every setting can also be given in the environment as VOICE_SERVER_HOST, VOICE_SERVER_PORT, …
    """
    # Nothing that imports make is garbage: looking for some costs a tenth of the start.
    gc.disable()
    from voice_server.config import load_config

    with errors_told():
        config = load_config(host=host, port=port, wyoming=wyoming)
        run(config.with_backends(backend or (), pool_size))


def main() -> None:
    """Entry point of server.py."""
    app = typer.Typer(add_completion=False)
    app.command()(serve)
    app()


def run(config: Config) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigError, BackendNotInstalled."""
    import uvloop

    settings = config.settings
    check_exposure(settings.host, has_key=settings.api_key is not None)
    prepare(config)
    with listen(config) as listener, contextlib.ExitStack() as stack:
        wyoming = listen_for_wyoming(config)
        if wyoming is not None:
            stack.enter_context(wyoming)
        uvloop.run(_serve(config, listener, wyoming))


def prepare(config: Config) -> None:
    """Begin to log, tell what is odd about the settings, and install what is missing.

    Raises ConfigError, BackendNotInstalled.
    """
    from voice_server.cli.installing import install_what_is_missing
    from voice_server.cli.logs import configure_logging

    configure_logging(config.settings.log_level, config.settings.log_format)
    for warning in config.warnings:
        logger.warning("%s", warning)
    install_what_is_missing(config)


def check_exposure(host: str, *, has_key: bool) -> None:
    """Refuse to serve the network without a key. Raises ConfigError."""
    if not (is_loopback(host) or has_key):
        raise ConfigError(
            f"--host {host} › anybody on the network could speak and clone voices: set"
            " VOICE_SERVER_API_KEY to a secret of your choice, or stay on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(config: Config) -> socket.socket:
    """The socket for HTTP and WebSockets. Raises ConfigError, naming the port."""
    host, port = config.settings.host.strip("[]"), config.settings.port
    return _listener(host, port, config.limits, (f"--host {host}", f"--port {port}"))


def listen_for_wyoming(config: Config) -> socket.socket | None:
    """The socket for Wyoming, if it is wanted. Raises ConfigError, naming the address."""
    address = config.settings.wyoming
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not is_loopback(host):
        logger.warning(
            "--wyoming %s: whoever reaches it may speak, since Wyoming knows no keys; let no other "
            "network than your own reach it",
            address,
        )
    return _listener(host, int(port), config.limits, (f"--wyoming {address}",) * 2)


def _listener(host: str, port: int, limits: Limits, named: tuple[str, str]) -> socket.socket:
    """A listening socket whose connections inherit what a slow or lost client needs.

    ``named``: where host and port come from. Raises ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise ConfigError(f"{named[0]} › expected an address of this machine: {exc}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What the kernel holds for a client that does not read is ours to limit: the protocol's
        # own accounting ends where its buffer begins.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.send_buffer_bytes)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            timeout_ms = int(limits.tcp_user_timeout * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        raise ConfigError(_why_not_bound(exc, *named)) from None
    return listener


def _why_not_bound(exc: OSError, host: str, port: str) -> str:
    import errno

    if exc.errno == errno.EADDRINUSE:
        return f"{port} › something listens there already: stop it, or choose another port"
    if exc.errno == errno.EACCES:
        return f"{port} › needs privileges: choose one above 1023"
    return f"{host} › cannot listen there: {exc.strerror}"


async def _serve(config: Config, listener: socket.socket, wyoming: socket.socket | None) -> None:
    from voice_server.workers.pools import make_pools

    pools = make_pools(config)
    if config.settings.preload:
        for pool in pools.values():
            await pool.start()
    try:
        # The workers load while we do: it takes either about as long.
        server = await asyncio.to_thread(_server, config, pools, listener, wyoming)
    except BaseException:
        await asyncio.gather(*(pool.stop() for pool in pools.values() if pool.is_started))
        raise
    await server.serve(sockets=[listener])


def _server(
    config: Config,
    pools: MutableMapping[str, WorkerPool],
    listener: socket.socket,
    wyoming: socket.socket | None,
) -> uvicorn.Server:
    import uvicorn

    from voice_server.web.app import create_app
    from voice_server.web.socket import BoundedWebSocket

    app = create_app(config, pools, wyoming)
    limits = config.limits

    class Server(uvicorn.Server):
        """uvicorn, but SIGTERM and SIGINT first let running turns finish, unless they are repeated.

        SIGHUP replaces the workers, which reads the models and venvs anew.
        """

        _is_leaving = False
        _task: asyncio.Task[None] | None = None  # of which the loop alone would not keep hold

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self._is_leaving:
                self.should_exit = self.force_exit = True
                return
            self._is_leaving = True
            name = signal.Signals(sig).name
            asyncio.get_running_loop().call_soon_threadsafe(self._leave, name)

        def _leave(self, name: str) -> None:
            logger.info(
                "%s: finishing what is being said, %g s at most", name, limits.drain_timeout
            )
            self._task = asyncio.create_task(self._drain())

        async def _drain(self) -> None:
            try:
                await app.drain()
            finally:
                self.should_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._renew)
            # What is there now stays; the collector need not look at it again between two frames.
            gc.freeze()
            gc.enable()
            announce(config, listener, wyoming)

        def _renew(self) -> None:
            if not self._is_leaving:
                self._task = asyncio.create_task(renew(app.service.pools))

    return Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=logger.isEnabledFor(logging.DEBUG),
            server_header=False,
            ws=BoundedWebSocket,
            # What is a little too long must still reach the application, to be answered.
            ws_max_size=4 * limits.max_message_bytes,
            ws_ping_interval=limits.ping_interval,
            ws_ping_timeout=limits.ping_timeout,
            # A message is two dozen bytes, or PCM: compressing costs more than it saves.
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=5,
        )
    )


async def renew(pools: Mapping[str, WorkerPool]) -> None:
    """Replace all workers, pool by pool, one by one: no listener notices."""
    for name, pool in pools.items():
        try:
            await pool.restart()
            logger.info("%s: all workers are new", name)
        except VoiceServerError as exc:
            logger.error("%s: the old workers go on: %s", name, exc)


def announce(config: Config, listener: socket.socket, wyoming: socket.socket | None = None) -> None:
    """The one line on stdout, with the real ports: programs that start the server wait for it."""
    engines = ", ".join(f"{name} × {config.backend(name).workers}" for name in config.start)
    also = "" if wyoming is None else f", for Wyoming on tcp://{_shown(wyoming)}"
    print(f"Voice Server listens on http://{_shown(listener)} ({engines}){also}", flush=True)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
