"""The tools for agents, by the protocol's own client, over pipes to ``cli.py mcp``."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import wave
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult

from tests.end_to_end.conftest import PATIENCE, ROOT, Server, running
from tests.pages import page
from tests.recordings import wav

WORD = 0.05  # seconds for each word, as tone is set up to speak
T = TypeVar("T")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants a key."""
    folder = tmp_path_factory.mktemp("mcp")
    with running(folder, "tone", "espeak", api_key="secret") as server:
        server.wait_ready()
        yield server


def with_agent(
    server: Server,
    work: Callable[[Client], Coroutine[Any, Any, T]],
    *,
    key: str = "secret",
    url: str = "",
    mode: str = "auto",
) -> T:
    """What ``work`` does with the tools."""
    command = StdioServerParameters(
        command=sys.executable,
        args=["cli.py", "mcp", "--url", url or server.url],
        env={"VOICE_SERVER_API_KEY": key},
        cwd=ROOT,
    )

    async def worked() -> T:
        async with Client(stdio_client(command), mode=mode) as agent:
            return await work(agent)

    return asyncio.run(asyncio.wait_for(worked(), 2 * PATIENCE))


def called(server: Server, tool: str, arguments: dict[str, Any], **options: Any) -> CallToolResult:
    return with_agent(server, lambda agent: agent.call_tool(tool, arguments), **options)


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_tools_are_described_to_agents_of_both_generations(guarded: Server, mode: str) -> None:
    listed = with_agent(guarded, lambda agent: agent.list_tools(), mode=mode)
    tools = {tool.name: tool for tool in listed.tools}
    assert tools.keys() == {"speak", "list_voices", "clone_voice"}
    assert tools["speak"].input_schema["required"] == ["text"]
    assert set(tools["clone_voice"].input_schema["required"]) == {"name", "recording", "consent"}
    assert all(tool.description for tool in tools.values())


def test_a_text_is_written_to_a_file(guarded: Server, tmp_path: Path) -> None:
    async def written(agent: Client) -> list[CallToolResult]:
        asked = [{"text": "One two three four.", "file": str(path)} for path in paths]
        return [await agent.call_tool("speak", arguments) for arguments in asked]

    paths = [tmp_path / f"said.{ending}" for ending in ("wav", "mp3", "opus", "flac")]
    for result in with_agent(guarded, written):
        assert not result.is_error
        assert result.structured_content is not None
        assert result.structured_content["seconds"] == pytest.approx(4 * WORD, rel=0.02)
    assert seconds(paths[0]) == pytest.approx(4 * WORD, rel=0.02)
    assert all(path.stat().st_size > 100 for path in paths)


def test_the_page_s_program_speaks(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", page("clients/mcp.md"), re.S | re.M)
    program = program.replace("http://localhost:8000", guarded.url).replace("YOUR_KEY", "secret")
    program = program.replace(".venv/bin/python", sys.executable)
    program = program.replace("hello.wav", str(tmp_path / "hello.wav"))
    monkeypatch.chdir(ROOT)
    left: dict[str, Any] = {}
    exec(compile(program, "mcp.md", "exec"), left)
    assert left["said"]["seconds"] == pytest.approx(seconds(tmp_path / "hello.wav"), abs=0.001)
    assert left["said"]["seconds"] == pytest.approx(5 * WORD, rel=0.02)


def test_the_page_s_configuration_is_json_and_starts_the_command() -> None:
    [shown] = re.findall(r"^```json\n(.*?)^```$", page("clients/mcp.md"), re.S | re.M)
    entry = json.loads(shown)["mcpServers"]["voice"]
    assert entry["args"][1:] == ["mcp", "--url", "http://localhost:8000"]


def test_voices_are_listed_and_one_is_found(guarded: Server) -> None:
    async def listed(agent: Client) -> list[Any]:
        asked: list[dict[str, Any]] = [{"search": "en-us"}, {"language": "xx"}]
        return [(await agent.call_tool("list_voices", one)).structured_content for one in asked]

    found, nothing = with_agent(guarded, listed)
    assert "en-us" in [voice["id"] for voice in found["voices"]]
    assert nothing == {"voices": [], "total": 0}


def test_a_recording_becomes_a_voice_with_consent(guarded: Server, tmp_path: Path) -> None:
    recording = tmp_path / "me.wav"
    recording.write_bytes(wav(3, 220))

    async def cloned(agent: Client) -> tuple[CallToolResult, CallToolResult]:
        arguments = {"name": "Mine", "recording": str(recording), "consent": "I said yes."}
        made = await agent.call_tool("clone_voice", arguments)
        assert made.structured_content is not None, made.content
        path = tmp_path / "mine.wav"
        asked = {"text": "One two.", "voice": made.structured_content["id"], "file": str(path)}
        return made, await agent.call_tool("speak", asked)

    made, spoken = with_agent(guarded, cloned)
    assert made.structured_content is not None
    voice = guarded.app.state.catalogue.find(made.structured_content["id"])
    assert voice.consent["statement"] == "I said yes."
    assert not spoken.is_error


def test_a_call_that_is_cancelled_ends_its_turn(guarded: Server, tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"

    async def cancelled(agent: Client) -> None:
        arguments = {"text": "One two three four five. " * 20_000, "file": str(path)}
        async with anyio.create_task_group() as group:
            group.start_soon(agent.call_tool, "speak", arguments)
            with anyio.fail_after(PATIENCE):
                while not (guarded.turns and path.exists()):
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            while guarded.turns or guarded.busy_slots:
                await anyio.sleep(0.01)

    with_agent(guarded, cancelled)


# What an agent's model may get wrong: the tool, its arguments, and a word of what it is told.
MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("speak", {"text": ""}, "text"),
    ("speak", {"text": " ", "file": "{folder}/a.wav"}, "something to say"),
    ("speak", {"text": "Hi.", "voice": "nobody", "file": "{folder}/a.wav"}, "nobody"),
    ("speak", {"text": "Hi.", "language": "no tag", "file": "{folder}/a.wav"}, "language"),
    ("speak", {"text": "Hi.", "file": "{folder}/a.txt"}, "ends in .wav"),
    ("speak", {"text": "Hi.", "file": "{folder}/none/a.wav"}, "cannot be written"),
    ("speak", {}, "text"),
    ("list_voices", {"language": 5}, "language"),
    ("clone_voice", {"name": "A", "recording": "{folder}/none", "consent": "Yes."}, "none"),
    ("clone_voice", {"name": "A", "recording": "{folder}/none", "consent": " "}, "consent"),
    ("sing", {}, "sing"),
]


def test_what_is_wrong_is_told_to_the_model(guarded: Server, tmp_path: Path) -> None:
    def here(value: Any) -> Any:
        return value.replace("{folder}", str(tmp_path)) if isinstance(value, str) else value

    async def tried(agent: Client) -> list[CallToolResult]:
        return [
            await agent.call_tool(tool, {name: here(value) for name, value in arguments.items()})
            for tool, arguments, _ in MISTAKES
        ]

    for result, (_, _, said) in zip(with_agent(guarded, tried), MISTAKES, strict=True):
        assert result.is_error
        assert said in str(result.content)


def test_a_wrong_key_and_a_server_that_is_not_there_are_told(
    guarded: Server, tmp_path: Path
) -> None:
    asked = {"text": "Hi.", "file": str(tmp_path / "a.wav")}
    wrong = called(guarded, "speak", asked, key="wrong")
    assert wrong.is_error
    assert "API key" in str(wrong.content)
    nobody = called(guarded, "speak", asked, url="http://127.0.0.1:9")
    assert nobody.is_error
    assert "start one with server.py" in str(nobody.content)


def test_without_the_package_the_remedy_is_told(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ModuleNotFoundError('no', name='mcp')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['cli.py', 'mcp']\n"
    code += "from voice_server.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'mcp>=2.3,<3'" in done.stderr


def test_junk_on_its_pipe_does_not_end_it(guarded: Server) -> None:
    lines = ["junk", "[]", "{}", '{"jsonrpc": "2.0", "id": 1, "method": "nothing"}', "\\xff"]
    ping = {
        "jsonrpc": "2.0", "id": 7, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {},
                   "clientInfo": {"name": "test", "version": "1"}},
    }  # fmt: skip
    said = "\n".join([*lines, json.dumps(ping)]) + "\n"
    with subprocess.Popen(
        [sys.executable, "cli.py", "mcp", "--url", guarded.url],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(said)
            process.stdin.flush()
            answers = iter(process.stdout.readline, "")
            answer = next(a for a in map(json.loads, answers) if a.get("id") == 7)
            assert answer["result"]["serverInfo"]["name"] == "voice-server"
        finally:
            process.kill()
