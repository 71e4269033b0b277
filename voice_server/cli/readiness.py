"""What a start would find beyond the settings themselves: engines, database, keys, certificates."""

from __future__ import annotations

import asyncio

from voice_server.config import Config


def check_readiness(config: Config) -> list[str]:
    """What is worth knowing before a start. Nothing is started, installed or made.

    Raises ConfigError for what a start would end with.
    """
    from voice_server.cli.serve import check_settings
    from voice_server.control.signing import Signer
    from voice_server.storage.database import database_of

    settings = config.settings
    is_relay = settings.relay_boxes is not None
    if is_relay:
        _check_relay(config)
    check_settings(config)
    if settings.package_signing_key is not None:
        Signer.from_file(settings.package_signing_key)
    asyncio.run(database_of(settings).check())
    return _check_engines(config, is_needed=not is_relay)


def _check_engines(config: Config, *, is_needed: bool) -> list[str]:
    """``is_needed``: whether a start without an engine fails, unless it may be installed then."""
    from voice_server.core.errors import ConfigError
    from voice_server.workers.environments import Environment

    warnings = []
    for name in config.start:
        reason = Environment(name, config).health()
        if reason is None:
            continue
        if config.backend(name).auto_install:
            warnings.append(f"{name} › {reason}; the start installs it, which may take minutes")
        elif is_needed:
            raise ConfigError(f"{name} › {reason}")
        else:
            warnings.append(f"{name} › {reason}, unless this machine is only a relay")
    return warnings


def _check_relay(config: Config) -> None:
    from voice_server.cli.relay import tls_of
    from voice_server.relay.app import Relay

    Relay(config)
    tls_of(config)
