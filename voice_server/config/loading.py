"""Reads the environment and backends.yaml into one Config, with what flags override.

Variables of the environment that mean nothing become ``Config.warnings``, for whoever configures
logging to tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from voice_server.config.backends import BackendConfig, load_backends
from voice_server.config.inherited import QWEN, inherited
from voice_server.config.mistakes import explain
from voice_server.config.settings import ENV_PREFIX, Limits, Settings
from voice_server.core.errors import ConfigError, UnknownBackend
from voice_server.core.expectations import suggest


@dataclass(frozen=True)
class Config:
    """Everything configured, valid. ``start`` names the backends to run, the default first."""

    settings: Settings
    backends_file: Path
    backends: Mapping[str, BackendConfig]
    start: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        return self.settings.limits

    @property
    def default(self) -> str:
        """The backend used when the client names none."""
        return self.start[0]

    def backend(self, name: str) -> BackendConfig:
        """Raises UnknownBackend, naming those that exist."""
        try:
            return self.backends[name]
        except KeyError:
            hint = suggest(name, self.visible())
            raise UnknownBackend(f"no backend named {name!r} in backends.yaml{hint}") from None

    def visible(self) -> tuple[str, ...]:
        """Names of the backends that lists show, in the file's order."""
        return tuple(name for name, backend in self.backends.items() if not backend.hidden)

    def with_backends(self, names: Sequence[str] = (), pool_size: int | None = None) -> Config:
        """This configuration with ``--backend`` and ``--pool-size`` applied.

        The first name is the default backend. Raises UnknownBackend, or ConfigError for a
        pool size below 1.
        """
        if pool_size is not None and pool_size < 1:
            raise ConfigError(f"--pool-size › expected an integer ≥ 1, got {pool_size}")
        backends = {name: self.backend(name) for name in names}
        start = tuple(backends) or self.start
        if pool_size is not None:
            resized = {
                name: self.backends[name].model_copy(update={"workers": pool_size})
                for name in start
            }
            return replace(self, start=start, backends={**self.backends, **resized})
        return replace(self, start=start)


def load_config(**overrides: Any) -> Config:
    """Read the environment and backends.yaml. ``overrides`` are settings from flags.

    An override that is None was not given. Raises ConfigError.
    """
    from_others = inherited(os.environ)
    given = from_others.settings | {k: v for k, v in overrides.items() if v is not None}
    try:
        settings = Settings(**given)
    except ValidationError as exc:
        raise ConfigError(explain(exc, Settings, _setting_label(given))) from None
    except SettingsError:
        raise ConfigError(f"environment › {ENV_PREFIX}LIMITS › expected a JSON map") from None
    path = settings.backends_file.absolute()
    listed = load_backends(path)
    start = listed.start or (listed.default,)
    start = tuple(dict.fromkeys((listed.default, *start) if listed.default in start else start))
    backends = dict(listed.backends)
    warnings = [*from_others.warnings, *_unknown_variables()]
    if (name := from_others.backend) is not None:
        if name in backends:
            start = (name,)
        else:
            warnings.append(f"environment › TTS_BACKEND › no backend named {name!r}")
    if from_others.qwen_options and QWEN in backends:
        options = {**backends[QWEN].options, **from_others.qwen_options}
        backends[QWEN] = backends[QWEN].model_copy(update={"options": options})
    return Config(settings, path, backends, start, tuple(warnings))


def _setting_label(given: Mapping[str, Any]) -> Callable[[Sequence[str]], str]:
    def label(loc: Sequence[str]) -> str:
        if loc and loc[0] in given:
            return f"--{loc[0].replace('_', '-')}"
        return f"environment › {ENV_PREFIX}{'_'.join(loc).upper()}"

    return label


def _unknown_variables() -> tuple[str, ...]:
    nested = f"{ENV_PREFIX}LIMITS_"
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    known |= {f"{nested}{name.upper()}" for name in Limits.model_fields}
    unknown = (
        name
        for name in os.environ
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in known
    )
    return tuple(
        f"environment › {name} › unknown setting{suggest(name.upper(), known, all_if_none=False)}"
        for name in unknown
    )
