"""``cli.py backends``: which engines there are, installing, checking and restarting them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import (
    errors_told,
    parse_option,
    print_table,
    progress,
    tell_error,
)

if TYPE_CHECKING:
    from voice_server.config import Config
    from voice_server.workers.environments import Environment

app = typer.Typer(help="Look after the engines.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Engines, by their names in backends.yaml.")]
Engines = Annotated[
    list[str], typer.Argument(help="Engines, by their names in backends.yaml or by their folders.")
]


@app.command("list")
def list_backends(
    is_everything: Annotated[
        bool, typer.Option("--all", help="Also those that exist for the tests.")
    ] = False,
) -> None:
    """Show every engine, where it lives, and whether it can run; if not, why."""
    from voice_server.config import load_config
    from voice_server.workers.environments import Environment

    with errors_told():
        config = load_config()
        rows = []
        for name in config.backends if is_everything else config.visible():
            environment = Environment(name, config)
            state = _state(environment)
            mark = " (default)" if name == config.default else ""
            rows.append((name + mark, str(environment.config.workers), state, _home(environment)))
        print_table(("backend", "workers", "state", "interpreter"), rows)


@app.command()
def install(
    engines: Engines,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also when it is installed already.")
    ] = False,
) -> None:
    """Build the venv of an engine from its pinned requirements, and see that a worker starts."""
    from voice_server.config import load_config
    from voice_server.workers.environments import Environment

    with errors_told():
        names, config = _known(load_config(), engines)
        environments = [Environment(name, config) for name in names]
        for environment in environments:
            began = time.perf_counter()
            with progress(f"installing {environment.name}") as show:
                is_new = environment.install(show, is_forced=is_forced)
            took = f"installed in {time.perf_counter() - began:.1f} s" if is_new else "is installed"
            typer.echo(f"{environment.name} {took}: {_home(environment)}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What it is called, such as my_engine.")],
) -> None:
    """Write the folder of a new engine, which speaks in beeps until a model takes their place."""
    from voice_server.cli.skeletons import ENTRY, add_entry, is_name, write_skeleton
    from voice_server.config import load_config
    from voice_server.core.errors import ConfigError

    with errors_told():
        if not is_name(name):
            raise ConfigError(f"{name!r} › expected a name of a-z, 0-9, _ and -, as in my_engine")
        config = load_config()
        folder = write_skeleton(name, config)
        typer.echo(f"written: {folder}/backend.py, requirements.txt, README.md")
        if add_entry(name, config.backends_file):
            typer.echo(f"added: {name} to {config.backends_file}")
        else:
            typer.echo(f"add to {config.backends_file}, under backends:{ENTRY.format(name=name)}")
        typer.echo(f"next: cli.py backends install {name}, then check {name} --full")


@app.command()
def check(
    engines: Engines,
    is_full: Annotated[
        bool, typer.Option("--full", help="Hold it to everything that an engine promises.")
    ] = False,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", help="As under options: in backends.yaml, K=V. May be repeated."),
    ] = None,
    segments: Annotated[
        int, typer.Option(min=3, help="With --full: segments to watch its memory over.")
    ] = 200,
    cancels: Annotated[
        int, typer.Option(min=1, help="With --full: points of a text at which it is cancelled.")
    ] = 24,
    chars: Annotated[
        int, typer.Option(min=50, help="With --full: length of the long text.")
    ] = 1_500,
    voice: Annotated[
        str | None, typer.Option(help="With --full: the speaker, default its own.")
    ] = None,
    opt: Annotated[
        list[str] | None,
        typer.Option("--opt", help="With --full: an option of every job, K=V. May be repeated."),
    ] = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="With --full: what it clones, a mono 24 kHz WAV file."
        ),
    ] = None,
    transcript: Annotated[
        str | None, typer.Option(help="With --full: what is said in the recording.")
    ] = None,
) -> None:
    """Start a worker of an engine, have it load and speak, and say what was measured."""
    from voice_server.cli import checking
    from voice_server.cli.logs import configure_logging
    from voice_server.config import load_config
    from voice_server.contract.terms import Plan
    from voice_server.core.errors import VoiceServerError

    with errors_told():
        configure_logging("ERROR")
        names, config = _known(load_config(), engines)
        for name in names:
            config = _with_options(config, name, options or [])
        params = dict(parse_option(pair) for pair in opt or [])
        recording = recording and recording.absolute()
        plan = Plan(segments, cancels, chars, voice, params, recording, transcript)
        failed = 0
        for name in names:
            try:
                if is_full:
                    failed += not checking.check_fully(name, config, plan)
                else:
                    checking.check(name, config.with_backends([name], pool_size=1))
            except VoiceServerError as exc:
                tell_error(exc)
                failed += 1
        if failed:
            raise typer.Exit(1)


@app.command()
def restart(
    names: Names,
    url: Annotated[str, typer.Option(help="The running server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(help="Its key.", envvar="VOICE_SERVER_API_KEY", show_envvar=True),
    ] = None,
) -> None:
    """Replace the workers of a running server one by one, without a listener noticing."""
    from voice_server.cli.remote import post

    with errors_told():
        for name in names:
            with progress(f"restarting {name}"):
                answer = post(url, f"/backends/{name}/restart", api_key)
            typer.echo(f"{name}: {answer['workers']} workers replaced")


def _state(environment: Environment) -> str:
    from voice_server.workers.inspection import missing_weights, why_not_runnable

    if reason := environment.health():
        is_lazy = environment.config.auto_install and environment.entry
        return "installs itself on first use" if is_lazy else reason
    if reason := why_not_runnable(environment):
        return reason
    absent = missing_weights(environment)
    return f"installed; {absent}" if absent else "installed"


def _home(environment: Environment) -> str:
    return str(environment.venv or environment.python)


def _known(config: Config, engines: list[str]) -> tuple[list[str], Config]:
    """Names, and the configuration with an entry for each engine that was given as a folder.

    Raises UnknownBackend, or ConfigError for a folder that is not there, or whose name cannot be
    one of backends.yaml.
    """
    from voice_server.cli.skeletons import is_name
    from voice_server.config import BackendConfig
    from voice_server.core.errors import ConfigError

    names, added = [], {}
    for engine in engines:
        if "/" not in engine:
            config.backend(engine)
            names.append(engine)
            continue
        folder = Path(engine).absolute()
        name = folder.name.lower()
        if not folder.is_dir():
            raise ConfigError(f"{engine} › there is no such folder")
        if not is_name(name):
            raise ConfigError(f"{engine} › expected a folder named as an engine, such as my_engine")
        known = config.backends.get(name, BackendConfig())
        added[name] = known.model_copy(update={"path": folder})
        names.append(name)
    return names, replace(config, backends={**config.backends, **added})


def _with_options(config: Config, name: str, options: list[str]) -> Config:
    backend = config.backend(name)
    given = {**backend.options, **dict(parse_option(option) for option in options)}
    changed = backend.model_copy(update={"options": given})
    return replace(config, backends={**config.backends, name: changed})
