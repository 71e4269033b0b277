"""``cli.py mcp``: the tools of cli/agent_tools.py, for an agent that starts the command."""

from __future__ import annotations

from typing import Annotated

import typer

from voice_server.cli.console import errors_told
from voice_server.core.errors import ConfigError


def mcp(
    url: Annotated[str, typer.Option(help="The running server.")] = "http://127.0.0.1:8000",
    api_key: Annotated[
        str | None,
        typer.Option(help="Its key.", envvar="VOICE_SERVER_API_KEY", show_envvar=True),
    ] = None,
) -> None:
    """Give an agent the tools speak, list_voices and clone_voice, over MCP on stdin and stdout."""
    with errors_told():
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"--url {url} › expected something like http://127.0.0.1:8000")
        try:
            from voice_server.cli.agent_tools import make_server
        except ImportError as exc:
            raise ConfigError(
                f"MCP needs a package that is not installed ({exc.name}): run "
                "`.venv/bin/python -m pip install 'mcp>=2.3,<3'`"
            ) from None
        make_server(url, api_key).run()
