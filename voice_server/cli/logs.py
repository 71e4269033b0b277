"""Configures logging, the only place that does: to stderr, as text or as JSON lines."""

from __future__ import annotations

import json
import logging
import re
import time

_QUERY = re.compile(r"\?\S*")
# These say at INFO what is of interest to their authors.
_CHATTY = ("watchfiles", "asyncio", "multipart", "python_multipart", "httpcore", "httpx", "uvicorn")


def configure_logging(level: str = "INFO", form: str = "text") -> None:
    """``form`` is ``text`` or ``json``. uvicorn's lines go the same way, without query strings."""
    handler = logging.StreamHandler()
    handler.addFilter(without_queries)
    formatter = JsonFormatter() if form == "json" else TextFormatter()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.INFO if root.level < logging.INFO else "WARNING")


def without_queries(record: logging.LogRecord) -> bool:
    """Take query strings out of uvicorn's lines: a key or a text may stand in them."""
    if record.name.startswith("uvicorn") and isinstance(record.args, tuple):
        record.args = tuple(
            _QUERY.sub("", arg) if isinstance(arg, str) else arg for arg in record.args
        )
    return True


class TextFormatter(logging.Formatter):
    """``12:00:00.123 INFO    voice_server.speech.service  turn done …``"""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S"
        )


class JsonFormatter(logging.Formatter):
    """One object a line: ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{seconds}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
