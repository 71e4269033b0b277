"""The documentation as tests read it: its pages, their sections and blocks, and what can be typed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import typer

from voice_server.cli.app import app as cli
from voice_server.cli.serve import serve

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/clients/*.md",
        "examples/*.md",
        "backends/*/*.md",
        "voice_samples/*.md",
    )
    for path in ROOT.glob(pattern)
)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    level = heading.split(" ")[0]
    found = re.search(
        rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.S | re.M
    )
    assert found, f"there is no heading {heading!r}"
    return found[1]


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M):
        yield found[1], found[2]


def missing(names: Iterable[str], text: str) -> list[str]:
    """Names that no row of a table in the text is about: that do not stand in its first cell."""
    cells = re.findall(r"^\|([^|\n]*)\|", text, re.M)
    about = {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}
    return sorted(set(names) - about)


def commands() -> dict[str, click.Command]:
    """Every command by what is typed: ``cli.py``, ``cli.py backends list``, ``server.py``."""
    found: dict[str, click.Command] = {}

    def walk(name: str, command: click.Command) -> None:
        found[name] = command
        # Not by class: typer may bring a click of its own.
        for child, sub in getattr(command, "commands", {}).items():
            walk(f"{name} {child}", sub)

    server = typer.Typer(add_completion=False)
    server.command()(serve)
    walk("cli.py", typer.main.get_command(cli))
    walk("server.py", typer.main.get_command(server))
    return found


def client_flags() -> set[str]:
    """The flags of client.py, which are made where it parses its arguments."""
    tree = ast.parse((ROOT / "client.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    first = [node.args[0] for node in calls]
    flags = {arg.value for arg in first if is_text(arg) and re.match(r"--[a-z]", arg.value)}  # type: ignore[attr-defined]
    return {flag for flag in flags if re.fullmatch(r"--[a-z-]+", flag)}


def flags_of(command: click.Command) -> set[str]:
    flags = [flag for param in command.params for flag in (*param.opts, *param.secondary_opts)]
    return {flag for flag in flags if flag.startswith("--")} - {"--help"}


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
