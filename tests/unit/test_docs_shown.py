"""What the docs show exists: JSON that is a message, flags, settings of backends, links."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from tests.pages import DOCS, PAGES, ROOT, blocks, client_flags, commands, page
from voice_server.config import load_backends
from voice_server.core import wire


def all_blocks(language: str) -> list[Any]:
    return [
        pytest.param(content, id=f"{path.relative_to(ROOT)}-{number}")
        for path in PAGES
        for number, (name, content) in enumerate(blocks(path))
        if name == language
    ]


@pytest.mark.parametrize("content", all_blocks("json"))
def test_json_in_the_docs_is_json(content: str) -> None:
    decoder, rest, values = json.JSONDecoder(), content.strip(), 0
    while rest:
        value, end = decoder.raw_decode(rest)
        check_message(value)
        rest, values = rest[end:].lstrip(), values + 1
    assert values


def check_message(value: object) -> None:
    """A message without a type is one that a client sends: the parser must take it."""
    if isinstance(value, dict) and value.keys() & wire._KEYS and value.keys() <= wire._KEYS:
        wire.parse(json.dumps(value))


@pytest.mark.parametrize("content", all_blocks("python"))
def test_python_in_the_docs_compiles(content: str) -> None:
    compile(content, "docs", "exec")


@pytest.mark.parametrize("content", all_blocks("yaml"))
def test_every_backends_file_in_the_docs_is_valid(content: str, tmp_path: Path) -> None:
    path, shown = tmp_path / "backends.yaml", yaml.safe_load(content)
    # A page about one backend shows its entry alone.
    whole = {"default": next(iter(shown["backends"])), **shown}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    assert set(load_backends(path).backends) == set(shown["backends"])


@pytest.mark.parametrize("content", all_blocks("bash"))
def test_shell_lines_in_the_docs_use_flags_that_exist(content: str) -> None:
    for line in content.replace("\\\n", " ").splitlines():
        for words in pipeline(line):
            check_command(words)


def pipeline(line: str) -> Iterator[list[str]]:
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", "&", ";"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def check_command(words: list[str]) -> None:
    program = next((word for word in words if word.endswith((".py",)) or word == "make"), None)
    if program is None:
        return
    arguments = words[words.index(program) + 1 :]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert set(arguments) <= {*targets}, words
        return
    if "/" in program:
        assert (ROOT / program).is_file(), program
        return
    if program == "client.py":
        used = {word.split("=")[0] for word in arguments if word.startswith("--")}
        assert used <= client_flags() | {"--no-play"}, words
        return
    known: Mapping[str, click.Command] = commands()
    name = program
    while arguments and f"{name} {arguments[0]}" in known:
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    # The parser itself judges: a flag, a value or an argument that does not exist raises.
    known[name].make_context(name, list(arguments), resilient_parsing=False).close()


def anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.S | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_is_dead(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_speaks_of_the_machine_it_was_written_on(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.findall(r"(?<![\w.:])/(?:home|root|work|opt|tmp|Users)/\S*", text)


def test_the_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", "protocol.md", "backends.md"} <= {p.name for p in PAGES}
    assert all(all_blocks(language) for language in ("json", "python", "yaml", "bash"))


def test_every_page_is_in_the_index() -> None:
    index = page("README.md")
    assert not [
        path.name
        for path in DOCS.glob("*.md")
        if path.name != "README.md" and f"({path.name})" not in index
    ]
