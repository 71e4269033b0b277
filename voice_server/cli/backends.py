"""``cli.py backends``: which engines there are, installing, checking and restarting them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from voice_server.cli.console import errors_told, print_table, progress, tell_error

if TYPE_CHECKING:
    from voice_server.config import Config
    from voice_server.workers.environments import Environment

app = typer.Typer(help="Look after the engines.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Engines, by their names in backends.yaml.")]
CHECK_TEXT = "This is a check. It takes a moment."


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
            reason = environment.health()
            is_lazy = reason and environment.config.auto_install and environment.entry
            state = "installs itself on first use" if is_lazy else reason or "installed"
            mark = " (default)" if name == config.default else ""
            rows.append((name + mark, str(environment.config.workers), state, _home(environment)))
        print_table(("backend", "workers", "state", "interpreter"), rows)


@app.command()
def install(
    names: Names,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Also when it is installed already.")
    ] = False,
) -> None:
    """Build the venv of an engine from its pinned requirements, and see that a worker starts."""
    from voice_server.config import load_config
    from voice_server.workers.environments import Environment

    with errors_told():
        config = load_config()
        environments = [Environment(name, config) for name in names]
        for environment in environments:
            began = time.perf_counter()
            with progress(f"installing {environment.name}") as show:
                is_new = environment.install(show, is_forced=is_forced)
            took = f"installed in {time.perf_counter() - began:.1f} s" if is_new else "is installed"
            typer.echo(f"{environment.name} {took}: {_home(environment)}")


@app.command()
def check(names: Names) -> None:
    """Start a worker of an engine, have it load and speak, and say what was measured."""
    from voice_server.cli.logs import configure_logging
    from voice_server.config import load_config
    from voice_server.core.errors import VoiceServerError

    with errors_told():
        configure_logging("ERROR")
        config = load_config()
        for name in names:
            config.backend(name)
        failed = 0
        for name in names:
            try:
                _check(name, config.with_backends([name], pool_size=1))
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


def _home(environment: Environment) -> str:
    return str(environment.venv or environment.python)


def _check(name: str, config: Config) -> None:
    from voice_server.core.errors import BackendNotInstalled
    from voice_server.workers.environments import Environment

    environment = Environment(name, config)
    if reason := environment.health():
        raise BackendNotInstalled(f"{name} › {reason}")
    _tell(name, "adapter", str(environment.entry))
    _tell("", "interpreter", str(environment.python))
    began = time.perf_counter()
    hello = environment.greet()
    _tell("", "greets", f"in {time.perf_counter() - began:.2f} s, Python {hello.python}")
    asyncio.run(_check_speech(name, config))


async def _check_speech(name: str, config: Config) -> None:
    from voice_server.cli.engine import engine
    from voice_server.cli.report import Report
    from voice_server.cli.speak import show_errors, speak
    from voice_server.core.errors import SynthesisFailed
    from voice_server.core.wire import Configure

    began = time.perf_counter()
    async with engine(config) as service:
        await service.pools[name].wait_ready(config.backend(name).load_timeout)
        info = service.pools[name].info
        assert info is not None
        took = time.perf_counter() - began
        has = f"{len(info.speakers)} voices, {len(info.languages)} languages, {info.slots} slots"
        _tell("", "loads", f"in {took:.2f} s on {info.device}: {info.sample_rate} Hz, {has}")
        abilities = ("clones", "designs", "instructs", "word_timing", "streams_text")
        able = [ability.replace("_", " ") for ability in abilities if getattr(info, ability)]
        _tell("", "can", ", ".join([*able, *(f"[{tag}]" for tag in info.tags)]) or "speak")
        _tell("", "options", ", ".join(info.options) or "none")
        report = Report()
        await speak(service, CHECK_TEXT, Configure(), (), show_errors, report)
        if report.errors or not report.samples:
            raise SynthesisFailed(f"{name} › it did not speak {CHECK_TEXT!r}")
        _tell("", "speaks", report.line())


def _tell(name: str, what: str, about: str) -> None:
    typer.echo(f"{typer.style(f'{name:<12}', bold=True)}{what:<13}{about}")
