"""A running server as tools of an agent, by the Model Context Protocol.

https://modelcontextprotocol.io. The tools are clients of the server's own doors. The protocol
itself comes from its own package, an extra, which nothing else imports: it has two generations on
the wire by now, and knows which one the agent speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import httpx2
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from voice_server.cli.playback import Player, SoundFile, open_player
from voice_server.cli.remote import authorization
from voice_server.core.errors import ConfigError

_PATIENCE = 60.0  # seconds between two pieces of an answer
_MAX_LISTED = 200
_INSTRUCTIONS = (
    "Speaks aloud through the loudspeakers of the user's machine, or into a file. Keep what is "
    "spoken short and free of markup."
)


class Spoken(BaseModel):
    """What was said."""

    seconds: float
    file: str | None = Field(description="Where it was written, if it was.")


class VoiceEntry(BaseModel):
    """A voice to speak with."""

    id: str
    name: str
    language: str
    kind: str
    backends: list[str]


class VoiceEntries(BaseModel):
    """The voices that match; `total` counts those that were left out too."""

    voices: list[VoiceEntry]
    total: int


class ClonedVoice(BaseModel):
    """The new voice, ready for `speak`."""

    id: str
    name: str
    language: str


def make_server(url: str, api_key: str | None) -> MCPServer[Any]:
    """The tools over a server at ``url``."""
    client = httpx2.AsyncClient(
        base_url=url,
        headers=authorization(api_key),
        timeout=_PATIENCE,
    )
    tools = Tools(client, url)
    server = MCPServer("voice-server", instructions=_INSTRUCTIONS, log_level="WARNING")
    server.tool()(tools.speak)
    server.tool(annotations=ToolAnnotations(read_only_hint=True))(tools.list_voices)
    server.tool()(tools.clone_voice)
    return server


class Tools:
    """Their docstrings are what the agent's model reads."""

    def __init__(self, client: httpx2.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        # Two texts at once would talk across each other.
        self._turn = asyncio.Lock()

    async def speak(
        self,
        text: Annotated[str, Field(min_length=1, description="What to say.")],
        voice: Annotated[str | None, Field(description="An id of list_voices.")] = None,
        language: Annotated[str | None, Field(description="A tag such as pt-BR.")] = None,
        file: Annotated[
            str | None,
            Field(description="Write a .wav, .mp3, .opus or .flac here and play nothing."),
        ] = None,
    ) -> Spoken:
        """Say a text aloud on this machine; returns when it was heard. Cancel to interrupt it."""
        asked = {"text": text, "voice": voice, "language": language, "format": "pcm"}
        asked = {name: value for name, value in asked.items() if value is not None}
        samples = 0
        async with self._turn:
            sink = _sink(file)
            is_heard = False
            try:
                async with aclosing(self._sound(asked)) as parts:
                    async for pcm in parts:
                        sink.write(pcm)
                        samples += len(pcm) // 2
                if isinstance(sink, Player):
                    await sink.finish()
                is_heard = True
            finally:
                if isinstance(sink, Player) and not is_heard:
                    sink.drop()
                sink.close()
        return Spoken(seconds=round(samples / 24_000, 3), file=file)

    async def list_voices(
        self,
        language: Annotated[str | None, Field(description="Such as en, or pt-BR.")] = None,
        search: Annotated[str | None, Field(description="In ids, names, descriptions.")] = None,
    ) -> VoiceEntries:
        """List the voices that the server can speak with."""
        asked: dict[str, Any] = {"language": language, "search": search, "limit": _MAX_LISTED}
        asked = {name: value for name, value in asked.items() if value is not None}
        answer = await self._answer("GET", "/voices", params=asked)
        return VoiceEntries.model_validate(answer)

    async def clone_voice(
        self,
        name: Annotated[str, Field(description="What the voice is called.")],
        recording: Annotated[str, Field(description="Path of a recording of one speaker.")],
        consent: Annotated[str, Field(description="Who allowed this, in what words. Ask them.")],
        transcript: Annotated[str | None, Field(description="What is said in it.")] = None,
        language: Annotated[str, Field(description="A tag such as en.")] = "",
    ) -> ClonedVoice:
        """Make a voice of a recording, with the consent of the person who speaks in it."""
        if not consent.strip():
            raise ToolError("consent › say who allowed this, and in what words")
        sound = await asyncio.to_thread(_read, recording)
        form = {"name": name, "consent": consent, "language": language}
        if transcript:
            form["ref_text"] = transcript
        files = {"file": ("recording", sound)}
        made = await self._answer("POST", "/api/v1/tts/clone", data=form, files=files)
        return ClonedVoice(id=made["voice_id"], name=made["name"], language=made["language"])

    async def _sound(self, asked: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """PCM, int16, mono, 24 kHz, while it is made; closing it ends the turn."""
        odd = b""
        try:
            async with self._client.stream("POST", "/tts", json=asked) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise _refusal(answer)
                async for part in answer.aiter_bytes():
                    whole = odd + part
                    odd = whole[len(whole) // 2 * 2 :]
                    yield whole[: len(whole) // 2 * 2]
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from None

    async def _answer(self, method: str, path: str, **asked: Any) -> Any:
        try:
            answer = await self._client.request(method, path, **asked)
        except httpx2.HTTPError as exc:
            raise self._unreachable(exc) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer.json()

    def _unreachable(self, error: Exception) -> ToolError:
        said = str(error) or type(error).__name__
        return ToolError(f"no answer from {self._url} ({said}): start one with server.py")


def _sink(file: str | None) -> Player | SoundFile:
    """Raises ToolError where it cannot be written, or there is nothing to play on."""
    if file is not None:
        try:
            return SoundFile(Path(file).expanduser(), named="file › ")
        except ConfigError as exc:
            raise ToolError(str(exc)) from None
    player = open_player(True)
    if player is None:
        raise ToolError("there is no sound device here; name a `file` to write instead")
    return player


def _read(recording: str) -> bytes:
    try:
        return Path(recording).expanduser().read_bytes()
    except OSError as exc:
        raise ToolError(f"recording › {recording}: {exc.strerror}") from None


def _refusal(answer: httpx2.Response) -> ToolError:
    try:
        said = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        said = f"the server answered {answer.status_code}"
    return ToolError(said)
