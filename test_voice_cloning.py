"""Tries voice onboarding on a running server: clone a recording, ask for it, hear it, delete it.

    python test_voice_cloning.py path/to/audio/file.mp3
    python test_voice_cloning.py recording.mp4 --api-url http://localhost:8000

Needs nothing but Python. ``--chatterbox-url`` is another server to ask first whether it is there.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

ONBOARDING = "/api/public/voice/onboarding"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path, help="audio or video of 2 seconds to 5 minutes")
    parser.add_argument("--api-url", default="http://localhost:8000")
    parser.add_argument("--chatterbox-url", help="a speech server that has to be there too")
    parser.add_argument("--api-key", default=os.environ.get("VOICE_SERVER_API_KEY"))
    parser.add_argument("--voice-name", default="My Voice")
    parser.add_argument("--sample-text", default="Hello, this is my cloned voice")
    parser.add_argument("--output", type=Path, default=Path("cloned_voice_sample.mp3"))
    parser.add_argument("--keep", action="store_true", help="leave the voice on the server")
    arguments = parser.parse_args()
    try:
        return attempt(arguments)
    except urllib.error.HTTPError as exc:
        print(f"✗ {exc.code}: {detail_of(exc)}", file=sys.stderr)
    except (OSError, ValueError) as exc:
        print(f"✗ {exc}", file=sys.stderr)
    return 1


def attempt(arguments: argparse.Namespace) -> int:
    key = arguments.api_key
    for url in filter(None, (arguments.api_url, arguments.chatterbox_url)):
        ask(f"{url}/health", key)
        print(f"✓ {url} is there")
    base = f"{arguments.api_url}{ONBOARDING}"
    form = {"voice_name": arguments.voice_name, "sample_text": arguments.sample_text}
    made = ask(f"{base}/clone", key, *multipart(arguments.recording, form))
    voice = made["voice_id"]
    print(f"✓ cloned {made['voice_name']!r} as {voice}")
    for warning in made["warnings"]:
        print(f"  note: {warning}")
    if made["sample_audio"]:
        arguments.output.write_bytes(base64.b64decode(made["sample_audio"].partition(",")[2]))
        print(f"✓ it says {made['sample_text']!r}: {arguments.output}")
    else:
        print(f"✗ it could not speak: {made['sample_error']}")
    status = ask(f"{base}/status/{voice}", key)
    print(f"✓ status {status['status']}: {status['detail']}")
    if not arguments.keep:
        ask(f"{base}/{voice}", key, method="DELETE")
        print("✓ deleted again")
    return 0 if made["sample_audio"] else 1


def ask(
    url: str, key: str | None, body: bytes | None = None, kind: str = "", method: str | None = None
) -> dict[str, Any]:
    request = urllib.request.Request(url, body, method=method)
    if kind:
        request.add_header("Content-Type", kind)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=300) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def multipart(recording: Path, fields: dict[str, str]) -> tuple[bytes, str]:
    """The body of a form with the recording, and its Content-Type (RFC 7578)."""
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(head.encode() + value.encode() + b"\r\n")
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="audio_file"; filename="recording"'
    )
    parts.append(head.encode() + b"\r\n\r\n" + recording.read_bytes() + b"\r\n")
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def detail_of(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


if __name__ == "__main__":
    sys.exit(main())
