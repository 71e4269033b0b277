"""What goes over a socket of ``/stream-tokens``: framing, positions, and a memory of it.

The memory lets another socket continue where one dropped.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgpack

from voice_server.core.errors import ResumeFailed
from voice_server.core.wire import AudioFormat


@dataclass(frozen=True, slots=True)
class _Sent:
    position: int  # of its first sample; of the next one, for a message
    data: str | bytes
    sound_bytes: int = 0
    sample_bytes: int = 1

    @property
    def end(self) -> int:
        return self.position + self.sound_bytes // self.sample_bytes


class Output:
    """Positions count all sound of the session: samples, or bytes of compressed formats.

    ``framing`` and ``is_resumable`` are set once the configuration is known.
    """

    def __init__(self, max_bytes: int) -> None:
        self.framing = "raw"
        self.is_resumable = False
        self._max_bytes = max_bytes
        self._position = 0
        self._sent: deque[_Sent] = deque()
        self._bytes = 0

    @property
    def kept_bytes(self) -> int:
        """What the memory holds now."""
        return self._bytes

    def message(self, context: str | None, message: dict[str, Any]) -> str | bytes:
        """One message, as JSON or as a msgpack map."""
        data: str | bytes
        if self.framing == "msgpack":
            data = msgpack.packb({**message, "context": context}, unicode_errors="replace")
        else:
            data = _json(message)
        if self.is_resumable and message["type"] not in ("ready", "resumed"):
            self._remember(_Sent(self._position, data))
        return data

    def sound(self, context: str | None, segment: int, sound: bytes, fmt: AudioFormat) -> bytes:
        """One frame of sound in its final format."""
        start, sample_bytes = self._position, fmt.sample_bytes
        self._position += len(sound) // sample_bytes
        data = sound
        if self.framing == "msgpack":
            message = {"type": "audio", "context": context, "segment": segment}
            data = msgpack.packb({**message, "offset": start, "pcm": sound})
        if self.is_resumable:
            self._remember(_Sent(start, data, len(sound), sample_bytes))
        return data

    def since(self, position: int) -> list[str | bytes]:
        """Everything a client lacks that has received sound up to ``position``.

        Messages that stand exactly there come again: it cannot be known whether they arrived.
        Raises ResumeFailed when the sound is not kept any more, or was never sent.
        """
        oldest = self._sent[0].position if self._sent else self._position
        if not oldest <= position <= self._position:
            raise ResumeFailed(
                f"sound from {oldest} to {self._position} is kept, not from {position}; "
                "begin a new turn"
            )
        return [
            _cut(sent, position)
            for sent in self._sent
            if (sent.end > position if sent.sound_bytes else sent.position >= position)
        ]

    def _remember(self, sent: _Sent) -> None:
        self._sent.append(sent)
        self._bytes += len(sent.data)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._sent.popleft().data)


def _json(message: dict[str, Any]) -> str:
    data = json.dumps(message, ensure_ascii=False)
    if not data.isascii():
        try:
            data.encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair came in as an escape, and goes out as one.
            return json.dumps(message)
    return data


def _cut(sent: _Sent, position: int) -> str | bytes:
    """The part of a frame that lies behind ``position``."""
    skip = (position - sent.position) * sent.sample_bytes
    if skip <= 0 or not isinstance(sent.data, bytes):
        return sent.data
    if len(sent.data) == sent.sound_bytes:
        return sent.data[skip:]
    message = msgpack.unpackb(sent.data)
    message["pcm"], message["offset"] = message["pcm"][skip:], position
    packed: bytes = msgpack.packb(message)
    return packed
