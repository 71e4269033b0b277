"""The command line: the flags of one turn at the top, and a group of commands for each noun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voice_server.cli import (
    backends,
    catalogue,
    compare,
    demo,
    keys,
    mcp,
    relay,
    serve,
    settings,
    voices,
)
from voice_server.cli.console import Version, errors_told, parse_option

EPILOG = """\
Examples:

  cli.py --text "Hello there." --output hello.wav

  cli.py --backend espeak --voice en-us+f3 --opt speed=1.2 --repl

  cli.py --stream-tokens --pool-size 2

  my-llm | cli.py --play
"""

app = typer.Typer(
    name="cli.py", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)
app.add_typer(backends.app, name="backends")
app.add_typer(catalogue.commands, name="voices")
app.add_typer(keys.app, name="keys")
app.add_typer(settings.app, name="config")
app.command("serve")(serve.serve)
app.command("relay")(relay.relay)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("mcp")(mcp.mcp)

SPEECH, ENGINE = "What to say", "Who says it"


@app.callback(invoke_without_command=True, epilog=EPILOG)
def root(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Option(help="Say this. Without it, what standard input brings.",
                                 rich_help_panel=SPEECH)
    ] = None,
    stream_tokens: Annotated[
        bool, typer.Option("--stream-tokens", help="Feed the text token by token, as a language "
                           "model does, and show what happens when.", rich_help_panel=SPEECH)
    ] = False,
    token_delay: Annotated[
        float, typer.Option(min=0.0, help="Seconds between two tokens of --stream-tokens.",
                            rich_help_panel=SPEECH)
    ] = 0.05,
    repl: Annotated[
        bool, typer.Option("--repl", help="Say each line that you type.", rich_help_panel=SPEECH)
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to a .wav, .mp3, .opus or .flac"
                                  " file.", rich_help_panel=SPEECH)
    ] = None,
    play: Annotated[
        bool | None, typer.Option("--play/--no-play", help="Play it.", rich_help_panel=SPEECH,
                                  show_default="play, unless there is --output or no device")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="The engine.", rich_help_panel=ENGINE,
                                 show_default="default of backends.yaml")
    ] = None,
    voice: Annotated[
        str | None, typer.Option("--voice", "-v", help="The voice.", rich_help_panel=ENGINE,
                                 show_default="the engine's")
    ] = None,
    opt: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="An option of the engine, such as "
                                       "speed=1.2; may be repeated.", rich_help_panel=ENGINE)
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the text, such as pt-BR.",
                                 rich_help_panel=ENGINE, show_default="the voice's")
    ] = None,
    pool_size: Annotated[
        int | None, typer.Option(help="Worker processes.", rich_help_panel=ENGINE,
                                 show_default="the engine's entry")
    ] = None,
    list_voices: Annotated[
        bool, typer.Option("--list-voices", help="List the engine's voices.",
                           rich_help_panel=ENGINE)
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Show the log of the engine's workers.")
    ] = False,
    _version: Version = False,
) -> None:  # fmt: skip
    """Speak from the command line with the real engines, and look after them."""
    if context.invoked_subcommand:
        return
    with errors_told():
        from voice_server.cli.installing import install_what_is_missing
        from voice_server.cli.logs import configure_logging
        from voice_server.config import load_config
        from voice_server.core.errors import ConfigError
        from voice_server.core.wire import parse_config

        is_piped = text is None and _has_piped_text()
        if not (text is not None or stream_tokens or repl or list_voices or is_piped):
            typer.echo(context.get_help())
            raise typer.Exit(2)
        if text is not None and not text.strip():
            raise ConfigError("--text › expected something to say")
        opts = dict(map(parse_option, opt or ()))
        asked = parse_config({"voice": voice, "opts": opts, "language": language})
        config = load_config().with_backends([backend] if backend else [], pool_size)
        config = config.with_backends([config.default])
        configure_logging("INFO" if verbose else "WARNING")
        install_what_is_missing(config)
        if list_voices:
            voices.print_voices(config)
            return
        if repl:
            from voice_server.cli.repl import run_repl

            run_repl(config, asked, play)
            return
        from voice_server.cli import speak

        if text is None and not is_piped:
            text = speak.SAMPLE_TEXT
        order = speak.Order(
            asked=asked,
            text=text,
            token_delay=token_delay if stream_tokens else None,
            output=output,
            is_played=False if play is None and output else play,
        )
        raise typer.Exit(speak.run(config, order))


def _has_piped_text() -> bool:
    """Another program, or a file, stands at our input; /dev/null, a service's, does not."""
    import os
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def main() -> None:
    """Entry point of cli.py."""
    app()
