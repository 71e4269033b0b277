"""Reads the environment and backends.yaml into one Config, with what flags override.

    a flag ─▶ VOICE_SERVER_… ─▶ another program's variable ─▶ backends.yaml ─▶ the default

Names that mean nothing become ``Config.warnings``, for whoever configures logging to tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from voice_server.config.backends import MAX_WORKERS, BackendConfig, load_backends
from voice_server.config.inherited import OTHER_NAMES, QWEN, inherited
from voice_server.config.mistakes import explain
from voice_server.config.settings import ENV_PREFIX, Limits, Settings
from voice_server.core.errors import ConfigError, UnknownBackend
from voice_server.core.expectations import suggest


@dataclass(frozen=True)
class Config:
    """Everything configured, valid. ``start`` names the backends to run, the default first.

    ``sources``: where each setting's value comes from that is not its default, by its name in
    backends.yaml.
    """

    settings: Settings
    backends_file: Path
    backends: Mapping[str, BackendConfig]
    start: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

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
        pool size that is no number of workers.
        """
        if pool_size is not None and not 1 <= pool_size <= MAX_WORKERS:
            expected = f"an integer from 1 to {MAX_WORKERS}"
            raise ConfigError(f"--pool-size › expected {expected}, got {pool_size}")
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
    flags = {name: value for name, value in overrides.items() if value is not None}
    given = from_others.settings | flags
    settings = _settings(given, _label_of_flags(given))
    path = settings.backends_file.absolute()
    listed = load_backends(path)
    from_file, unknown = _settings_of_file(listed.server, settings)
    before = settings
    if from_file:
        settings = _settings({**from_file, **given}, _label_of_file(path.name))
    sources = _sources(before, from_file, from_others.settings, flags, path.name)
    start = listed.start or (listed.default,)
    start = tuple(dict.fromkeys((listed.default, *start) if listed.default in start else start))
    backends = dict(listed.backends)
    warnings = [*from_others.warnings, *_unknown_variables()]
    warnings += [f"{path.name} › server.{name} › unknown setting{hint}" for name, hint in unknown]
    if (name := from_others.backend) is not None:
        if name in backends:
            start = (name,)
        else:
            warnings.append(f"environment › TTS_BACKEND › no backend named {name!r}")
    if from_others.qwen_options and QWEN in backends:
        options = {**backends[QWEN].options, **from_others.qwen_options}
        backends[QWEN] = backends[QWEN].model_copy(update={"options": options})
    return Config(settings, path, backends, start, tuple(warnings), sources)


def _settings(given: Mapping[str, Any], label: Callable[[Sequence[str]], str]) -> Settings:
    try:
        return Settings(**given)
    except ValidationError as exc:
        raise ConfigError(explain(exc, Settings, label)) from None
    except SettingsError:
        raise ConfigError(f"environment › {ENV_PREFIX}LIMITS › expected a JSON map") from None


def _label_of_flags(given: Mapping[str, Any]) -> Callable[[Sequence[str]], str]:
    def label(loc: Sequence[str]) -> str:
        if loc and loc[0] in given:
            return f"--{loc[0].replace('_', '-')}"
        return f"environment › {ENV_PREFIX}{'_'.join(loc).upper()}"

    return label


def _label_of_file(name: str) -> Callable[[Sequence[str]], str]:
    return lambda loc: f"{name} › server.{'.'.join(loc)}"


def _settings_of_file(
    listed: Mapping[str, Any], settings: Settings
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What the file sets and nothing before it, and (name, hint) of what does not exist."""
    known = set(Settings.model_fields) - {"backends_file"}
    found = {key: value for key, value in listed.items() if key in known}
    unknown = [(key, suggest(key, known)) for key in listed if key not in known]
    set_before = settings.model_fields_set
    if isinstance(limits := found.get("limits"), dict):
        known_limits = set(Limits.model_fields)
        unknown += [
            (f"limits.{key}", suggest(str(key), known_limits))
            for key in limits
            if key not in known_limits
        ]
        open_limits = known_limits - settings.limits.model_fields_set
        found["limits"] = {k: v for k, v in limits.items() if k in open_limits}
        set_before = set_before - {"limits"}
    return {key: value for key, value in found.items() if key not in set_before}, unknown


def _sources(
    settings: Settings,
    from_file: Mapping[str, Any],
    from_others: Mapping[str, Any],
    flags: Mapping[str, Any],
    file: str,
) -> dict[str, str]:
    """``settings`` are those before the file was read."""
    found = {}
    for name in settings.model_fields_set - {"limits"}:
        variable = f"{ENV_PREFIX}{name.upper()}"
        if name in flags:
            found[name] = f"--{name.replace('_', '-')}"
        else:
            found[name] = OTHER_NAMES[name] if name in from_others else variable
    for name in settings.limits.model_fields_set:
        found[f"limits.{name}"] = f"{ENV_PREFIX}LIMITS_{name.upper()}"
    for name, value in from_file.items():
        for key in [f"limits.{part}" for part in value] if name == "limits" else [name]:
            found[key] = file
    return found


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
