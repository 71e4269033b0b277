"""Move every voice that was made on one server to another, and see that each arrived whole.

    python examples/move_voices.py http://old:8000 http://new:8000

Keys, where the servers want them, from OLD_KEY and NEW_KEY. Run it again
at any time: what is there already is skipped. Nothing is deleted.
Status 1: not every voice is there now; what is missing is told, and why.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from typing import Any

VOICES = "/api/v1/tts/voices"
PAGE = 100


class Failed(Exception):
    """Nothing can be moved; the message is for whoever runs this."""


class Refused(Exception):
    """A server does not give this voice, or does not take it."""


def main(old: str, new: str) -> int:
    moved = differ = refused = 0
    for voice in voices_of(old):
        path = f"{VOICES}/{voice['voice_id']}/package"
        try:
            package = call(old, "OLD", path)
            answer = json.loads(call(new, "NEW", f"{VOICES}/import?on_conflict=skip", package))
            # A package of the same voice is the same bytes, on every server.
            is_same = call(new, "NEW", path) == package
        except Refused as why:
            refused += 1
            print(f"{'refused':8}  {voice['voice_id']}  {why}")
            continue
        moved += answer["status"] == "imported"
        differ += not is_same
        note = "" if is_same else "  is another one there"
        print(f"{answer['status']:8}  {voice['voice_id']}{note}")
    print(
        f"{moved} voices moved"
        + (f", {differ} are others on {new}" if differ else "")
        + (f", {refused} were refused" if refused else "")
    )
    return 1 if differ or refused else 0


def voices_of(server: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        query = f"?limit={PAGE}&offset={len(found)}"
        try:
            page = json.loads(call(server, "OLD", VOICES + query))
            found += page["voices"]
            if not page["voices"] or len(found) >= page["total"]:
                return found
        except (Refused, ValueError, KeyError, TypeError) as why:
            raise Failed(
                f"{server} gives no list of voices ({why}): is it a Voice Server?"
            ) from None


def call(server: str, which: str, path: str, package: bytes | None = None) -> bytes:
    """GET, or POST of a package as the file of a form. Raises Refused, Failed."""
    headers, body = {}, None
    if package is not None:
        edge = uuid.uuid4().hex
        headers["Content-Type"] = f"multipart/form-data; boundary={edge}"
        disposition = 'Content-Disposition: form-data; name="file"; filename="voice.voicepkg.zip"'
        body = f"--{edge}\r\n{disposition}\r\n\r\n".encode() + package
        body += f"\r\n--{edge}--\r\n".encode()
    if key := os.environ.get(f"{which}_KEY", "").strip():
        if not key.isprintable():
            raise Failed(f"{which}_KEY is no key: it holds a line break, or the like")
        # As UTF-8, which is what servers compare; a header is Latin-1 here.
        headers["Authorization"] = f"Bearer {key}".encode().decode("latin-1")
    try:
        request = urllib.request.Request(server.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        code, detail = told(error)
        if error.code == 401 or code == "missing_scope":
            why = f"{which}_KEY is not set to a key that may do this"
            raise Failed(f"{server} answered {error.code}: {why} ({detail})") from None
        if error.code == 429 or error.code >= 500:
            raise Failed(f"{server} answered {error.code}: {detail}. Run this again") from None
        raise Refused(f"{server} answered {error.code}: {detail}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Failed(f"{server} cannot be asked ({why}): is it http://HOST:PORT?") from None


def told(error: urllib.error.HTTPError) -> tuple[str, str]:
    """The code of an error and what it says."""
    try:
        answer = json.loads(error.read(65_536))
        return str(answer["code"]), str(answer["detail"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "", str(error.reason)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    except Failed as why:
        sys.exit(f"error: {why}")
