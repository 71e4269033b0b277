"""Where the command line's sound goes: a sound device, a file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import wave
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from voice_server.cli.console import warn
from voice_server.core.errors import ConfigError

if TYPE_CHECKING:
    from voice_server.audio.encode import Encoder

RATE = 24_000
_DEVICE_MS = 60
COMPRESSED = {".mp3": "mp3", ".opus": "opus", ".ogg": "opus", ".flac": "flac"}


class Sink(Protocol):
    """Takes the int16 PCM of a turn, mono, 24 kHz, as it is made."""

    def write(self, pcm: bytes) -> None: ...


class Player:
    """The default sound device; ``is_null``: miniaudio's null device, which takes sound in real
    time and makes none.
    """

    def __init__(self, *, is_null: bool = False) -> None:
        import miniaudio

        # Left to itself it takes the null device where there is no other, and nobody is told.
        nothing = miniaudio.Backend.NULL
        real = [backend for backend in miniaudio.Backend if backend is not nothing]
        self._buffer = bytearray()
        self._position = 0
        with _silenced_stderr():  # ALSA prints a page where there is no sound card
            self._device = miniaudio.PlaybackDevice(
                output_format=miniaudio.SampleFormat.SIGNED16,
                nchannels=1,
                sample_rate=RATE,
                buffersize_msec=_DEVICE_MS,
                backends=[nothing] if is_null else real,
                app_name="Voice Server",
            )
        source = self._samples()
        next(source)
        self._device.start(source)

    def write(self, pcm: bytes) -> None:
        self._buffer += pcm

    @property
    def waiting(self) -> float:
        """Seconds of sound that were written and have not been played."""
        return (len(self._buffer) - self._position) / 2 / RATE

    async def finish(self) -> None:
        """Return when the last of it is heard."""
        while self.waiting:
            await asyncio.sleep(0.02)
        await asyncio.sleep(2 * _DEVICE_MS / 1000)  # what the device itself still holds

    def drop(self) -> None:
        """Be silent: forget what was not played yet."""
        self._position = len(self._buffer)

    def close(self) -> None:
        self._device.close()

    def _samples(self) -> Generator[bytes, int, None]:
        """Called in the device's thread; slicing a bytearray is all that it shares with ours."""
        wanted = yield b""
        while True:
            part = bytes(self._buffer[self._position : self._position + wanted * 2])
            self._position += len(part)
            wanted = yield part + bytes(wanted * 2 - len(part))


def encoding_of(path: Path, named: str = "--output ") -> str | None:
    """The encoding that a file's ending names; None for a WAV. Raises ConfigError for another."""
    ending = path.suffix.lower()
    if ending != ".wav" and ending not in COMPRESSED:
        endings = ", ".join([".wav", *COMPRESSED])
        raise ConfigError(f"{named}{path} › expected a name that ends in {endings}")
    return COMPRESSED.get(ending)


class SoundFile:
    """A file, in the format that its ending names: .wav, .mp3, .opus, .flac.

    What was in it stays until there is sound to take its place. Raises ConfigError for another
    ending, or a path that cannot be written, which begins with where the path was ``named``.
    """

    def __init__(self, path: Path, *, named: str = "--output ") -> None:
        encoding = encoding_of(path, named)
        self._label = f"{named}{path}"
        self._wave: wave.Wave_write | None = None
        self._encoder: Encoder | None = None
        self._is_begun = False
        with self._writing():
            self._file = open(path, "wb", opener=_open_as_it_is)  # noqa: SIM115
        if encoding is not None:
            from voice_server.audio.encode import make_encoder

            self._encoder = make_encoder(encoding, RATE)

    def write(self, pcm: bytes) -> None:
        with self._writing():
            self._begin()
            if self._wave is not None:
                self._wave.writeframesraw(pcm)
            elif self._encoder is not None:
                self._file.write(self._encoder.encode(pcm))

    def close(self) -> None:
        """Complete the file; what was written is in it, also after an interruption."""
        with self._writing():
            try:
                if not self._is_begun and os.fstat(self._file.fileno()).st_size:
                    return
                self._begin()
                if self._wave is not None:
                    self._wave.close()
                elif self._encoder is not None:
                    self._file.write(self._encoder.finish())
            finally:
                self._file.close()

    def _begin(self) -> None:
        if self._is_begun:
            return
        self._is_begun = True
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            self._file.truncate()
        if self._encoder is None:
            self._wave = wave.open(self._file, "wb")  # noqa: SIM115
            self._wave.setnchannels(1)
            self._wave.setsampwidth(2)
            self._wave.setframerate(RATE)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise ConfigError(f"{self._label} › cannot be written: {exc.strerror}") from None


def _open_as_it_is(path: str, flags: int) -> int:
    """An opener that does not empty the file."""
    return os.open(path, flags & ~os.O_TRUNC, 0o666)


def open_player(is_wanted: bool | None) -> Player | None:
    """The sound device, or None and a word why. ``is_wanted`` None plays where that is possible."""
    if is_wanted is False:
        return None
    try:
        return Player()
    except ImportError:
        reason = "miniaudio is not installed"
    except Exception as exc:  # miniaudio has one class of error for everything
        reason = f"there is no sound device here ({exc.args[0] if exc.args else exc})"
    warn(f"not played: {reason}; --output FILE writes it")
    return None


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
