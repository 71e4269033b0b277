"""What the command line says to a person: errors with a remedy, notes, colours where they show."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from voice_server import __version__
from voice_server.core.errors import ConfigError, RequestError, VoiceServerError


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"Voice Server {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
]


def note(text: str) -> None:
    """A remark beside the output: to stderr, so that pipes stay clean."""
    typer.secho(text, err=True, dim=True)


def warn(text: str) -> None:
    typer.secho(text, err=True, fg="yellow")


def tell_error(error: VoiceServerError | str) -> None:
    text = error if isinstance(error, str) else told(error)
    typer.echo(typer.style("error: ", fg="red", bold=True) + text, err=True)


def told(error: VoiceServerError) -> str:
    """The error's message, with a remedy for who types where it names one for who programs."""
    if error.code != "voice_is_empty":
        return str(error)
    what, _, _ = str(error).rpartition("; ")
    return (
        f"{what}; delete it with `cli.py voices delete VOICE`, and make it anew from a recording "
        "with `cli.py voices clone NAME FILE`"
    )


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Around a command: our errors become a line and an exit status, never a traceback.

    Status 2 where the command or the configuration is wrong, 1 where something failed.
    """
    try:
        yield
    except VoiceServerError as exc:
        for line in told(exc).splitlines():
            tell_error(line)
        is_wrong = isinstance(exc, RequestError | ConfigError)
        raise typer.Exit(2 if is_wrong else 1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def parse_option(text: str) -> tuple[str, Any]:
    """``speed=1.2`` → ("speed", 1.2). JSON where it is JSON, text otherwise. Raises ConfigError."""
    name, is_pair, value = text.partition("=")
    if not name or not is_pair:
        raise ConfigError(f"--opt {text!r} › expected name=value, such as speed=1.2")
    with contextlib.suppress(ValueError):
        return name, json.loads(value, parse_constant=_no_constant)
    return name, value


def _no_constant(name: str) -> float:
    # NaN and Infinity are not JSON; as text they are refused by whoever wants a number.
    raise ValueError(name)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for a person at a terminal; tab-separated lines, uncut, for a program."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner with the latest line at a terminal; plain lines elsewhere. Both on stderr."""
    if not sys.stderr.isatty():
        yield lambda line: typer.echo(f"{title}: {line}", err=True)
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(title) as status:

        def show(line: str) -> None:
            room = max(20, console.width - len(title) - 8)
            status.update(f"{title}  [dim]{escape(line[:room])}[/dim]")

        yield show


def confirm(question: str) -> bool:
    """Ask, where there is somebody to ask; no otherwise."""
    return sys.stdin.isatty() and sys.stderr.isatty() and typer.confirm(question, err=True)
