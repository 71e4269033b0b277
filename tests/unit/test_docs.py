"""What can be set, sent, met or typed is in the docs.

One test for each kind of thing, so that a failure names what to write and where.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

from tests.pages import (
    PAGES,
    ROOT,
    client_flags,
    commands,
    flags_of,
    is_text,
    missing,
    page,
    section,
)
from voice_server.config import BackendConfig, BackendsFile, Limits, Settings, load_backends
from voice_server.core import wire
from voice_server.core.errors import VoiceServerError
from voice_server.speech.metrics import Metrics
from voice_server.web.app import DOORS

SOURCES = sorted(
    path for folder in ("voice_server", "voice_worker") for path in (ROOT / folder).rglob("*.py")
)
ADAPTERS = sorted((ROOT / "backends").glob("*/*.py"))


# -- configuration.md ----------------------------------------------------------------------------


def rows(model: type[BaseModel], name: str) -> list[str]:
    """The rows of a table about a model; ``name`` formats the field's name."""
    found = []
    for field, about in model.model_fields.items():
        if about.description is None or field == "limits":
            continue
        default = about.get_default(call_default_factory=True)
        shown = default if isinstance(default, str | int | float) and default != "" else "–"
        if isinstance(default, bool):
            shown = str(default).lower()
        if isinstance(default, float):
            shown = f"{default:g}"
        if isinstance(default, Path):
            shown = default.relative_to(ROOT)
        shown_name = name.format(field if name == "{}" else field.upper())
        # Markdown would take <name> for a tag.
        description = re.sub(r"[\w./-]*<\w+>(?:[\w./-]*\w)?", r"`\g<0>`", about.description)
        found.append(f"| `{shown_name}` | {shown} | {description} |")
    return found


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Settings, "VOICE_SERVER_{}"),
        (Limits, "VOICE_SERVER_LIMITS_{}"),
        (BackendsFile, "{}"),
        (BackendConfig, "{}"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_setting_has_its_row_with_default_and_description(
    model: type[BaseModel], name: str
) -> None:
    text = page("configuration.md")
    absent = [row for row in rows(model, name) if row not in text]
    assert not absent, "docs/configuration.md lacks:\n" + "\n".join(absent)


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    known = {f"VOICE_SERVER_{name.upper()}" for name in Settings.model_fields}
    known |= {f"VOICE_SERVER_LIMITS_{name.upper()}" for name in Limits.model_fields}
    for path in PAGES:
        named = set(re.findall(r"VOICE_SERVER_[A-Z_]*[A-Z]", path.read_text("utf-8")))
        assert not named - known - {"VOICE_SERVER_LIMITS"}, path


# -- protocol.md ---------------------------------------------------------------------------------


def test_every_field_of_a_client_message_is_documented() -> None:
    known = section(page("protocol.md"), "## Client to server")
    assert not missing(wire._KEYS, known)


def test_every_encoding_has_its_row() -> None:
    assert not missing(wire.ENCODINGS, section(page("protocol.md"), "## Sound"))


def server_messages() -> dict[str, set[str]]:
    """``type`` → fields, of every message literal in the modules that make messages."""
    found: dict[str, set[str]] = {}
    for path in [
        *(ROOT / "voice_server/core").glob("*.py"),
        *(ROOT / "voice_server/speech").glob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Dict):
                continue
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            values = {
                key.value: value.value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
            if isinstance(name := values.get("type"), str):
                found.setdefault(name, set()).update(keys)
    return found


def test_every_message_of_the_server_has_a_heading_and_shows_its_fields() -> None:
    messages = server_messages()
    # What the pattern is about must be there, or the test sees nothing.
    assert {"ready", "generating", "words", "cancelled", "error", "done", "audio"} <= set(messages)
    text = page("protocol.md")
    for name, fields in messages.items():
        about = section(text, f"### `{name}`")
        assert not [field for field in fields if f'"{field}"' not in about], name


def test_every_figure_of_done_is_explained() -> None:
    from voice_server.speech.context import NO_STATS, NOTHING_HEARD

    text = page("protocol.md")
    assert not missing(NO_STATS, section(text, "### `done`"))
    assert not [
        name for name in NOTHING_HEARD if f'"{name}"' not in section(text, "### `cancelled`")
    ]


def error_classes() -> list[type[VoiceServerError]]:
    found, waiting = [], [VoiceServerError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found


def test_every_error_has_its_row_with_status_close_code_and_retryable() -> None:
    text = section(page("protocol.md"), "## Errors")
    wanted = {
        f"| `{cls.code}` | {cls.status} | {cls.close_code} | {'yes' if cls.retryable else 'no'} |"
        for cls in error_classes()
    }
    assert not sorted(row for row in wanted if row not in text)


def codes_in(paths: Iterable[Path]) -> set[str]:
    """Every ``code="…"`` given to a call, and every ``code = "…"`` of a class."""
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                    found.add(code)
                case ast.Call(
                    func=ast.Name(id="Failure" | "Refused" | "_refusal"),
                    args=[ast.Constant(value=str(code)), *_],
                ):
                    found.add(code)
    return found


def test_every_code_that_is_given_anywhere_is_documented() -> None:
    internal = {"resume_mismatch"}  # between worker and server; no client sees it
    codes = codes_in([*SOURCES, *ADAPTERS]) - internal
    assert len(codes) > 20
    assert not missing(codes, section(page("protocol.md"), "## Errors"))


def routes() -> dict[str, str]:
    """Every path of every door, and how it is written: ``GET /voices``."""
    found = {}
    for route in (route for door in DOORS for route in door.routes()):
        method = getattr(route, "method", None) or (
            "WS" if isinstance(route, WebSocketRoute) else "GET"
        )
        found[f"{method} {route.path}"] = route.path  # type: ignore[attr-defined]
    return found


def test_every_route_is_documented() -> None:
    clients = "".join(path.read_text("utf-8") for path in (ROOT / "docs/clients").glob("*.md"))
    text = page("protocol.md") + page("voices.md") + clients
    assert len(routes()) > 10
    with_heading = set(re.findall(r"^# .*|^### `(.*)`$", text, re.M))
    of_the_page = {"GET /docs", "GET /docs/{name}", "GET /openapi.json", "WS /stream-tokens"}
    assert not missing(routes().keys() - with_heading - of_the_page, text)


def test_no_route_that_is_documented_is_missing() -> None:
    known = routes()
    for path in PAGES:
        named = re.findall(r"`((?:GET|POST|PUT|DELETE|WS) /[^`? ]*)`", path.read_text("utf-8"))
        assert not [route for route in named if route not in known], path


# -- operations.md -------------------------------------------------------------------------------


def test_every_metric_has_its_row() -> None:
    names = set()
    for family in Metrics({}).registry.collect():
        suffix = "_total" if family.type == "counter" else ""
        names.add(family.name + suffix)
    assert len(names) > 10
    assert not missing(names, section(page("operations.md"), "## Metrics"))


def test_no_page_names_a_metric_that_does_not_exist() -> None:
    known = {family.name for family in Metrics({}).registry.collect()}
    known |= {name + suffix for name in known for suffix in ("_total", "_count", "_sum", "_bucket")}
    for path in PAGES:
        named = set(re.findall(r"\bvoice_server_[a-z_]*[a-z]\b", path.read_text("utf-8")))
        assert not named - known, path


# -- commands.md ---------------------------------------------------------------------------------


def test_every_command_and_every_flag_is_documented() -> None:
    text, found = page("commands.md"), commands()
    assert {"cli.py", "cli.py serve", "cli.py backends install", "server.py"} <= set(found)
    # The first word of a cell's code is the flag or the command; what follows it are its values.
    for name, command in found.items():
        about = section(text, "## server.py" if name == "server.py" else "## cli.py")
        if name in ("cli.py", "server.py"):
            assert flags_of(command)
            assert not missing(flags_of(command), without_values(about)), name
            continue
        wanted = re.compile(rf"\| `{name}( [A-Z…]+)*` \|")
        mine = [line for line in about.splitlines() if wanted.match(line)]
        assert len(mine) == 1, name
        if name != "cli.py serve":  # whose flags are those of server.py
            shown = set(re.findall(r"`(--[a-z-]+)[^`]*`", mine[0]))
            assert flags_of(command) <= shown, name


def without_values(text: str) -> str:
    """``--backend NAME`` → ``--backend`` in code."""
    return re.sub(r"`(--[a-z-]+) [^`]*`", r"`\1`", text)


def test_every_flag_of_the_client_is_documented() -> None:
    flags = client_flags()
    assert {"--url", "--text", "--opt", "--output"} <= flags
    assert not missing(flags, without_values(section(page("commands.md"), "## client.py")))


# -- backends.md ---------------------------------------------------------------------------------


def options_of(folder: Path) -> set[str]:
    """What a backend reads from the options of backends.yaml, and takes from clients."""
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="options"), attr="get")):
                    found.add(node.args[0].value)  # type: ignore[attr-defined]
                case ast.Subscript(
                    value=ast.Name(id="options"), slice=ast.Constant(value=str(key))
                ):
                    found.add(key)
                case ast.keyword(arg="options", value=ast.Tuple(elts=elements)):
                    found |= {element.value for element in elements if is_text(element)}  # type: ignore[attr-defined]
    return found


def test_every_engine_has_its_row_among_those_that_exist() -> None:
    listed = load_backends(ROOT / "backends.yaml").backends
    shown = {name for name, backend in listed.items() if not backend.hidden}
    rows = section(page("backends.md"), "## The engines that exist")
    assert shown == set(re.findall(r"^\| \[(\w+)\]", rows, re.M))


@pytest.mark.parametrize("name", ["tone", "babble", "chaos"])
def test_every_option_of_a_backend_is_documented(name: str) -> None:
    options = options_of(ROOT / "backends" / name)
    assert options
    assert not options - options_in_the_docs(name)


def test_every_option_of_espeak_is_documented() -> None:
    tree = ast.parse((ROOT / "backends/espeak/options.py").read_text("utf-8"))
    [names] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NAMES"
    ]
    assert not set(names) - options_in_the_docs("espeak")


def options_in_the_docs(backend: str) -> set[str]:
    """What stands in the second cell of the backend's rows: its first row names it."""
    about = section(page("backends.md"), "## Options")
    mine = re.findall(rf"^\| {backend} \|.*(?:\n\| \|.*)*", about, re.M)
    cells = [line.split("|")[2] for rows in mine for line in rows.splitlines()]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
