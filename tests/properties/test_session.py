"""Whatever the order in which workers answer and however the text was cut, the listener hears the
text, whole and in order."""

import random

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.fake_worker import FakeWorkers, speak
from voice_server.core.delivery import Frame
from voice_server.core.events import (
    AudioArrived,
    EndText,
    Feed,
    Open,
    SegmentStarted,
    Tick,
    TurnOptions,
    WordsArrived,
)
from voice_server.core.session import SpeechSession
from voice_server.core.wire import Cancel, Done, Flush, Token

SENTENCES = st.lists(
    st.sampled_from(
        ["Hello there.", "Dr. Smith, how are you today?", "Wait!", "It costs 3.50 euros, roughly.",
         "Fine. ", "This one is a rather long sentence, with a clause in it, and it goes on.",
         "你好。", "「はい」と言った。", "**Bold** text.", "No end here", "\n\n", "e.g. this", "A list:\n- one\n- two"]
    ),
    min_size=1, max_size=8,
)  # fmt: skip
CUTS = st.lists(st.integers(1, 9), max_size=60)


def cut(text, sizes):
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return [part for part in [*parts, text[at:]] if part]


def run(text, sizes, seed, options):
    workers = FakeWorkers(
        SpeechSession(options), random.Random(seed), has_words=options.word_timing
    )
    for part in cut(text, sizes):
        workers.post(Token(part))
        workers.now += 0.01
        if workers._chance.random() < 0.5:
            workers.step()
        workers.take()
    workers.post(Done())
    workers.finish()
    return workers


@given(SENTENCES, CUTS, st.integers(0, 99), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_all_text_is_heard_in_order_however_it_was_cut(sentences, sizes, seed, words, streams):
    text = " ".join(sentences)
    options = TurnOptions(
        word_timing=words and not streams, timestamps=words, streams_text=streams, job_chars=60
    )
    workers = run(text, sizes, seed, options)
    whole = run(text, [], seed, options)
    said = [workers.spoken[segment] for segment in sorted(workers.spoken)]
    assert workers.sound == b"".join(map(speak, said))
    if not streams:
        assert said == [whole.spoken[segment] for segment in sorted(whole.spoken)]
        told = [message["sentence"] for message in workers.messages("generating")]
        assert sorted(told) == sorted(said)
    # A mark that another job's end has parted from its word is not said alone.
    words_said, words_wanted = (
        [char for text in texts for char in text if char.isalnum()]
        for texts in (said, whole.spoken.values())
    )
    assert words_said == words_wanted
    assert isinstance(workers.received[-1], dict)
    assert workers.received[-1]["type"] == ("done")
    assert workers.session.is_over
    assert workers.session.delivery.backlog == 0


def test_marks_alone_are_no_text_and_go_with_the_word_after_them():
    session = SpeechSession(TurnOptions(streams_text=True))
    for marks in ("...", " \u00bf", "\u201c"):
        assert session.handle(Token(marks), 0.0) == []
    began = session.handle(Token("Hola?"), 0.0) + session.handle(Token("!"), 0.0)
    assert began == [Open(0), Feed(0, "... \u00bf\u201cHola?"), Feed(0, "!")]
    assert session.handle(Flush(), 0.0) == [EndText(0)]
    assert session.handle(Token("\u2026?!"), 0.0) + session.handle(Done(), 0.0) == []


def test_a_whole_sentence_is_ended_when_the_model_says_no_more_for_long():
    session = SpeechSession(TurnOptions(streams_text=True, max_delay=1.0))
    assert EndText(0) not in session.handle(Token("Let me look. One moment!\n\n"), 0.0)
    assert session.handle(Tick(), 0.9) == []
    assert session.handle(Tick(), 1.0) == [EndText(0)]


@given(SENTENCES, CUTS, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_words_come_before_their_sound_and_join_to_the_sentence(sentences, sizes, seed):
    options = TurnOptions(word_timing=True, timestamps=True, is_extended=True)
    workers = run(" ".join(sentences), sizes, seed, options)
    heard_ms, words, sentence = 0.0, {}, {}
    for item in workers.received:
        if not isinstance(item, dict):
            heard_ms += len(item.pcm) / 48
        elif item["type"] == "words":
            words.setdefault(item["segment"], []).extend(item["words"])
            assert all(word["end_ms"] >= heard_ms - 1 for word in item["words"] if word["text"])
        elif item["type"] == "generating":
            sentence[item["segment"]] = item["sentence"]
    for segment, told in words.items():
        assert "".join(word["text"] for word in told) == sentence[segment]


@given(st.booleans(), st.integers(1, 4_000))
def test_sound_waits_for_the_times_of_its_words_unless_told_not_to(words_first, samples):
    options = TurnOptions(word_timing=True, timestamps=True, words_first=words_first)
    session = SpeechSession(options)
    [command] = session.handle(Token("Hello there"), 0.0) + session.handle(Flush(), 0.0)
    session.handle(SegmentStarted(command.segment), 0.0)
    session.handle(AudioArrived(command.segment, speak("Hello there")[: 2 * samples]), 0.0)
    before = [item for item in iter(lambda: session.take(0.0), None) if isinstance(item, Frame)]
    assert bool(before) is not words_first
    session.handle(WordsArrived(command.segment, [[0, 5, 0, samples]]), 0.0)
    after = list(iter(lambda: session.take(0.0), None))
    assert "words" in [item["type"] for item in after if isinstance(item, dict)]
    assert any(isinstance(item, Frame) for item in after) is words_first


@given(SENTENCES, CUTS, st.integers(0, 99), st.integers(0, 20), st.floats(0, 3), st.booleans())
@settings(max_examples=150, deadline=None)
def test_after_cancelled_nothing_comes_and_the_text_is_parted_where_it_was_heard(
    sentences, sizes, seed, steps, later, words
):
    text = " ".join(sentences)
    session = SpeechSession(TurnOptions(word_timing=words))
    workers = FakeWorkers(session, random.Random(seed), has_words=words)
    for part in cut(text, sizes):
        workers.post(Token(part))
    workers.post(Flush())
    for _ in range(steps):
        workers.step()
        workers.take()
    workers.now += later
    workers.post(Cancel())
    workers.finish()
    if session.is_cancelled:
        last = workers.received[-1]
        assert last["type"] == "cancelled"
        assert last["text_spoken"] + last["text_remaining"] == text
        if last["text_remaining"] and last["text_spoken"] and words:
            # Cut at a word: never inside one.
            assert not (last["text_spoken"][-1].isalpha() and last["text_remaining"][0].isalpha())
    assert session.is_over
