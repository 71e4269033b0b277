"""Shows the life of voice packages: export all voices, clear the catalogue, import, verify.

python demo_voice_packaging.py                    two generated voices in a temporary folder
python demo_voice_packaging.py --voices ./voices  a copy of your own; yours stay as they are
python demo_voice_packaging.py --url URL          two generated voices at a server, or through its
                                                  relay; the others that it has stay as they are
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import math
import os
import secrets
import shutil
import struct
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from server.voice_manager import VoiceManager
from server.voice_packager import VoicePackager
from voice_server.core.errors import VoiceServerError
from voice_server.core.voices import Voice


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--voices", type=Path, help="a folder of voices; it is copied, not changed")
    parser.add_argument("--url", help="a running server or relay, such as http://relay:9800")
    parser.add_argument("--api-key", default=os.environ.get("VOICE_SERVER_API_KEY"))
    arguments = parser.parse_args()
    if arguments.url is not None:
        try:
            return demonstrate_at(Remote(arguments.url, arguments.api_key))
        except (HTTPError, URLError) as exc:
            print(f"It did not work: {exc}", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory() as folder:
        try:
            return demonstrate(Path(folder), arguments.voices)
        except VoiceServerError as exc:
            print(f"It did not work: {exc}", file=sys.stderr)
            return 1


def demonstrate(folder: Path, given: Path | None) -> int:
    if given is not None:
        shutil.copytree(given, folder / "voices")
    manager = VoiceManager(folder / "voices")
    if given is None:
        for name, pitch in (("Maya", 210), ("Nova", 150)):
            manager.clone_voice(
                name,
                recording(pitch),
                transcript=f"This is {name}.",
                description=f"A generated tone of {pitch} Hz",
                casting_notes="for the demonstration",
            )
    packager = VoicePackager(manager)
    before = {voice.id: voice for voice in manager.list_voices()}
    print(f"The catalogue has {len(before)} voices: {', '.join(before) or 'none'}")

    packages = packager.export_all(folder / "backup")
    for path in packages:
        print(f"  exported {path.name} ({path.stat().st_size / 1024:.0f} kB)")

    for voice_id in before:
        manager.delete_voice(voice_id)
    print(f"Cleared: {len(manager.list_voices())} voices left")

    for path in packages:
        print(f"  imported {packager.import_package(path).id}")

    after = {voice.id: voice for voice in manager.list_voices()}
    wrong = [voice_id for voice_id in before if told(before[voice_id]) != told(after.get(voice_id))]
    if wrong or len(before) != len(after):
        print(f"NOT the same as before: {', '.join(wrong)}")
        return 1
    print(f"All {len(after)} voices are back, recordings and metadata alike")
    return 0


class Remote:
    """The voices of a running server, over HTTP."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/tts"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def clone(self, wav: bytes, **fields: str) -> Any:
        """Make a voice of a recording."""
        return json.loads(self._ask("POST", "/clone", *_form(wav, fields)))

    def voices(self) -> dict[str, Any]:
        """What the server says of each voice, by id."""
        listed = json.loads(self._ask("GET", "/voices"))["voices"]
        return {voice["voice_id"]: voice for voice in listed}

    def export(self, voice_id: str) -> bytes:
        """The package of a voice."""
        return self._ask("GET", f"/voices/{voice_id}/package")

    def delete(self, voice_id: str) -> None:
        self._ask("DELETE", f"/voices/{voice_id}")

    def take(self, package: bytes) -> str:
        """Import a package; the id of its voice."""
        answer = json.loads(self._ask("POST", "/voices/import", *_form(package, {})))
        return str(answer["voice_id"])

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {**self._headers, **({"Content-Type": kind} if kind else {})}
        request = Request(self._url + path, body, headers, method=method)
        with urlopen(request, timeout=60) as answer:
            data: bytes = answer.read()
            return data


def demonstrate_at(remote: Remote) -> int:
    made = [
        remote.clone(
            recording(pitch),
            name=f"Demonstration {name}",
            ref_text=f"This is {name}.",
            description=f"A generated tone of {pitch} Hz",
            casting_notes="for the demonstration",
        )["voice_id"]
        for name, pitch in (("Maya", 210), ("Nova", 150))
    ]
    before = {voice_id: remote.voices()[voice_id] for voice_id in made}
    print(f"The server has made {len(before)} voices: {', '.join(before)}")
    packages = {voice_id: remote.export(voice_id) for voice_id in before}
    for voice_id, package in packages.items():
        print(f"  exported {voice_id} ({len(package) / 1024:.0f} kB)")
    for voice_id in before:
        remote.delete(voice_id)
    print(f"Cleared: {len(before.keys() & remote.voices().keys())} of them left")
    for package in packages.values():
        print(f"  imported {remote.take(package)}")
    after = remote.voices()
    wrong = [voice_id for voice_id in before if before[voice_id] != after.get(voice_id)]
    changed = [v for v in before if v not in wrong and remote.export(v) != packages[v]]
    for voice_id in before.keys() & after.keys():
        remote.delete(voice_id)
    if wrong or changed:
        print(f"NOT the same as before: {', '.join(wrong + changed)}")
        return 1
    print(f"All {len(before)} voices are back, recordings and metadata alike")
    return 0


def _form(file: bytes, fields: dict[str, str]) -> tuple[bytes, str]:
    """A file and fields as multipart/form-data (RFC 7578), and its media type."""
    border = secrets.token_hex(16)
    parts = [
        f'--{border}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n\r\n'
    body = b"".join([*parts, head.encode(), file, f"\r\n--{border}--\r\n".encode()])
    return body, f"multipart/form-data; boundary={border}"


def told(voice: Voice | None) -> object:
    """Everything of a voice that a package carries: all but where its files are, and its owner."""
    if voice is None:
        return None
    samples = [(s.sha256, s.transcript, s.duration, s.notes) for s in voice.samples]
    return dataclasses.replace(voice, samples=(), owner=""), samples


def recording(pitch: int, seconds: int = 4, rate: int = 24_000) -> bytes:
    """A WAV of something voice-like, so that the demonstration needs nobody's voice."""
    values = []
    for n in range(seconds * rate):
        t = n / rate
        voiced = sum(math.sin(2 * math.pi * pitch * k * t) / k for k in (1, 2, 3))
        values.append(int(6_000 * voiced * (0.6 + 0.4 * math.sin(2 * math.pi * 3 * t))))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(values)}h", *values))
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
