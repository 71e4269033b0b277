"""A real server with the tone backend, and how to hear which voice it spoke with."""

from __future__ import annotations

import io
import json
import subprocess
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from websockets.sync.client import connect

from tests.end_to_end.cli_process import running_server
from tests.recordings import pitch_of, wav

PATIENCE = 60


@dataclass
class Server:
    """A running server. ``folder`` is its own, for uploads, downloads and its data."""

    port: int
    folder: Path

    def curl(self, *arguments: str) -> tuple[int, bytes]:
        """Run curl as the documents write it; localhost:8000 and its like become this server."""
        named = [
            argument.replace("localhost:8000", f"127.0.0.1:{self.port}")
            .replace("your-relay.com:9800", f"127.0.0.1:{self.port}")
            .replace("relay:9800", f"127.0.0.1:{self.port}")
            for argument in arguments
        ]
        done = subprocess.run(
            ["curl", "-sS", "-m", str(PATIENCE), "-w", "\n%{http_code}", *named],
            capture_output=True,
            cwd=self.folder,
            timeout=PATIENCE + 10,
        )
        assert done.returncode == 0, done.stderr
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def json(self, *arguments: str, status: int = 200) -> Any:
        """The JSON that curl gets, whose status must be this."""
        got, body = self.curl(*arguments)
        assert got == status, (got, body[:2_000])
        return json.loads(body)

    def url(self, path: str) -> str:
        return f"http://localhost:8000{path}"

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        return self.json(
            *("-X", "POST", self.url(path), "-H", "Content-Type: application/json"),
            *("-d", json.dumps(body)),
            status=status,
        )

    def socket(self, path: str) -> Any:
        return connect(f"ws://127.0.0.1:{self.port}{path}", max_size=None, open_timeout=PATIENCE)

    def recording(self, name: str, pitch: float) -> str:
        """A WAV of this pitch in the folder; its name."""
        (self.folder / name).write_bytes(wav(3, pitch))
        return name

    # -- the doors that speak; each gives the pitch it spoke with ------------------------------------

    def heard_by_stream_tokens(self, voice: str) -> float:
        with self.socket("/stream-tokens") as socket:
            socket.send(json.dumps({"voice": voice}))
            socket.send(json.dumps({"token": "One two three four five six seven. ", "done": True}))
            pcm = b"".join(m for m in socket if isinstance(m, bytes))
        return pitch_of(np.frombuffer(pcm, "<i2"))

    def heard_by_tts(self, voice: str) -> float:
        return pitch_in(self.sound("/tts", {"text": "One two three four.", "voice": voice}))

    def heard_by_synthesize(self, voice: str) -> float:
        body = {"text": "One two three four.", "voice_id": voice}
        return pitch_in(self.sound("/api/v1/tts/synthesize", body))

    def heard_by_generate(self, voice: str) -> float:
        made = self.post("/generate", {"profile_id": voice, "text": "One two three four."})
        status, sound = self.curl(self.url(f"/audio/{made['id']}"))
        assert status == 200
        return pitch_in(sound)

    def heard_by_preview(self, voice: str) -> float:
        status, sound = self.curl(
            *("-X", "POST", self.url("/preview-from-voice")),
            *("-F", f"voice_id={voice}", "-F", "response_text=One two three four."),
        )
        assert status == 200, sound
        return pitch_in(sound)

    def heard_by_onboarding(self, voice: str) -> float:
        answer = self.json(
            *("-X", "POST", self.url(f"/api/public/voice/onboarding/test/{voice}")),
            *("-F", "text=One two three four."),
        )
        return pitch_in_data_uri(answer["audio"])

    def sound(self, path: str, body: Any) -> bytes:
        status, sound = self.curl(
            *("-X", "POST", self.url(path), "-H", "Content-Type: application/json"),
            *("-d", json.dumps(body)),
        )
        assert status == 200, sound[:500]
        return sound


def pitch_in(sound: bytes) -> float:
    """The pitch of a WAV."""
    with wave.open(io.BytesIO(sound)) as file:
        assert file.getframerate() == 24_000
        return pitch_of(np.frombuffer(file.readframes(1 << 24), "<i2"))


def pitch_in_data_uri(uri: str) -> float:
    """The pitch of the MP3 in a data URI."""
    import base64

    kind, _, data = uri.partition(",")
    assert kind == "data:audio/mp3;base64"
    container = av.open(io.BytesIO(base64.b64decode(data)))
    frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return pitch_of((np.concatenate(frames) * 32767).astype(np.int16))


@contextmanager
def serving(folder: Path, *flags: str, **env: str) -> Iterator[Server]:
    """A server with the tone backend; warm."""
    with running_server(folder, "--backend", "tone", *flags, **env) as (_, port):
        server = Server(port, folder)
        deadline = time.monotonic() + PATIENCE
        while server.curl(server.url("/ready"))[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield server
