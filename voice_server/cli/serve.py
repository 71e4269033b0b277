"""``server.py`` and ``cli.py serve``: listen, run the application, leave without cutting a word."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import resource
import socket
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import Version, errors_told, progress
from voice_server.core.errors import ConfigError, VoiceServerError
from voice_server.storage.ownership import owned

if TYPE_CHECKING:
    import uvicorn

    from voice_server.config import Config, Limits
    from voice_server.relay.agent import Agent
    from voice_server.web.app import Application
    from voice_server.workers.pool import WorkerPool

logger = logging.getLogger(__name__)

BACKLOG = 2048
FILES_BESIDE = 1024  # open at once beside the connections: workers' pipes, recordings, the database
RELAY_TOO = "server.py relay runs the public relay that another server dials with --relay."


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
    relay: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Relay to dial, such as wss://relay.example.com."),
    ] = None,
    _version: Version = False,
) -> None:
    """Run the speech server: tokens in, speech out, at ws://HOST:PORT/stream-tokens.

    Every setting can also be given in the environment as VOICE_SERVER_HOST, VOICE_SERVER_PORT, …
    """
    # Nothing that imports make is garbage: looking for some costs a tenth of the start.
    gc.disable()
    from voice_server.config import load_config

    with errors_told():
        config = load_config(host=host, port=port, wyoming=wyoming, relay=relay)
        run(config.with_backends(backend or (), pool_size))


def main() -> None:
    """Entry point of server.py: serves, unless its first word is ``relay``."""
    from voice_server.cli.relay import relay

    app = typer.Typer(add_completion=False)
    is_relay = sys.argv[1:2] == ["relay"]
    app.command(epilog=None if is_relay else RELAY_TOO)(relay if is_relay else serve)
    app(sys.argv[2:] if is_relay else sys.argv[1:])


def run(config: Config) -> None:
    """Serve until SIGINT or SIGTERM. Raises ConfigError, BackendNotInstalled."""
    import uvloop

    settings = config.settings
    check_settings(config)
    prepare(config)
    # Models are loaded before the application begins: not beside those of a server that is there.
    with owned(settings.data_dir):
        pass
    with listen(config) as listener, contextlib.ExitStack() as stack:
        wyoming = listen_for_wyoming(config)
        if wyoming is not None:
            stack.enter_context(wyoming)
        uvloop.run(_serve(config, listener, wyoming))


def prepare(config: Config) -> None:
    """Begin to log, tell what is odd about the settings, and install what is missing.

    Raises ConfigError, BackendNotInstalled.
    """
    from voice_server.cli.installing import install_what_is_missing, logged
    from voice_server.cli.logs import configure_logging

    configure_logging(config.settings.log_level, config.settings.log_format)
    for warning in config.warnings:
        logger.warning("%s", warning)
    install_what_is_missing(config, logged if config.settings.log_format == "json" else progress)


def check_exposure(host: str, *, has_key: bool) -> None:
    """Refuse to serve the network without a key. Raises ConfigError."""
    if not (is_loopback(host) or has_key):
        raise ConfigError(
            f"--host {host} › anybody on the network could speak and clone voices: set"
            " VOICE_SERVER_API_KEY to a secret of your choice, or stay on 127.0.0.1"
        )


def check_settings(config: Config) -> None:
    """Raise ConfigError for settings that are valid, each by itself, and cannot be served with."""
    settings = config.settings
    check_exposure(settings.host, has_key=settings.api_key is not None)
    if settings.relay is not None:
        from voice_server.relay.agent import Dial

        Dial.from_config(config)


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
    listener = _listener(host, port, config.limits, (f"--host {host}", f"--port {port}"))
    allow_files(config.limits.max_connections)
    return listener


def allow_files(connections: int) -> None:
    """Let so many connections be open: a terminal allows 1,024 files where the system allows more.

    Beyond what is allowed a connection is closed without a word to anybody.
    """
    wanted = connections + FILES_BESIDE
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        logger.warning(
            "this system lets the server open %d files, too few for the %d connections of "
            "VOICE_SERVER_LIMITS_MAX_CONNECTIONS: raise LimitNOFILE or `ulimit -Hn` to %d, "
            "or clients beyond it find no answer", most, connections, wanted,
        )  # fmt: skip
        wanted = most
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


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
    from voice_server.cli.leaving import LeavingServer, uvicorn_config
    from voice_server.web.app import create_app

    app = create_app(config, pools, wyoming)
    agent = None if config.settings.relay is None else _agent(app, config)

    async def leave() -> None:
        logger.info("running turns have %g s at most", config.limits.drain_timeout)
        await app.drain()
        if agent is not None:
            await agent.stop()

    def started() -> None:
        if agent is not None:
            agent.start()
        announce(config, listener, wyoming)

    async def hang_up() -> None:
        await renew(app.service.pools)

    return LeavingServer(uvicorn_config(app, config.limits), leave, started, hang_up)


def _agent(app: Application, config: Config) -> Agent:
    """The server's end of the tunnel to its relay."""
    from voice_server.relay.agent import Agent, Dial

    agent = Agent(app, Dial.from_config(config), app.state.catalogue)
    app.state.is_tunnelled = lambda: agent.is_connected
    return agent


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
