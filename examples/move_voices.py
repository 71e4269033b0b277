"""Move every voice that was made on one server to another, and see that each arrived whole.

    python examples/move_voices.py http://old:8000 http://new:8000

Keys, where the servers want them, from OLD_KEY and NEW_KEY. Run it again
at any time: what is there already is skipped. Nothing is deleted.
"""

import json
import os
import sys
import urllib.request
import uuid
from typing import Any

VOICES = "/api/v1/tts/voices"
PAGE = 100


def main(old: str, new: str) -> int:
    moved = differ = 0
    for voice in voices_of(old):
        path = f"{VOICES}/{voice['voice_id']}/package"
        package = call(old, "OLD", path)
        answer = json.loads(call(new, "NEW", f"{VOICES}/import?on_conflict=skip", package))
        moved += answer["status"] == "imported"
        # A package of the same voice is the same bytes, on every server.
        is_same = call(new, "NEW", path) == package
        differ += not is_same
        note = "" if is_same else "  is another one there"
        print(f"{answer['status']:8}  {voice['voice_id']}{note}")
    print(f"{moved} voices moved" + (f", {differ} are others on {new}" if differ else ""))
    return 1 if differ else 0


def voices_of(server: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        query = f"?limit={PAGE}&offset={len(found)}"
        page = json.loads(call(server, "OLD", VOICES + query))
        found += page["voices"]
        if not page["voices"] or len(found) >= page["total"]:
            return found


def call(server: str, which: str, path: str, package: bytes | None = None) -> bytes:
    """GET, or POST of a package as the file of a form. Raises urllib.error.HTTPError."""
    headers, body = {}, None
    if package is not None:
        edge = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={edge}"
        disposition = 'Content-Disposition: form-data; name="file"; filename="voice.voicepkg.zip"'
        body = f"--{edge}\r\n{disposition}\r\n\r\n".encode() + package
        body += f"\r\n--{edge}--\r\n".encode()
    if key := os.environ.get(f"{which}_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(server.rstrip("/") + path, body, headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        return bytes(answer.read())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2]))
