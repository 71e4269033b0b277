"""Client of ``WS /stream-tokens``: sends text as a language model emits it, plays what comes back.

Needs ``websockets`` alone; plays through ``miniaudio`` where that is installed. Copy it freely.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import contextlib
import io
import json
import os
import re
import signal
import stat
import sys
import threading
import time
import wave
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

try:
    import websockets
    from websockets.asyncio.client import ClientConnection, connect
except ModuleNotFoundError:
    sys.exit(f"error: websockets is missing: {sys.executable} -m pip install 'websockets>=15'")

URL = "ws://localhost:8000/stream-tokens"
RATE = 24_000  # hertz, mono, int16: what the server sends unless asked for something else
ENCODINGS = {".wav": "", ".mp3": "mp3", ".opus": "opus", ".ogg": "opus", ".flac": "flac"}
SAMPLE_TEXT = "Hello! I speak while I think. You hear the first words before the last are written."


class Refused(Exception):
    """What went wrong, in one line for a person."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Stream text to a Voice Server token by token and hear it.",
        epilog="Text comes from --text, or from standard input as it arrives: "
        "my-llm | python client.py. Ctrl-C interrupts the speech, as a listener would.",
    )
    add = parser.add_argument
    add("--url", default=URL, help="where the server is: %(default)s")
    add("--text", help="what to say")
    add("--voice", help="which voice; the server's default otherwise")
    add("--backend", help="which engine; the server's default otherwise")
    add("--opt", action="append", default=[], metavar="K=V", help="engine option, e.g. speed=1.2")
    add("--output", metavar="FILE", help="write it to a .wav, .mp3, .opus or .flac")
    add("--play", action=argparse.BooleanOptionalAction, help="play it; default: if possible")
    add("--token-delay", type=seconds, default=0.02, metavar="S", help="between tokens: 0.02 s")
    add("--timestamps", action="store_true", help="ask for the time of every word")
    add("--api-key", default=os.environ.get("VOICE_SERVER_API_KEY"), metavar="KEY",
        help="default: the environment's VOICE_SERVER_API_KEY")  # fmt: skip
    return parser.parse_args()


def seconds(text: str) -> float:
    """A length of time, as argparse takes it."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise ValueError
    return value


def option(text: str) -> tuple[str, Any]:
    """``speed=1.2`` → ("speed", 1.2): JSON where it is JSON, else text."""
    name, is_pair, value = text.partition("=")
    if not name or not is_pair:
        raise Refused(f"--opt {text!r}: expected name=value, such as speed=1.2")
    with contextlib.suppress(ValueError):
        return name, json.loads(value)
    return name, value


async def tokens_of(text: str, delay: float) -> AsyncIterator[str]:
    """Cut a text as a language model would, a few characters at a time."""
    for token in re.findall(r"\s*\S{1,5}|\s+", text):
        yield token
        await asyncio.sleep(delay)


async def tokens_of_stdin() -> AsyncIterator[str]:
    """Whatever another program prints, as soon as it prints it."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[str | None] = asyncio.Queue()

    def read() -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            while data := os.read(0, 4096):
                loop.call_soon_threadsafe(arrived.put_nowait, decoder.decode(data))
            loop.call_soon_threadsafe(arrived.put_nowait, None)

    # A thread of our own: nobody waits for it at the end, when stdin may still be open.
    threading.Thread(target=read, daemon=True).start()
    waiting = loop.call_later(2.0, print, "waiting for text on standard input, or use --text")
    text = await arrived.get()
    waiting.cancel()
    if text is None:
        print("standard input is empty: saying a sample", file=sys.stderr)
        yield SAMPLE_TEXT
    while text is not None:
        yield text
        text = await arrived.get()


def has_piped_text() -> bool:
    with contextlib.suppress(OSError):
        mode = os.fstat(0).st_mode
        # /dev/null, which is what a service or a CI job has, is none of these.
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)
    return False


@dataclass
class Listener:
    """A listener with a clock: keeps what arrived and knows when PCM would have run dry."""

    encoding: str = ""  # none: PCM
    sound: bytearray = field(default_factory=bytearray)
    frames: int = 0
    underruns: int = 0
    silence: float = 0.0  # seconds that underruns lasted
    longest_gap: float = 0.0
    started: float | None = None  # when playback began; pushed back by each underrun
    _last: float = 0.0

    def hear(self, sound: bytes) -> None:
        now = time.perf_counter()
        if self.started is None:
            self.started = now
        else:
            self.longest_gap = max(self.longest_gap, now - self._last)
            late = 0.0 if self.encoding else now - self.started - self.seconds
            if late > 0.001:  # else a rounding error of the two clocks
                self.underruns += 1
                self.silence += late
                self.started += late
        self._last = now
        self.frames += 1
        self.sound += sound

    @property
    def seconds(self) -> float:
        return len(self.sound) / 2 / RATE

    @property
    def heard(self) -> dict[str, int]:
        """What the server is told of it; nothing where the server alone knows the time."""
        elapsed = 0.0 if self.started is None else time.perf_counter() - self.started
        played_ms = round(min(self.seconds, elapsed) * 1000)
        return {} if self.encoding else {"played_ms": played_ms}


class Player:
    """Plays a growing buffer on the default sound device."""

    def __init__(self, buffer: bytearray, *, is_null: bool = False) -> None:
        import miniaudio

        # Left to itself it takes its null device where there is no other, and nobody is told.
        nothing = miniaudio.Backend.NULL
        real = [backend for backend in miniaudio.Backend if backend is not nothing]
        self._buffer = buffer
        self._position = 0
        with silenced_stderr():  # ALSA prints a page where there is no sound card
            self._device = miniaudio.PlaybackDevice(
                output_format=miniaudio.SampleFormat.SIGNED16,
                nchannels=1,
                sample_rate=RATE,
                buffersize_msec=60,
                backends=[nothing] if is_null else real,
                app_name="Voice Server client",
            )
        self.stop = self._device.close
        source = self._samples()
        next(source)
        self._device.start(source)

    def _samples(self) -> Generator[bytes, int, None]:
        wanted = yield b""
        while True:
            part = bytes(self._buffer[self._position : self._position + wanted * 2])
            self._position += len(part)
            wanted = yield part + bytes(wanted * 2 - len(part))

    async def finish(self) -> None:
        while self._position < len(self._buffer):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.15)  # what the device itself still holds


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def make_player(is_wanted: bool | None, listener: Listener) -> Player | None:
    """None, and a word about it, where nothing can be played."""
    if is_wanted is False:
        return None
    try:
        if not listener.encoding:
            return Player(listener.sound)
        reason = f"{listener.encoding} is for the file alone; a .wav is played as it is written"
    except ImportError:
        reason = "miniaudio is not installed: pip install miniaudio"
    except Exception as exc:
        reason = f"there is no sound device ({exc.args[0] if exc.args else exc})"
    print(f"not played: {reason}", file=sys.stderr)
    return None


class Turn:
    """One turn: sends the tokens, takes what the server answers."""

    def __init__(self, socket: ClientConnection, listener: Listener) -> None:
        self._socket = socket
        self._listener = listener
        self._first_token: float | None = None
        self._began = time.perf_counter()
        self.ttfa: float | None = None  # seconds from the first token sent
        self.stats: dict[str, Any] = {}
        self.errors = 0
        self.is_over = False

    async def send(self, config: dict[str, Any], tokens: AsyncIterator[str]) -> None:
        if config:
            await self._socket.send(json.dumps(config))
        async for token in tokens:
            if self._first_token is None:
                self._first_token = time.perf_counter()
            await self._socket.send(json.dumps({"token": token}))
        await self._socket.send(json.dumps({"done": True}))

    async def interrupt(self) -> None:
        await self._socket.send(json.dumps({"cancel": True, **self._listener.heard}))

    async def receive(self) -> None:
        async for message in self._socket:
            if isinstance(message, bytes):
                if self.ttfa is None and self._first_token is not None:
                    self.ttfa = time.perf_counter() - self._first_token
                self._listener.hear(message)
            else:
                self._take(json.loads(message))
            if self.is_over:
                return
        if self._socket.close_code != 1000:
            self.fail(f"the server closed the connection ({self._socket.close_code})")

    def fail(self, reason: str) -> None:
        if not self.errors:  # a refusal is both a message and a close code
            print(f"error: {reason}", file=sys.stderr)
        self.errors += 1

    def _take(self, message: dict[str, Any]) -> None:
        self.is_over = message.get("type") in ("done", "cancelled")
        match message.get("type"):
            case "ready":
                self._say(f"{message['backend']} · voice {message['voice']}")
            case "generating":
                queue = f"  ({message['queue_depth']} waiting)" if message["queue_depth"] else ""
                self._say(f"generating  {message['sentence']!r}{queue}")
            case "words":
                words = (f"{w['text'].strip()}@{w['start_ms']:.0f}" for w in message["words"])
                self._say(f"words       {' '.join(words)}")
            case "cancelled":
                self._say(f"interrupted; heard: {message['text_spoken']!r}")
            case "error":
                self.errors += 1
                print(f"error: {message.get('msg')} ({message.get('code')})", file=sys.stderr)
            case "done":
                self.stats = message.get("stats", {})

    def _say(self, text: str) -> None:
        print(f"{time.perf_counter() - self._began:7.3f} s  {text}", flush=True)

    def report(self) -> None:
        listener, server = self._listener, self.stats.get("ttfa_ms")
        if self.ttfa is None:
            print("no sound was received")
            return
        after_end = f" ({server:.1f} ms after the text that made it possible)" if server else ""
        print(f"first sound  {self.ttfa * 1000:.1f} ms after the first token{after_end}")
        length = listener.encoding or f"{listener.seconds:.2f} s"
        print(f"audio        {length} in {listener.frames} frames")
        print(f"longest gap  {listener.longest_gap * 1000:.0f} ms between two frames")
        if not listener.encoding:
            lasted = f", {listener.silence * 1000:.0f} ms of silence"
            print(f"underruns    {listener.underruns}{lasted if listener.underruns else ''}")


@contextlib.contextmanager
def opened(path: str, encoding: str) -> Iterator[Callable[[bytes], object]]:
    """Opened before anything is said, so that a path that cannot be written is told at once."""
    try:
        file = open(path, "wb")  # noqa: SIM115
    except OSError as exc:
        raise Refused(f"cannot write {path}: {exc.strerror}") from None
    with file:
        if encoding:
            yield file.write
            return
        with wave.open(file, "wb") as wav:
            wav.setparams((1, 2, RATE, 0, "NONE", ""))
            yield wav.writeframes


async def open_socket(url: str, api_key: str | None) -> ClientConnection:
    key = (api_key or "").strip()  # a key from a file ends with a line break
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # A proxy is for the world outside.
    proxy: Any = None if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1") else True
    try:
        return await connect(
            url, additional_headers=headers, compression=None, max_size=None, proxy=proxy
        )
    except websockets.InvalidStatus as exc:
        body = exc.response.body.decode(errors="replace").strip()
        if exc.response.status_code in (401, 403):
            body = "it wants a key: pass --api-key or set VOICE_SERVER_API_KEY"
        raise Refused(f"{url} refused ({exc.response.status_code}): {body[:200]}") from None
    except OSError:
        raise Refused(f"cannot reach {url}. Start the server with: uv run server.py") from None
    except websockets.WebSocketException as exc:
        raise Refused(f"{url} is no speech server: {exc}") from None


def checked_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise Refused(f"--url {url!r}: expected something like {URL}")
    return parts._replace(scheme=scheme, path=parts.path or "/stream-tokens").geturl()


async def talk(args: argparse.Namespace) -> int:
    """Run one turn. Returns the exit status: 0 when everything asked for was said."""
    asked = {key: getattr(args, key) for key in ("voice", "backend", "timestamps")}
    if (suffix := os.path.splitext(args.output or "pcm.wav")[1].lower()) not in ENCODINGS:
        raise Refused(f"{args.output}: expected a name that ends in {', '.join(ENCODINGS)}")
    asked |= {"opts": dict(map(option, args.opt)), "format": ENCODINGS[suffix]}
    config = {key: value for key, value in asked.items() if value}
    is_piped = args.text is None and has_piped_text()
    text = SAMPLE_TEXT if args.text is None else args.text
    tokens = tokens_of_stdin() if is_piped else tokens_of(text, args.token_delay)
    listener = Listener(asked["format"])
    with contextlib.ExitStack() as stack:
        socket = await open_socket(checked_url(args.url), args.api_key)
        write = stack.enter_context(opened(args.output, listener.encoding)) if args.output else None
        if player := make_player(args.play, listener):
            stack.callback(player.stop)
        turn = Turn(socket, listener)
        await exchange(turn, socket, config, tokens)
        turn.report()
        if write is not None:
            write(listener.sound)
            print(f"written to   {args.output}")
        if player and not turn.errors:
            await player.finish()
    return 1 if turn.errors else 0


async def exchange(
    turn: Turn, socket: ClientConnection, config: dict[str, Any], tokens: AsyncIterator[str]
) -> None:
    """Send and receive at once, until the server closes."""
    loop = asyncio.get_running_loop()
    interrupts: set[asyncio.Task[None]] = set()

    def interrupt() -> None:
        sending.cancel()
        interrupts.add(asyncio.create_task(turn.interrupt()))
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C ends the program

    sending = asyncio.create_task(turn.send(config, tokens))
    with contextlib.suppress(NotImplementedError):  # Windows
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        await turn.receive()
    except websockets.ConnectionClosedError as exc:
        turn.fail(f"the connection broke: {exc}")
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        sending.cancel()
        results = await asyncio.gather(sending, *interrupts, return_exceptions=True)
        await socket.close()
    for result in results:
        # The server closes when it refuses something: its error was told already.
        if isinstance(result, Exception) and not isinstance(result, websockets.ConnectionClosed):
            raise result


def main() -> int:
    args = arguments()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has every letter
    try:
        return asyncio.run(talk(args))
    except Refused as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read along, such as head, has left. Python flushes stdout once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as exc:
        print(f"error: {args.output or 'the connection'}: {exc.strerror or exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
