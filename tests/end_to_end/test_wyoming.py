"""The Wyoming door, by the protocol's own client and by raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from tests.end_to_end.conftest import BACKENDS, PATIENCE, Server, running, wait_until
from tests.end_to_end.test_models import LISTENER
from tests.pages import page

RATE = 24_000
WORD = 0.05  # seconds for each word, as tone is set up to speak


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the door open, on a free port."""
    folder = tmp_path_factory.mktemp("wyoming")
    with running(folder, "tone", "chaos", "plain", wyoming="127.0.0.1:0") as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that waits for nobody long."""
    folder = tmp_path_factory.mktemp("hasty")
    limits = {"idle_timeout": 1.0}
    with running(folder, "tone", wyoming="127.0.0.1:0", limits=limits) as server:
        server.wait_ready()
        yield server


@contextlib.asynccontextmanager
async def client(server: Server) -> AsyncIterator[AsyncTcpClient]:
    assert server.wyoming is not None
    connection = AsyncTcpClient(*server.wyoming.getsockname()[:2], read_timeout=PATIENCE)
    async with connection:
        yield connection


async def heard(connection: AsyncTcpClient, last: type[Eventable] = AudioStop) -> list[Event]:
    """Everything up to an event of this class, or to the end of the connection."""
    events: list[Event] = []
    while (event := await connection.read_event()) is not None:
        events.append(event)
        if last.is_type(event.type):
            break
    return events


def sound(events: list[Event]) -> bytes:
    return b"".join(event.payload or b"" for event in events if AudioChunk.is_type(event.type))


def told(server: Server, *sent: Eventable, last: type[Eventable] = AudioStop) -> list[Event]:
    """What the server answers to these events."""

    async def talk() -> list[Event]:
        async with client(server) as connection:
            for event in sent:
                await connection.write_event(event.event())
            return await heard(connection, last)

    return asyncio.run(talk())


def raw(server: Server, *parts: bytes) -> dict[str, Any]:
    """Send bytes that no client would; the data of the error that answers them."""
    assert server.wyoming is not None
    with socket.create_connection(server.wyoming.getsockname()[:2], timeout=PATIENCE) as plain:
        for part in parts:
            plain.sendall(part)
        with plain.makefile("rb") as answer:
            header = json.loads(answer.readline())
            data: dict[str, Any] = json.loads(answer.read(header["data_length"]))
            assert header["type"] == "error", data
            with contextlib.suppress(ConnectionResetError):
                assert answer.read() == b""  # it has closed
        return data


def test_it_describes_every_voice_and_language(assistant: Server) -> None:
    [event] = told(assistant, Describe(), last=Info)
    [program] = Info.from_event(event).tts
    voices = {voice.name: voice.languages for voice in program.voices}
    assert program.supports_synthesize_streaming
    assert program.installed
    tone = assistant.service.pools["tone"].info
    assert tone is not None
    assert {speaker.id for speaker in tone.speakers} <= voices.keys()
    assert any(name.startswith("chaos/") for name in voices)
    assert all(voices.values())


def test_describing_does_not_load_what_is_unloaded(assistant: Server) -> None:
    before = told(assistant, Describe(), last=Info)
    assistant.call(assistant.app.state.models.unload("plain"))
    try:
        assert told(assistant, Describe(), last=Info)[0].data == before[0].data
        assert not assistant.service.pools["plain"].is_started
    finally:
        assistant.call(assistant.service.info("plain"))


def test_without_a_transcriber_it_offers_none(assistant: Server) -> None:
    [event] = told(assistant, Describe(), last=Info)
    assert not Info.from_event(event).asr


def test_every_described_voice_can_be_asked_for(assistant: Server) -> None:
    [event] = told(assistant, Describe(), last=Info)
    for voice in Info.from_event(event).tts[0].voices:
        wanted = SynthesizeVoice(name=voice.name)
        events = told(assistant, Synthesize("One two.", voice=wanted))
        assert sound(events), voice.name


def test_a_text_is_answered_with_its_sound(assistant: Server) -> None:
    events = told(assistant, Synthesize("One two three four."))
    start = AudioStart.from_event(events[0])
    assert (start.rate, start.width, start.channels) == (RATE, 2, 1)
    assert len(sound(events)) / 2 / RATE == pytest.approx(4 * WORD, rel=0.02)
    times = [AudioChunk.from_event(event).timestamp for event in events[1:-1]]
    assert times == sorted(times)  # type: ignore[type-var]
    assert AudioStop.is_type(events[-1].type)


def test_the_page_s_program_speaks(assistant: Server) -> None:
    assert assistant.wyoming is not None
    port = assistant.wyoming.getsockname()[1]
    [program] = re.findall(r"^```python\n(.*?)^```$", page("clients/wyoming.md"), re.S | re.M)
    program = program.replace("10200", str(port)).replace('"en-us"', '"high"')
    left: dict[str, Any] = {}
    exec(compile(program, "wyoming.md", "exec"), left)
    assert len(left["sound"]) / 2 / RATE == pytest.approx(5 * WORD, rel=0.02)


def test_a_streamed_text_is_spoken_while_it_is_written(assistant: Server) -> None:
    async def talk() -> tuple[list[Event], list[Event]]:
        async with client(assistant) as connection:
            await connection.write_event(SynthesizeStart().event())
            for token in ("On", "e two. ", "Three ", "fo"):
                await connection.write_event(SynthesizeChunk(token).event())
            early = await heard(connection, AudioChunk)
            await connection.write_event(SynthesizeChunk("ur.").event())
            # What servers without streams would speak instead; it must not be heard twice.
            await connection.write_event(Synthesize("One two. Three four.").event())
            await connection.write_event(SynthesizeStop().event())
            return early, await heard(connection, SynthesizeStopped)

    early, rest = asyncio.run(talk())
    assert [event.type for event in early] == ["audio-start", "audio-chunk"]
    assert len(sound(early + rest)) / 2 / RATE == pytest.approx(4 * WORD, rel=0.02)
    assert [event.type for event in rest[-2:]] == ["audio-stop", "synthesize-stopped"]


def test_one_connection_speaks_text_after_text(assistant: Server) -> None:
    async def talk() -> list[float]:
        async with client(assistant) as connection:
            for text in ("One.", "One two.", "One two three."):
                await connection.write_event(Synthesize(text).event())
            await connection.write_event(Ping("there?").event())
            lengths = [len(sound(await heard(connection))) / 2 / RATE for _ in range(3)]
            return lengths

    assert asyncio.run(talk()) == pytest.approx([WORD, 2 * WORD, 3 * WORD], rel=0.02)


def test_a_ping_is_answered(assistant: Server) -> None:
    [event] = told(assistant, Ping("there?"), last=Pong)
    assert Pong.from_event(event).text == "there?"


def test_a_client_that_leaves_frees_its_slot(assistant: Server) -> None:
    async def leave() -> None:
        async with client(assistant) as connection:
            await connection.write_event(SynthesizeStart().event())
            await connection.write_event(SynthesizeChunk("One two. " * 2_000).event())
            await heard(connection, AudioChunk)

    asyncio.run(leave())
    wait_until(lambda: not (assistant.turns or assistant.busy_slots))


def test_turns_are_counted_by_door(assistant: Server) -> None:
    told(assistant, Synthesize("One."))
    wait_until(lambda: not assistant.turns)
    text = "\n".join(
        f"{sample.labels}"
        for family in assistant.service.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "voice_server_turns_total"
    )
    assert "'door': 'wyoming'" in text


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Synthesize("Hello.", voice=SynthesizeVoice(name="nobody")), "unknown_voice"),
        (Synthesize(""), "no_text"),
        (Synthesize(" \n"), "no_text"),
        (Synthesize("<speak/>", text_format="ssml"), "unknown_option"),
        (SynthesizeChunk("Hello."), "protocol_mistake"),
        (SynthesizeStop(), "protocol_mistake"),
        (Transcribe(language="en"), "audio_too_short"),
    ],
    ids=["voice", "empty", "blank", "ssml", "chunk", "stop", "nothing heard"],
)
def test_a_mistake_is_told_and_ends_the_connection(
    assistant: Server, asked: Eventable, code: str
) -> None:
    sent = [asked, AudioStop()] if isinstance(asked, Transcribe) else [asked]
    events = told(assistant, *sent, last=SynthesizeStopped)
    assert Error.from_event(events[-1]).code == code


def test_a_recording_without_sound_in_it_is_too_short(assistant: Server) -> None:
    silent = [Transcribe(), AudioStart(rate=16_000, width=2, channels=1), AudioStop()]
    events = told(assistant, *silent, last=SynthesizeStopped)
    assert Error.from_event(events[-1]).code == "audio_too_short"


def test_two_first_messages_are_one_too_many(assistant: Server) -> None:
    events = told(assistant, SynthesizeStart(), SynthesizeStart(), last=SynthesizeStopped)
    assert Error.from_event(events[-1]).code == "protocol_mistake"


@pytest.mark.parametrize("said", [[], [SynthesizeChunk("One two. ")]], ids=["nothing", "a text"])
def test_a_text_that_never_ends_is_given_up(hasty: Server, said: list[Eventable]) -> None:
    events = told(hasty, SynthesizeStart(), *said, last=SynthesizeStopped)
    assert Error.from_event(events[-1]).code == "idle_timeout"
    wait_until(lambda: not hasty.turns)


def test_a_server_that_ends_logs_no_fault_of_its_clients(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, "tone", wyoming="127.0.0.1:0") as server:
        server.wait_ready()
        assert server.wyoming is not None
        with socket.create_connection(server.wyoming.getsockname()[:2], PATIENCE) as idle:
            idle.sendall(b'{"type": "ping"}\n')
            assert idle.recv(1)
            server.stop()
    assert "Exception in callback" not in caplog.text


def test_an_empty_stream_has_nothing_to_say(assistant: Server) -> None:
    events = told(assistant, SynthesizeStart(), SynthesizeStop(), last=SynthesizeStopped)
    assert Error.from_event(events[-1]).code == "no_text"


def test_a_text_of_100_000_characters_is_spoken(assistant: Server) -> None:
    async def talk() -> int:
        async with client(assistant) as connection:
            await connection.write_event(Synthesize("word " * 20_000).event())
            start = await connection.read_event()
            assert start is not None
            assert AudioStart.is_type(start.type)
            return len(sound(await heard(connection, AudioChunk)))

    assert asyncio.run(talk())
    wait_until(lambda: not (assistant.turns or assistant.busy_slots))


def test_a_longer_text_than_a_turn_may_have_is_refused(tmp_path: Path) -> None:
    limits = {"max_turn_chars": 100}
    with running(tmp_path, "tone", wyoming="127.0.0.1:0", limits=limits) as server:
        server.wait_ready()
        events = told(server, Synthesize("word " * 50), last=SynthesizeStopped)
        assert Error.from_event(events[-1]).code == "too_large"
        events = told(
            server, SynthesizeStart(), *[SynthesizeChunk("word " * 10)] * 4, last=SynthesizeStopped
        )
        assert Error.from_event(events[-1]).code == "too_large"


@pytest.mark.parametrize(
    ("junk", "code"),
    [
        (b"\xff\xfe\x00\n", "bad_message"),
        (b"GET / HTTP/1.1\r\n", "bad_message"),
        (b"[]\n", "bad_message"),
        (b"[" * 60_000 + b"\n", "bad_message"),
        (b'{"type": 1}\n', "bad_message"),
        (b'{"type": "synthesize", "data": {"text": 5}}\n', "bad_message"),
        (b'{"type": "synthesize", "data": {"text": "a", "voice": "b"}}\n', "bad_message"),
        (b'{"type": "x", "data_length": -1}\n', "bad_message"),
        (b'{"type": "x", "data_length": true}\n', "bad_message"),
        (b'{"type": "x", "data_length": 99999999999}\n', "too_large"),
        (b'{"type": "x", "payload_length": 99999999999}\n', "too_large"),
        (b'{"type": "x", "data_length": 2}\n[]', "bad_message"),
        (b"x" * 200_000, "too_large"),
        # The text's answer waits for its end, and what is asked meanwhile for that answer.
        (b'{"type": "synthesize-start"}\n' + b'{"type": "describe"}\n' * 20, "protocol_mistake"),
        (
            b'{"type": "audio-start", "data": {"rate": 0, "width": 2, "channels": 1}}\n',
            "bad_request",
        ),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_junk_is_answered_with_an_error(assistant: Server, junk: bytes, code: str) -> None:
    assert raw(assistant, junk)["code"] == code


def test_what_it_does_not_know_it_drops(assistant: Server) -> None:
    async def talk() -> list[Event]:
        async with client(assistant) as connection:
            for kind in ("run-pipeline", "select-program", "audio-chunk", "audio-stop"):
                await connection.write_event(Event(kind, {"name": "voice-server"}))
            await connection.write_event(Synthesize("One.").event())
            return await heard(connection)

    assert sound(asyncio.run(talk()))


def test_sound_is_written_down(tmp_path: Path) -> None:
    (tmp_path / "listener").mkdir()
    (tmp_path / "listener" / "backend.py").write_text(LISTENER)
    yaml = BACKENDS + f"  whisper: {{path: listener, python: {sys.executable}}}\n"
    wave = [round(9_000 * math.sin(2 * math.pi * 200 * i / 16_000)) for i in range(16_000)]
    pcm = b"".join(sample.to_bytes(2, "little", signed=True) for sample in wave)
    kind = {"rate": 16_000, "width": 2, "channels": 1}
    chunks = [AudioChunk(audio=pcm[i : i + 2_048], **kind) for i in range(0, len(pcm), 2_048)]
    with running(tmp_path, "tone", yaml=yaml, wyoming="127.0.0.1:0") as server:
        [event] = told(server, Describe(), last=Info)
        [program] = Info.from_event(event).asr
        assert "de" in program.models[0].languages
        sent = [Transcribe(language="de"), AudioStart(**kind), *chunks, AudioStop()]
        [event] = told(server, *sent, last=Transcript)
    heard = Transcript.from_event(event)
    assert (heard.text, heard.language) == ("A tone of 200 hertz.", "de")


def test_without_a_transcriber_sound_is_refused(assistant: Server) -> None:
    chunk = AudioChunk(audio=bytes(32_000), rate=16_000, width=2, channels=1)
    events = told(assistant, Transcribe(), chunk, AudioStop(), last=Transcript)
    assert Error.from_event(events[-1]).code == "backend_not_installed"
