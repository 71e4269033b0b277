"""Variables of the environment that are documented under other names than ours.

``TTS_BACKEND``, ``LOG_LEVEL`` and the like come from the document of the voice lifecycle. Ours win
where both are set. What makes no sense here becomes a warning, since other programs may use the
same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voice_server.config.settings import ENV_PREFIX

BACKENDS = {"qwen": "qwen3", "mock": "tone"}
QWEN = "qwen3"
OTHER_NAMES = {
    "log_level": "LOG_LEVEL",
    "log_format": "LOG_FORMAT",
    "preload": "PRELOAD_MODEL_ON_STARTUP",
}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FALSE = ("0", "false", "no", "off")


@dataclass(slots=True)
class Inherited:
    """What the variables ask for: ``settings`` by name, the backend to start, options for Qwen3."""

    settings: dict[str, Any] = field(default_factory=dict)
    backend: str | None = None
    qwen_options: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def inherited(environment: Mapping[str, str]) -> Inherited:
    """Read the variables. Never fails."""
    found = Inherited()
    given = {name: value.strip() for name, value in environment.items() if value.strip()}

    def is_ours(name: str) -> bool:
        return f"{ENV_PREFIX}{name.upper()}" in environment

    if (level := given.get("LOG_LEVEL", "").upper()) and not is_ours("log_level"):
        if level in _LEVELS:
            found.settings["log_level"] = level
        else:
            found.warnings.append(f"environment › LOG_LEVEL › expected one of {', '.join(_LEVELS)}")
    if (style := given.get("LOG_FORMAT", "").lower()) and not is_ours("log_format"):
        if style in ("text", "json"):
            found.settings["log_format"] = style
        else:
            found.warnings.append("environment › LOG_FORMAT › expected text or json")
    if (preload := given.get("PRELOAD_MODEL_ON_STARTUP")) and not is_ours("preload"):
        found.settings["preload"] = preload.lower() not in _FALSE
    if backend := given.get("TTS_BACKEND"):
        found.backend = BACKENDS.get(backend.lower(), backend)
    for variable, option in (("QWEN_TTS_MODEL_ID", "model"), ("TORCH_DTYPE", "dtype")):
        if value := given.get(variable):
            found.qwen_options[option] = value
    if device := given.get("DEVICE") or given.get("DEVICE_MAP"):
        found.qwen_options["device"] = device
    if given.get("UVICORN_WORKERS", "1") != "1":
        found.warnings.append(
            "environment › UVICORN_WORKERS › one process serves; its models are processes of "
            "their own, as many as --pool-size says"
        )
    return found
