"""``cli.py config``: what is set, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voice_server.cli.console import errors_told, note, print_table

if TYPE_CHECKING:
    from voice_server.config import Config

app = typer.Typer(help="Show and check the configuration.", no_args_is_help=True)

DEFAULT = "default"


@app.command()
def show(
    is_changed_only: Annotated[
        bool, typer.Option("--changed", help="Only what is not its default.")
    ] = False,
) -> None:
    """List every setting with its value and the source of the value. Secrets are not shown."""
    with errors_told():
        config = _loaded()
        rows = [
            (name, _shown(value), config.sources.get(name, DEFAULT))
            for name, value in _settings(config)
            if not is_changed_only or name in config.sources
        ]
        print_table(("setting", "value", "source"), rows)
        note(f"{config.backends_file}: {', '.join(config.start)} of {', '.join(config.visible())}")
        _warn(config)


@app.command()
def check() -> None:
    """Read everything as the server would. Status 0: it would start with this; 2: it would not.

    Nothing is started, installed or made. Where VOICE_SERVER_RELAY_BOXES is set, the relay's
    settings are checked too, and an engine that is missing is only a warning.
    """
    from voice_server.cli.readiness import check_readiness

    with errors_told():
        config = _loaded()
        _warn(config)
        for warning in check_readiness(config):
            note(f"warning: {warning}")
        note(f"the environment and {config.backends_file} are valid")


def _loaded() -> Config:
    from voice_server.config import load_config

    return load_config()


def _warn(config: Config) -> None:
    for warning in config.warnings:
        note(f"warning: {warning}")


def _settings(config: Config) -> Iterator[tuple[str, Any]]:
    for name in type(config.settings).model_fields:
        if name != "limits":
            yield name, getattr(config.settings, name)
    for name in type(config.limits).model_fields:
        yield f"limits.{name}", getattr(config.limits, name)


def _shown(value: object) -> str:
    from pydantic import SecretStr

    match value:
        case None | ():
            return "–"
        case bool():
            return str(value).lower()
        case SecretStr():
            return "(set)" if value.get_secret_value() else "–"
        case tuple():
            return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
