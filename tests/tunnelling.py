"""A relay, a box and the wire between them in one event loop, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from voice_server.cli.relay import server_config
from voice_server.config import Config, Limits, load_config
from voice_server.core.tunnel import Encoding, Link
from voice_server.relay.agent import Agent, Dial
from voice_server.relay.app import Relay

PATIENCE = 60.0
API_KEY = "what clients show"
BOX_KEY = "what the box and the relay know"
Scope = dict[str, Any]


def links(encoding: Encoding = "msgpack", salt: bytes = b"") -> tuple[Link, Link]:
    """The relay's end of a link, and the box's."""
    one, other = b"1" * 32 + salt, b"2" * 32 + salt
    return Link(one, other, encoding), Link(other, one, encoding)


class Wire:
    """A TCP proxy. Each connection through it takes the next of ``cuts``: so many bytes, counted
    over both directions, until it is cut, in the middle of a frame as likely as not.
    """

    def __init__(self, port: int, target: str = "127.0.0.1", host: str = "127.0.0.1") -> None:
        self.target, self.target_host, self.host = port, target, host
        self.cuts: list[int] = []
        self.connections = 0
        self.cut_in_two = 0  # connections that ended where ``cuts`` said
        self.is_open = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, self.host, 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def silence(self) -> None:
        """Swallow what the connections of now carry, as a router that forgot them."""
        self._silent |= self._writers

    def cut(self) -> None:
        """Cut every connection there is."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _connected(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not self.is_open:
            back.transport.abort()
            return
        self.connections += 1
        left = [self.cuts.pop(0) if self.cuts else -1]
        try:
            far, forth = await asyncio.open_connection(self.target_host, self.target)
        except OSError:
            back.transport.abort()
            return
        self._writers |= {back, forth}
        pumps = [
            asyncio.create_task(self._pump(near, forth, left)),
            asyncio.create_task(self._pump(far, back, left)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for writer in (back, forth):
            writer.transport.abort()
            self._writers.discard(writer)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: list[int]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if left[0] >= 0:
                    data = data[: left[0]]
                    left[0] -= len(data)
                if writer in self._silent:
                    continue
                writer.write(data)
                await writer.drain()
                if left[0] == 0:
                    self.cut_in_two += 1
                    return


@dataclass
class World:
    """``http`` and ``socket`` are clients of the relay, with the key; ``app`` is the box's."""

    relay: Relay
    agent: Agent
    wire: Wire
    http: httpx.AsyncClient
    port: int

    def socket(self, path: str, **options: Any) -> Any:
        options.setdefault("additional_headers", {"X-API-Key": API_KEY})
        options.setdefault("compression", None)
        return connect(
            f"ws://127.0.0.1:{self.port}{path}", open_timeout=PATIENCE, max_size=None, **options
        )

    async def connected(self) -> None:
        box = next(iter(self.relay.boxes.values()))
        await until(lambda: self.agent.is_connected and box.is_connected)

    async def synchronised(self, notes: Notes) -> None:
        """Return when the relay has asked ``notes`` for its voices, and will not ask by itself."""
        sync = next(iter(self.relay.boxes.values())).sync
        await until(lambda: notes.served and not (sync._changed.is_set() or sync._lock.locked()))


@contextlib.asynccontextmanager
async def tunnelled(
    folder: Path,
    app: Any,
    *,
    encoding: Encoding = "msgpack",
    keepalive: float = 20.0,
    window: float = 30.0,
    **settings: Any,
) -> AsyncIterator[World]:
    """A relay and a box whose application is ``app``, connected through a Wire.

    ``keepalive``: so long that a machine that stands still for a while is not taken for a lost link.
    """
    config = relay_config(folder, window=window, relay_keepalive=keepalive, **settings)
    relay = Relay(config)
    async with served(relay, config) as port:
        wire = Wire(port)
        await wire.start()
        agent = Agent(app, dial(wire.port, encoding=encoding, keepalive=keepalive, window=window))
        agent.start()
        headers = {"Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE
        ) as http:
            world = World(relay, agent, wire, http, port)
            try:
                await world.connected()
                yield world
            finally:
                await agent.stop()
                await wire.stop()


def relay_config(folder: Path, *, window: float = 30.0, **settings: Any) -> Config:
    given = {
        "api_key": API_KEY,
        "relay_boxes": f"home={BOX_KEY}",
        "data_dir": folder / "relay",
        "port": 0,
        "limits": Limits(resume_window=window),
        **settings,
    }
    return load_config(**given)


def dial(port: int, **changes: Any) -> Dial:
    given = {"name": "home", "key": BOX_KEY, "api_key": API_KEY, **changes}
    return Dial(url=f"ws://127.0.0.1:{port}/tunnel", **given)


@contextlib.asynccontextmanager
async def served(app: Any, config: Config, port: int = 0, **tls: Any) -> AsyncIterator[int]:
    """``app`` on a port, which is given; as ``cli.py relay`` serves it."""
    serving = server_config(app, config)
    serving.host, serving.port = "127.0.0.1", port
    serving.timeout_graceful_shutdown = 1
    for name, value in tls.items():
        setattr(serving, name, value)
    server = _QuietServer(serving)
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started or running.done())
    if running.done():
        running.result()
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait_for(running, PATIENCE)


class _QuietServer(uvicorn.Server):
    """Leaves the signals of the test's process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return as soon as it holds."""
    async with asyncio.timeout(patience):
        while not condition():
            await asyncio.sleep(0.01)


async def settled(value: Callable[[], Any]) -> Any:
    """The value once it rests: looks that many turns of the loop lie between find the same."""
    looks = 0
    while looks < 30:
        last = value()
        await asyncio.sleep(0.02)
        looks = looks + 1 if value() == last else 0
    return last


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes of which no two stretches are alike."""
    blocks = (hashlib.sha256(f"{seed} {n}".encode()).digest() for n in range(length // 32 + 1))
    return b"".join(blocks)[:length]


@dataclass
class Notes:
    """An application for a box, and what it has seen."""

    seen: list[Scope] = field(default_factory=list)
    gone: list[Any] = field(default_factory=list)
    flooded: int = 0
    closed: int = 0  # sockets that ``_count`` has said all to
    served: list[str] = field(default_factory=list)
    voices: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path.startswith("/api/v1/tts/voices"):
            await self._voices(scope, receive, send)
        else:
            self.seen.append(scope)
            await getattr(self, f"_{path.strip('/').replace('/', '_')}")(scope, receive, send)

    async def _tell(self, scope: Scope, receive: Any, send: Any) -> None:
        body = b"%s %s?%s" % (
            scope["method"].encode(), scope["path"].encode(), scope["query_string"],
        )  # fmt: skip
        headers = [(b"content-type", b"text/plain"), (b"x-two", b"1"), (b"x-two", b"2")]
        await respond(send, body, status=201, headers=headers)

    async def _ready(self, scope: Scope, receive: Any, send: Any) -> None:
        await respond(send, b"ready")

    async def _digest(self, scope: Scope, receive: Any, send: Any) -> None:
        hashed, count, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append("upload")
                return
            hashed.update(message["body"])
            count, more = count + len(message["body"]), message["more_body"]
        await respond(send, f"{count} {hashed.hexdigest()}".encode())

    async def _download(self, scope: Scope, receive: Any, send: Any) -> None:
        data = pattern(int(scope["query_string"] or b"300000"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(data), 7_000):
            await asyncio.sleep(0.001)
            body = data[start : start + 7_000]
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    async def _judged(self, scope: Scope, receive: Any, send: Any) -> None:
        is_mine = (b"authorization", f"Bearer {API_KEY}".encode()) in scope["headers"]
        await respond(send, b"judged", status=200 if is_mine else 401)

    async def _never_reads(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    async def _never(self, scope: Scope, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self.gone.append(message)

    async def _broken(self, scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await until(lambda: "half" in self.served)
        raise RuntimeError("on purpose")

    async def _count(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(int(scope["query_string"] or b"200")):
            await asyncio.sleep(0.001)
            await send({"type": "websocket.send", "bytes": pattern(960, number)})
        await send({"type": "websocket.close", "code": 1000, "reason": "all said"})
        self.closed += 1
        self.gone.append(await receive())

    async def _closes(self, scope: Scope, receive: Any, send: Any) -> None:
        """At a sign of the test, whatever its client says; and hears how that leaves."""
        await receive()
        if scope["query_string"] != b"refused":
            await send({"type": "websocket.accept"})
        await until(lambda: "close" in self.served)
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        self.closed += 1
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        self.gone.append(message)

    async def _echo(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-box", b"yes")]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.gone.append(message)

    async def _denied(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        head = {"type": "websocket.http.response.start", "status": 403}
        await send({**head, "headers": [(b"x-why", b"no")]})
        await send({"type": "websocket.http.response.body", "body": b"not you"})
        self.gone.append(await receive())

    async def _flood(self, scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(16_000)})
                self.flooded += 16_000
                await asyncio.sleep(0)
        except OSError as exc:
            self.gone.append(exc)

    async def _voices(self, scope: Scope, receive: Any, send: Any) -> None:
        authorised = (b"authorization", f"Bearer {API_KEY}".encode()) in scope["headers"]
        assert authorised or dict(scope["headers"]).get(b"x-api-key") == API_KEY.encode()
        path = scope["path"]
        self.served.append(path)
        if path.endswith("/sync"):
            listed = ",".join(
                f'{{"voice_id": "{name}", "digest": "{digest}"}}'
                for name, (digest, _) in self.voices.items()
            )
            await respond(send, f'{{"status": "ok", "voices": [{listed}]}}'.encode())
        else:
            await respond(send, self.voices[path.split("/")[-2]][1])


async def respond(
    send: Any, body: bytes, *, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def send_all(socket: Any, message: str | bytes, count: int) -> None:
    """The same message, many times, and others run meanwhile: a short one never waits by itself."""
    for _ in range(count):
        await socket.send(message)
        await asyncio.sleep(0)


async def heard(socket: ClientConnection) -> bytes:
    """All that a socket brings, to its end."""
    return b"".join([message async for message in socket if isinstance(message, bytes)])


def self_signed(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate of an authority of its own, and its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(pem))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    ssl.create_default_context(cafile=paths[0])
    return paths


Scenario = Callable[[World, Notes], Coroutine[Any, Any, None]]


def play(folder: Path, scenario: Scenario, **options: Any) -> Notes:
    """Run a scenario with a relay and a box."""
    notes = Notes()

    async def run() -> None:
        async with asyncio.timeout(2 * PATIENCE), tunnelled(folder, notes, **options) as world:
            await scenario(world, notes)

    asyncio.run(run())
    return notes
