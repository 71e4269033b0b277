"""Which scope a request needs, and whether its key asks too often."""

from __future__ import annotations

import re
import time
from typing import Any

from voice_server.core.errors import RateLimited
from voice_server.storage.keyring import Key, parse_rate

# The first row that fits decides; "" needs a key, but no scope. What no row names is for admin.
_READ = ("GET", "HEAD", "OPTIONS")
_TABLE: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = tuple(
    (methods, re.compile(path), scope)
    for methods, path, scope in (
        (_READ, r"/|/docs(/.*)?|/openapi\.json|/ready|/health|/api/v1/status", ""),
        (("POST",), r"/tickets", ""),
        (_READ, r"/voices(/[^/]+)?|/backends|/models|/v[12](/.*)?", ""),
        (_READ, r"/profiles|/profiles/[^/]+|/api/v1/tts/voices(/[^/]+)?", ""),
        (("POST",), r"/tts|/api/v1/tts/synthesize|/preview-from-voice", "speak"),
        (("WS",), r"/stream|/stream-tokens|/generate/batch/.*", "speak"),
        (("WS",), r"/v[12]/.*|/tts/websocket|/telephony/.*", "speak"),
        (("POST", *_READ), r"/generate(/.*)?", "speak"),
        (("DELETE", *_READ), r"/history(/.*)?|/audio/.*|/previews/.*", "speak"),
        (("POST", "PUT", "DELETE", *_READ), r"/projects(/.*)?", "speak"),
        (("POST",), r"/v1/audio/voices|/v1/voices/add|/voices/clone", "voices"),
        (("DELETE",), r"/v1/voices/.*", "voices"),
        (("POST",), r"/v[12]/.*|/tts/(bytes|sse)|/telephony/.*", "speak"),
        (("POST", "PUT", "DELETE", *_READ), r"/profiles(/.*)?|/api/v1/tts/.*", "voices"),
        (("POST",), r"/preview|/upload|/transcribe", "voices"),
        (("POST", "DELETE", *_READ), r"/api/public/voice/onboarding/.*", "voices"),
        (("WS",), r"/ws", "voices"),
    )
)


def scope_of(method: str, path: str) -> str:
    """The scope that a request needs; ``method`` is ``WS`` for a WebSocket."""
    for methods, pattern, scope in _TABLE:
        if method in methods and pattern.fullmatch(path):
            return scope
    return "admin"


class Rates:
    """Counts what each key asks, in a moving window."""

    def __init__(self) -> None:
        self._limiter: Any = None
        self._rates: dict[str, Any] = {}

    def check(self, key: Key) -> None:
        """Count one request. Raises RateLimited with the seconds to wait."""
        self.count(key.id, key.rate, "this key")

    def count(self, who: str, rate: str, name: str) -> None:
        """The same for anybody. ``rate``: such as ``60/minute``; empty is no limit."""
        if rate and not self._limits.hit(self._parsed(rate), who):
            raise self._refusal(who, rate, f"{name} may ask {rate}")

    def add(self, who: str, rate: str) -> None:
        """Count, and refuse nothing."""
        if rate:
            self._limits.hit(self._parsed(rate), who)

    def check_spent(self, who: str, rate: str, name: str) -> None:
        """Refuse who has used the rate up, and count nothing."""
        if rate and not self._limits.test(self._parsed(rate), who):
            raise self._refusal(who, rate, f"{name}: more than {rate}")

    @property
    def _limits(self) -> Any:
        if self._limiter is None:
            from limits.storage import MemoryStorage
            from limits.strategies import MovingWindowRateLimiter

            self._limiter = MovingWindowRateLimiter(MemoryStorage())
        return self._limiter

    def _parsed(self, rate: str) -> Any:
        parsed = self._rates.get(rate)
        if parsed is None:
            parsed = self._rates[rate] = parse_rate(rate)
        return parsed

    def _refusal(self, who: str, rate: str, reason: str) -> RateLimited:
        reset, _ = self._limits.get_window_stats(self._parsed(rate), who)
        error = RateLimited(f"{reason}; wait a little")
        error.retry_after = max(1.0, reset - time.time())
        return error
