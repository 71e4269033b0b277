"""Shows the life of voice packages: export all voices, clear the catalogue, import, verify.

python demo_voice_packaging.py                    two generated voices in a temporary folder
python demo_voice_packaging.py --voices ./voices  a copy of your own; yours stay as they are
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import shutil
import struct
import sys
import tempfile
import wave
from pathlib import Path

from server.voice_manager import VoiceManager
from server.voice_packager import VoicePackager
from voice_server.core.errors import VoiceServerError
from voice_server.core.voices import Voice


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--voices", type=Path, help="a folder of voices; it is copied, not changed")
    arguments = parser.parse_args()
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
