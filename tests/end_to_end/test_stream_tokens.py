"""``WS /stream-tokens`` as an agent uses it: the protocol of the seed, then every addition."""

from __future__ import annotations

import asyncio
import threading
import zlib

import httpx
import pytest

from tests.end_to_end.conftest import Server
from tests.end_to_end.talking import PATIENCE, Talk, levels, talk
from voice_server.core.wire import Configure
from voice_server.speech.route import Route

STORY = "The first sentence is here. Then comes another one! And is this the last? It is."
FRAME_BYTES = (960, 9_600)  # 20 ms and 200 ms


@pytest.fixture
def path(server: Server, http: httpx.Client) -> str:
    """The front door; ``http`` checks that nothing is left behind it."""
    return f"{server.ws}/stream-tokens"


def said(talking: Talk, *tokens: str, **config: object) -> Talk:
    """Speak one turn to its end."""
    if config:
        talking.send(**config)
    talking.tokens(*tokens)
    talking.send(done=True)
    talking.until("done")
    return talking


# -- the seed ------------------------------------------------------------------------------------


def test_the_protocol_of_the_seed_works_as_written(path: str) -> None:
    with talk(path) as agent:
        agent.send(voice="af_heart", opts={"speed": 1.0})
        agent.send(token="Hello ")
        agent.send(token="world. ")
        generating = agent.until("generating")
        assert generating["sentence"] == "Hello world."
        assert generating["queue_depth"] == 0
        agent.until("audio")
        agent.send(done=True)
        assert agent.until_closed() == 1000
        # Two words of 50 ms: int16 at 24 kHz. An old client sees nothing that it does not know.
        assert abs(len(agent.sound) - 4_800) <= 8
        assert agent.kinds == {"generating", "audio", "done"}


def test_tokens_may_come_without_a_configuration(path: str) -> None:
    with talk(path) as agent:
        said(agent, "Hello world.")
        assert agent.received
        assert agent.until_closed() == 1000


def test_done_tells_the_figures_of_the_turn(path: str) -> None:
    with talk(path) as agent:
        stats = said(agent, STORY).of("done")[0]["stats"]
    assert stats["segments"] == 4
    assert stats["characters"] == len(STORY)
    assert stats["audio_ms"] == pytest.approx(len(agent.sound) / 48, abs=1)
    assert stats["ttfa_ms"] >= 0
    assert stats["underruns"] >= 0


@pytest.mark.parametrize("backend", ["tone", "chaos", "espeak"])
def test_the_sound_does_not_depend_on_how_the_tokens_were_cut(path: str, backend: str) -> None:
    with talk(path) as whole, talk(path) as cut:
        said(whole, STORY, backend=backend, seed=1)
        said(cut, *STORY, backend=backend, seed=1)
        assert whole.sound == cut.sound
        assert whole.sentences == cut.sentences


def test_words_are_heard_in_the_order_of_the_text(path: str) -> None:
    with talk(path) as agent:
        said(agent, STORY, backend="chaos")
        expected = [1 + zlib.crc32(word.encode()) % 30_000 for word in STORY.split()]
        assert levels(agent.sound) == expected
        assert "".join(agent.sentences).replace(" ", "") == STORY.replace(" ", "")


def test_the_first_frame_is_small_and_none_is_long(path: str) -> None:
    with talk(path) as agent:
        said(agent, STORY, backend="espeak")
        sizes = [len(message["pcm"]) for message in agent.of("audio")]
        assert sizes[0] <= FRAME_BYTES[0]
        assert max(sizes) <= FRAME_BYTES[1]


def test_a_voice_and_a_backend_may_stand_in_the_query(server: Server, path: str) -> None:
    with talk(f"{path}?backend=babble&voice=bass") as by_query, talk(path) as by_message:
        by_query.send(seed=3)
        assert by_query.until("ready")["voice"] == "bass"
        said(by_query, "Hello world.")
        said(by_message, "Hello world.", backend="babble", voice="bass", seed=3)
        assert by_query.sound == by_message.sound


# -- additions -----------------------------------------------------------------------------------


def test_ready_says_what_was_agreed(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", voice="high", format={"encoding": "pcm_mulaw"})
        ready = agent.until("ready")
    assert ready.pop("session")
    del ready["after"]
    assert ready == {
        "type": "ready",
        "backend": "tone",
        "voice": "high",
        "sample_rate": 24_000,
        "encoding": "pcm_mulaw",
        "protocol": 1,
    }


def test_flush_speaks_what_is_buffered_and_the_turn_goes_on(path: str) -> None:
    with talk(path) as agent:
        agent.send(max_delay_ms=60_000)
        agent.send(token="no mark at the end")
        agent.send(flush=True)
        assert agent.until("generating")["sentence"] == "no mark at the end"
        agent.until("audio")
        said(agent, " and more")
        assert agent.sentences == ["no mark at the end", "and more"]
        assert len(agent.of("done")) == 1


def test_silence_of_the_model_makes_what_is_buffered_heard(path: str) -> None:
    with talk(path) as agent:
        agent.send(max_delay_ms=50)
        agent.send(token="half a sentence and")
        assert agent.until("audio")
        assert agent.sentences == ["half a sentence and"]
        agent.send(done=True)
        assert agent.until_closed() == 1000


def test_what_looks_like_a_sentence_does_not_wait_for_the_longest_silence(path: str) -> None:
    with talk(path) as agent:
        agent.send(max_delay_ms=3_600_000)
        agent.tokens("Hello ", "world. ")
        agent.until("audio")
        assert agent.sentences == ["Hello world."]


def test_every_segment_ends_with_its_duration(path: str) -> None:
    with talk(path) as agent:
        said(agent, STORY, keep_open=True)
        ended = agent.of("segment_done")
        assert [message["segment"] for message in ended] == [0, 1, 2, 3]
        total = sum(message["duration_ms"] for message in ended)
        assert total == pytest.approx(agent.of("done")[0]["stats"]["audio_ms"], abs=4)


@pytest.mark.parametrize("backend", ["tone", "espeak", "babble"])
def test_word_times_join_to_the_text_and_never_come_late(path: str, backend: str) -> None:
    with talk(path) as agent:
        said(agent, STORY, backend=backend, timestamps=True)
    words = [(word, m["after"] / 48) for m in agent.of("words") for word in m["words"]]
    texts = [word["text"] for word, _ in words]
    if backend == "babble":
        assert "".join(texts) == STORY
    else:
        by_segment: dict[int, str] = {}
        for message in agent.of("words"):
            joined = "".join(word["text"] for word in message["words"])
            by_segment[message["segment"]] = by_segment.get(message["segment"], "") + joined
        assert list(by_segment.values()) == agent.sentences
    assert len(texts) >= len(STORY.split())
    ends = [word["end_ms"] for word, _ in words]
    assert ends == sorted(ends)
    assert ends[-1] <= len(agent.sound) / 48 + 1
    for word, heard_ms in words:
        assert word["start_ms"] <= word["end_ms"]
        assert heard_ms <= word["end_ms"] + 1, "the word was told after its sound"


@pytest.mark.parametrize("backend", ["tone", "babble", "espeak"])
def test_the_same_seed_gives_the_same_sound(path: str, backend: str) -> None:
    sounds = []
    for seed in (7, 7, 8):
        with talk(path) as agent:
            sounds.append(said(agent, STORY, backend=backend, seed=seed).sound)
    assert sounds[0] == sounds[1]
    if backend == "babble":
        assert sounds[0] != sounds[2]


def test_a_segment_that_fails_does_not_end_the_turn(path: str) -> None:
    with talk(path) as agent:
        said(agent, "This is well. Now raise it. This is well again.", backend="chaos")
        [error] = agent.of("error")
        assert error["segment"] == 1
        assert error["code"] == "synthesis_failed"
        assert error["msg"]
        assert error["delivered_samples"] == 240  # the one word before it
        heard = "This is well. Now This is well again."
        assert levels(agent.sound) == [1 + zlib.crc32(w.encode()) % 30_000 for w in heard.split()]
        assert agent.until_closed() == 1000


# -- interruption --------------------------------------------------------------------------------

LONG = " ".join(f"Sentence number {n} of a long speech." for n in range(40))


def interrupted(agent: Talk, **cancel: object) -> dict[str, object]:
    """Cancel after half a second of sound. Returns ``cancelled``; no sound may follow it."""
    agent.tokens(LONG)
    while agent.received < 24_000:
        agent.until("audio")
    agent.send(cancel=True, **cancel)
    cancelled = agent.until("cancelled")
    assert agent.until_closed() == 1000
    assert agent.messages[-1] is cancelled
    return cancelled


def test_a_cancelled_turn_says_to_the_word_what_was_heard(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", opts={"speed": 0.25})  # 200 ms a word
        cancelled = interrupted(agent, played_ms=210)
        assert cancelled["text_spoken"] == "Sentence"
        assert cancelled["text_remaining"] == LONG.removeprefix("Sentence")
        assert cancelled["played_ms"] == 210
        assert cancelled["exact"] is True


def test_without_word_times_what_was_heard_is_estimated_and_says_so(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="plain")
        cancelled = interrupted(agent, played_ms=350)
        assert cancelled["exact"] is False
        spoken, remaining = str(cancelled["text_spoken"]), str(cancelled["text_remaining"])
        assert spoken + remaining == LONG
        assert spoken.split() == LONG.split()[: len(spoken.split())]


def test_a_client_that_acknowledges_nothing_is_believed_to_listen(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone")
        cancelled = interrupted(agent)
        assert 0 <= float(str(cancelled["played_ms"])) < 30_000
        assert str(cancelled["text_spoken"]) + str(cancelled["text_remaining"]) == LONG


def test_played_ms_corrects_the_clock(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", opts={"speed": 0.25})
        agent.tokens(LONG)
        while agent.received < 48 * 900:
            agent.until("audio")
        agent.send(played_ms=850)
        agent.send(cancel=True)
        cancelled = agent.until("cancelled")
        # Its clock went on between the two messages, by less than three words, one may hope.
        assert cancelled["played_ms"] >= 850
        assert cancelled["text_spoken"].startswith("Sentence number 0 of")


def test_a_batching_backend_is_interrupted_in_its_turn(server: Server, path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="babble", keep_open=True)
        agent.tokens(LONG)
        agent.until("audio")
        agent.send(cancel=True, played_ms=30)
        cancelled = agent.until("cancelled")
        assert cancelled["exact"] is True
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == LONG
        pool = server.service.pools["babble"]
        said(agent, "And the next turn.")
        assert pool.free_slots == pool.slots


def test_text_that_was_on_its_way_when_the_user_interrupted_changes_nothing(path: str) -> None:
    with talk(path) as agent:
        agent.send(backend="tone", opts={"speed": 0.25})
        agent.tokens(LONG)
        agent.until("audio")
        # Of one message, cancel takes effect first.
        agent.send(cancel=True, token=" And", done=True)
        cancelled = agent.until("cancelled")
        assert agent.until_closed() == 1000
        assert agent.messages[-1] is cancelled
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == LONG


def test_a_cancel_with_nothing_said_is_answered(path: str) -> None:
    with talk(path) as agent:
        agent.send(keep_open=True)
        agent.send(cancel=True)
        cancelled = agent.until("cancelled")
        assert (cancelled["text_spoken"], cancelled["text_remaining"]) == ("", "")
        assert said(agent, "Still here.").received


# -- several turns -------------------------------------------------------------------------------


def test_a_socket_that_is_kept_open_serves_turn_after_turn(path: str) -> None:
    with talk(path) as agent:
        agent.send(keep_open=True)
        first = said(agent, "One turn.").sound
        said(agent, "One turn.")
        assert agent.sound == first * 2
        assert len(agent.of("done")) == 2


def test_the_voice_may_change_between_turns_and_the_rest_stays(path: str) -> None:
    with talk(path) as agent, talk(path) as other:
        agent.send(
            keep_open=True, voice="low", format={"encoding": "pcm_s16le", "sample_rate": 8000}
        )
        said(agent, "One turn.")
        before = agent.received
        agent.send(voice="high")
        said(agent, "One turn.")
        said(
            other, "One turn.", voice="high", format={"encoding": "pcm_s16le", "sample_rate": 8000}
        )
        assert agent.sound[before:] == other.sound
        assert agent.sound[:before] != other.sound


def test_the_next_turn_may_begin_before_the_last_is_heard(path: str) -> None:
    with talk(path) as agent:
        agent.send(keep_open=True, backend="chaos")
        for text in ("Alpha beta gamma.", "Delta epsilon."):
            agent.tokens(text)
            agent.send(done=True)
        agent.until("done")
        agent.until("done")
        words = "Alpha beta gamma. Delta epsilon.".split()
        assert levels(agent.sound) == [1 + zlib.crc32(w.encode()) % 30_000 for w in words]
        kinds = [m["type"] for m in agent.messages if m["type"] in ("generating", "done")]
        assert kinds.index("done") < len(kinds) - 1


def test_contexts_are_spoken_side_by_side(path: str) -> None:
    with talk(path) as agent:
        agent.send(framing="msgpack", backend="chaos", keep_open=True)
        for name, text in (("a", "Alpha beta gamma."), ("b", "Delta epsilon.")):
            agent.send(context=name, token=text, done=True)
        agent.until("done")
        agent.until("done")
        for name, text in (("a", "Alpha beta gamma."), ("b", "Delta epsilon.")):
            frames = agent.of("audio", context=name)
            sound = b"".join(frame["pcm"] for frame in frames)
            assert levels(sound) == [1 + zlib.crc32(w.encode()) % 30_000 for w in text.split()]
            assert agent.of("generating", context=name)[0]["sentence"] == text
            assert len(agent.of("done", context=name)) == 1
            assert {frame["segment"] for frame in frames} == {0}
        offsets = [frame["offset"] for frame in agent.of("audio")]
        assert offsets == [frame["after"] // 2 for frame in agent.of("audio")]


def test_a_socket_ends_with_the_last_of_its_contexts(path: str) -> None:
    with talk(path) as agent:
        agent.send(framing="msgpack")
        agent.send(context="a", token="Alpha beta gamma.", done=True)
        assert agent.until_closed() == 1000
        assert len(agent.of("done", context="a")) == 1


def test_a_socket_does_not_end_while_the_text_of_another_context_is_being_taken(
    server: Server, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    route, is_heard = server.service.route, threading.Event()

    async def slow(asked: Configure, *more: str) -> Route:
        if asked.seed == 77:  # as with an engine that still loads
            await asyncio.to_thread(is_heard.wait, PATIENCE)
        return await route(asked, *more)

    monkeypatch.setattr(server.service, "route", slow)
    with talk(path) as agent:
        agent.send(framing="msgpack", backend="chaos")
        agent.send(context="a", token="slow " * 3, done=True)
        agent.send(context="b", seed=77, token="Alpha beta gamma.", done=True)
        assert agent.until("done")["context"] == "a"
        is_heard.set()
        assert agent.until("done")["context"] == "b"
        assert agent.of("audio", context="b")
        assert agent.until_closed() == 1000


def test_a_context_that_preempts_silences_all_others(path: str) -> None:
    with talk(path) as agent:
        agent.send(framing="msgpack", keep_open=True, opts={"speed": 0.25})
        agent.send(context="a", token=LONG)
        agent.send(context="b", token=LONG)
        agent.until("audio", lambda m: m["context"] == "a")
        agent.until("audio", lambda m: m["context"] == "b")
        agent.send(context="c", preempt=True, token="Listen to me.", done=True)
        agent.until("done", lambda m: m["context"] == "c")
        for name in "ab":
            [cancelled] = agent.of("cancelled", context=name)
            after = agent.messages[agent.messages.index(cancelled) + 1 :]
            assert not [m for m in after if m["context"] == name]
        assert agent.of("audio", context="c")


def test_a_context_that_preempts_silences_what_was_sent_whole_and_is_still_heard(path: str) -> None:
    with talk(path) as agent:
        agent.send(framing="msgpack", keep_open=True, opts={"speed": 0.25})
        agent.send(context="a", token=LONG, done=True)
        agent.until("done", lambda m: m["context"] == "a")
        agent.send(context="b", preempt=True, token="Listen to me.", done=True)
        agent.until("done", lambda m: m["context"] == "b")
        [cancelled] = agent.of("cancelled", context="a")
        assert cancelled["text_spoken"] + cancelled["text_remaining"] == LONG
