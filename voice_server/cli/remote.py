"""Asks a running server over HTTP, for the commands that look after one."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from voice_server.core.errors import ConfigError, VoiceServerError


def post(url: str, path: str, api_key: str | None, *, timeout: float = 600.0) -> dict[str, Any]:
    """POST without a body; the answer's JSON object.

    Raises ConfigError where no server answers, VoiceServerError with what the server refused.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url} › expected something like http://127.0.0.1:8000")
    headers = authorization(api_key)
    request = Request(url.rstrip("/") + path, data=b"", headers=headers, method="POST")
    try:
        with urlopen(request, timeout=timeout) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as exc:
        raise VoiceServerError(f"{url} answered {exc.code}: {_detail(exc)}") from None
    except (URLError, TimeoutError) as exc:
        reason = getattr(exc, "reason", exc)
        raise ConfigError(
            f"--url {url} › no server answers there ({reason}): start one with server.py"
        ) from None


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that shows a key, without the line break that its file ended with."""
    # As UTF-8, which is what the server compares; clients of HTTP take headers for Latin-1.
    key = (api_key or "").strip().encode().decode("latin-1")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _detail(error: HTTPError) -> str:
    body = error.read(4096).decode(errors="replace")
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body.strip() or str(error.reason)
