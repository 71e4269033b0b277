"""``cli.py voices``: which voices an engine has, dropped recordings and their faults included."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import errors_told, note, print_table, warn

if TYPE_CHECKING:
    from voice_server.config import Config

app = typer.Typer(help="Look at the voices.")


@app.callback(invoke_without_command=True)
def voices(
    context: typer.Context,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend", "-b", help="The engine; may be repeated.", show_default="all installed"
        ),
    ] = None,
) -> None:
    """List the voices of the engines, and the recordings that cannot be one, with the reason."""
    if context.invoked_subcommand:
        return
    from voice_server.cli.installing import install_what_is_missing
    from voice_server.cli.logs import configure_logging
    from voice_server.config import load_config
    from voice_server.workers.environments import Environment

    with errors_told():
        config = load_config()
        usable = [name for name in config.visible() if Environment(name, config).health() is None]
        config = config.with_backends(backend or usable, pool_size=1)
        configure_logging("ERROR")
        install_what_is_missing(config)
        print_voices(config)


def print_voices(config: Config) -> None:
    """A table of every voice that the backends of ``config.start`` speak."""
    asyncio.run(_print_voices(config))


async def _print_voices(config: Config) -> None:
    from voice_server.cli.engine import engine
    from voice_server.core.voices import can_speak, speaker_voices
    from voice_server.core.wire import Configure

    rows: list[tuple[str, ...]] = []
    patterns = []
    async with engine(config) as service:
        catalogue = service.catalogue
        for name, pool in service.pools.items():
            await service.route(Configure(backend=name))
            assert pool.info is not None
            mine = [voice for voice in catalogue.voices() if can_speak(pool.info, voice)]
            for voice in [*mine, *speaker_voices(name, pool.info)]:
                rows.append((voice.id, voice.language, voice.kind, name, voice.name))
            for alias, voice_id in config.backend(name).aliases.items():
                rows.append((alias, "", "alias", name, voice_id))
            if pool.info.speaker_pattern:
                pattern = pool.info.speaker_pattern
                shown = pattern if len(pattern) <= 60 else f"{pattern[:60]}…"
                patterns.append(f"{name} also takes any voice like {shown}")
        print_table(("voice", "language", "kind", "backend", "name"), rows)
        for pattern in patterns:
            note(pattern)
        for problem in catalogue.problems.values():
            warn(f"{problem.path}: {problem.reason}")
