"""ElevenLabs' sockets as messages of ours and back, and words spread over characters."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest

from voice_server.core.errors import InvalidRequest, RequestError, UnsupportedFormat
from voice_server.web.vendors.alignment import Alignment
from voice_server.web.vendors.channel import DEFAULTS
from voice_server.web.vendors.elevenlabs import output_format
from voice_server.web.vendors.elevenlabs_sockets import MultiStreamInput, SocketQuery, StreamInput


def stream(**query: Any) -> StreamInput:
    return StreamInput(DEFAULTS, SocketQuery(**query))


def multi(**query: Any) -> MultiStreamInput:
    return MultiStreamInput(DEFAULTS, SocketQuery(**query))


def hear(translation: StreamInput, **message: Any) -> list[dict[str, Any]]:
    return list(translation.incoming(json.dumps(message)))


def told(translation: StreamInput, **message: Any) -> list[dict[str, Any]]:
    return [json.loads(said) for said in translation.outgoing(message)]


def words(segment: int, *said: tuple[str, int, int]) -> dict[str, Any]:
    entries = [{"text": text, "start_ms": start, "end_ms": end} for text, start, end in said]
    return {"type": "words", "segment": segment, "words": entries}


def test_characters_joined_are_the_text_and_their_times_never_go_back() -> None:
    alignment = Alignment()
    found = alignment.spread(words(0, ("One", 10, 40), (" two.", 50, 90)))
    found += alignment.spread(words(1, ("Three", 120, 145), ("!", 145, 145)))
    assert "".join(each.char for each in found) == "One two. Three!"
    assert [each.start for each in found[:4]] == [10, 20, 30, 40]
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))
    assert found[8] == (" ", 90, 120)
    assert found[-1].end == alignment.end == 145


def test_scripts_without_spaces_get_none() -> None:
    alignment = Alignment()
    found = alignment.spread(words(0, ("你好。", 0, 30))) + alignment.spread(
        words(1, ("再见", 40, 60))
    )
    assert "".join(each.char for each in found) == "你好。再见"


def test_words_whose_times_overlap_are_put_in_order() -> None:
    found = Alignment().spread(words(0, ("a", 0, 50), (" b", 40, 45)))
    assert [each.start for each in found] == [0, 50, 50]


def test_a_turn_of_one_socket_begins_with_its_settings_and_ends_with_an_empty_text() -> None:
    talk = stream()
    assert hear(talk, text=" ", voice_settings={"stability": 0.5, "speed": 1.2}) == [
        {"opts": {"speed": 1.2}},
        {},
    ]
    assert hear(talk, text="Hello ", try_trigger_generation=True) == [{"token": "Hello "}]
    assert hear(talk, text=" ") == [{"token": " "}]
    assert hear(talk, text="you. ", flush=True) == [{"token": "you. ", "flush": True}]
    assert hear(talk, text="") == [{"done": True}]
    assert told(talk, type="done", stats={}) == [{"isFinal": True, "audio": None}]


def test_a_socket_that_says_nothing_ends_without_an_error() -> None:
    talk = stream()
    hear(talk, text=" ")
    assert hear(talk, text="") == []
    assert talk.is_over
    assert json.loads(talk.replies.popleft())["isFinal"] is True


def test_times_restart_with_each_message_unless_sync_alignment_is_asked_for() -> None:
    for synced, starts in ((False, [0, 25]), (True, [50, 75])):
        talk = stream(sync_alignment=synced)
        hear(talk, text="ab cd")
        told(talk, **words(0, ("ab", 0, 50)))
        [first] = told(talk, type="audio", pcm=b"\0\1")
        assert base64.b64decode(first["audio"]) == b"\0\1"
        assert first["alignment"]["charStartTimesMs"] == [0, 25]
        told(talk, **words(0, (" c", 50, 100)))
        [second] = told(talk, type="audio", pcm=b"\0\1")
        assert second["alignment"]["chars"] == [" ", "c"]
        assert second["alignment"]["charDurationsMs"] == [0, 50]
        assert second["alignment"]["charStartTimesMs"] == [starts[0], starts[0]]
        [third] = told(talk, type="audio", pcm=b"\0\1")
        assert third["alignment"] is None


def test_words_behind_the_last_sound_are_told_before_the_end() -> None:
    talk = stream()
    hear(talk, text="a!")
    told(talk, **words(0, ("!", 90, 90)))
    rest, final = told(talk, type="done")
    assert rest["alignment"]["chars"] == ["!"]
    assert final["isFinal"]


def test_contexts_are_turns_and_an_empty_text_keeps_one_alive() -> None:
    talk = multi()
    opened = hear(talk, text=" ", context_id="a", voice_settings={"speed": 1.1})
    assert opened == [{"opts": {}}, {"context": "a"}]
    assert hear(talk, text="Hello.", context_id="a") == [
        {"keep_open": False, "opts": {"speed": 1.1}, "context": "a"},
        {"token": "Hello.", "context": "a"},
    ]
    assert hear(talk, text="", context_id="a") == [{"context": "a"}]
    assert hear(talk, text="") == [{}]
    assert hear(talk, context_id="a", flush=True) == [{"flush": True, "context": "a"}]
    assert hear(talk, context_id="a", close_context=True) == [{"context": "a", "done": True}]
    [final] = told(talk, type="done", context="a")
    assert final == {"isFinal": True, "audio": None, "contextId": "a"}
    assert not talk.is_over


@pytest.mark.parametrize("auto_mode", [False, True])
def test_closing_a_context_that_was_not_flushed_is_an_interruption(auto_mode: bool) -> None:
    talk = multi(auto_mode=auto_mode)
    hear(talk, text="Hello. ", context_id="a", flush=True)
    hear(talk, text="And more. ", context_id="a")
    assert hear(talk, context_id="a", close_context=True) == [{"context": "a", "cancel": True}]
    assert hear(talk, context_id="a", close_context=True) == []
    told(talk, **words(0, ("Hello.", 0, 50)), context="a")
    [final] = told(talk, type="cancelled", context="a")
    assert final == {"isFinal": True, "audio": None, "contextId": "a"}


def test_closing_a_context_again_while_its_end_is_spoken_is_an_interruption() -> None:
    talk = multi()
    hear(talk, text="Hello. ", context_id="a", flush=True)
    assert hear(talk, context_id="a", close_context=True) == [{"context": "a", "done": True}]
    assert hear(talk, context_id="a", close_context=True) == [{"context": "a", "cancel": True}]
    assert hear(talk, context_id="a", close_context=True) == []


def test_a_context_closed_twice_or_never_opened_is_final_at_once() -> None:
    talk = multi()
    hear(talk, context_id="x", close_context=True)
    assert json.loads(talk.replies.popleft()) == {"isFinal": True, "audio": None, "contextId": "x"}


def test_closing_the_socket_waits_for_what_is_being_said() -> None:
    talk = multi()
    hear(talk, text="One.", context_id="a")
    hear(talk, text="Two.", context_id="b")
    asked = hear(talk, close_socket=True)
    assert asked == [{"context": "a", "done": True}, {"context": "b", "done": True}]
    told(talk, type="done", context="a")
    assert not talk.is_over
    told(talk, type="done", context="b")
    assert talk.is_over
    idle = multi()
    hear(idle, close_socket=True)
    assert idle.is_over


def test_auto_mode_speaks_each_message() -> None:
    talk = multi(auto_mode=True)
    hear(talk, text=" ", context_id="a")
    assert hear(talk, text="Hi. ", context_id="a")[-1] == {
        "token": "Hi. ",
        "flush": True,
        "context": "a",
    }


@pytest.mark.parametrize(
    "raw", ["junk", "[]", "null", '{"text": 1}', '{"text": "a", "flush": "x"}']
)
def test_what_is_no_message_is_refused(raw: str) -> None:
    with pytest.raises(RequestError):
        stream().incoming(raw)


def test_two_first_messages_are_refused() -> None:
    for talk, name in ((stream(), None), (multi(), "a")):
        hear(talk, text=" ", voice_settings={}, context_id=name)
        with pytest.raises(RequestError, match="voice_settings"):
            hear(talk, text=" ", voice_settings={"speed": 1.1}, context_id=name)


def test_a_client_may_say_its_settings_again_with_every_text() -> None:
    for talk, name in ((stream(), None), (multi(), "a")):
        hear(talk, text=" ", voice_settings={"speed": 1.1}, context_id=name)
        for settings in ({"speed": 1.1, "stability": 0.5}, None):
            said = hear(talk, text="Again. ", voice_settings=settings, context_id=name)
            assert said[-1]["token"] == "Again. "


def test_text_for_a_context_that_was_closed_is_refused_until_it_is_final() -> None:
    talk = multi()
    hear(talk, text="One.", context_id="a")
    hear(talk, context_id="a", close_context=True)
    with pytest.raises(RequestError, match="was closed"):
        hear(talk, text="More.", context_id="a")
    told(talk, type="done", context="a")
    assert hear(talk, text="Again.", context_id="a")


def test_text_behind_the_empty_text_that_ends_a_socket_is_refused() -> None:
    talk = stream()
    hear(talk, text="One.")
    hear(talk, text="")
    for text in ("More.", ""):
        with pytest.raises(RequestError, match="ended this socket"):
            hear(talk, text=text)


def test_more_contexts_than_a_socket_has_are_refused_until_one_is_over() -> None:
    talk = MultiStreamInput(DEFAULTS, SocketQuery(), max_contexts=3)
    for name in ("a", "b"):
        hear(talk, text=" ", context_id=name)
    with pytest.raises(RequestError, match="2 contexts") as caught:
        hear(talk, text="One.", context_id="c")
    assert caught.value.code == "too_many_contexts"
    hear(talk, context_id="b", close_context=True)
    assert hear(talk, text="One.", context_id="c")


def test_a_speed_that_no_voice_has_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="speed"):
        hear(stream(), text=" ", voice_settings={"speed": 9})


def test_an_error_says_which_context_it_is_of() -> None:
    talk = multi()
    hear(talk, text="One.", context_id="a")
    [said] = told(talk, type="error", context="a", msg="it broke", code="worker_died")
    assert said == {"message": "it broke", "error": "worker_died", "code": 1008, "contextId": "a"}
    assert talk.closing(1013, "busy") == (1008, "busy")
    assert talk.closing(1000, "") == (1000, "")


def test_an_output_format_is_read_as_it_is_written() -> None:
    mp3 = output_format("mp3_44100_128")
    assert (mp3.encoding, mp3.sample_rate, mp3.bitrate) == ("mp3", 44_100, 128_000)
    assert output_format("ulaw_8000").encoding == "pcm_mulaw"
    assert output_format("pcm_16000").content_type == "audio/pcm;rate=16000;channels=1"
    for wrong in ("", "mp3", "ogg_24000", "pcm_x", "pcm_1", "mp3_44100_128_2", "pcm_" + "9" * 99):
        with pytest.raises(UnsupportedFormat):
            output_format(wrong)
