"""What a job remembers of what was delivered, and what it asks of the next worker."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from voice_server.core.errors import ProtocolMistake, VoiceServerError, WorkerDied
from voice_server.core.schedule import NOT_STARTED
from voice_server.workers.job import TEXT_PIECE, Job, JobState
from voice_worker import messages as m

WORD = b"\x01\x00" * 240


class Recorder:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.raises_at: str | None = None

    def _note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name == self.raises_at:
            raise RuntimeError("the socket is gone")

    def started(self) -> None:
        self._note("started")

    def audio(self, pcm: bytes) -> None:
        self._note("audio", pcm)

    def words(self, words: list[list[int]]) -> None:
        self._note("words", words)

    def done(self, samples: int, timing: Mapping[str, float]) -> None:
        self._note("done", samples)

    def failed(self, error: VoiceServerError) -> None:
        self._note("failed", error)


def new(text: str | None = "one two three", **options: Any) -> tuple[Job, Recorder]:
    recorder = Recorder()
    job = Job(recorder, {}, {}, 7, text=text, due=lambda: NOT_STARTED, **options)
    job.number = 4
    return job, recorder


def begin(job: Job, *, has_credit: bool = False) -> list[m.Message]:
    return job.begin_attempt(0.0, has_credit=has_credit)


def test_a_first_attempt_asks_for_the_whole_text() -> None:
    job, _ = new()
    assert begin(job) == [m.Synthesize(4, 1, "one two three", {}, {}, 7, None)]
    assert job.state is JobState.RUNNING


def test_a_second_attempt_resumes_after_what_was_delivered_with_its_checksum() -> None:
    job, _ = new()
    begin(job)
    job.take_audio(WORD)
    job.take_audio(b"\x02\x00" * 10)
    (message,) = begin(job)
    assert isinstance(message, m.Synthesize)
    assert message.attempt == 2
    assert message.resume == {"samples": 250, "crc": zlib.crc32(WORD + b"\x02\x00" * 10)}


def test_a_streaming_job_repeats_all_text_so_far() -> None:
    job, _ = new(None)
    job.add_text("one ")
    assert begin(job) == [m.Open(4, 1, {}, {}, 7, None), m.Text(4, "one ")]
    job.add_text("two")
    job.is_text_ended = True
    assert begin(job) == [m.Open(4, 2, {}, {}, 7, None), m.Text(4, "one two"), m.EndText(4)]


def test_text_too_long_for_a_message_is_sent_in_pieces() -> None:
    job, _ = new(None)
    job.add_text("x" * (2 * TEXT_PIECE + 1))
    pieces = [message.text for message in begin(job) if isinstance(message, m.Text)]
    assert [len(piece) for piece in pieces] == [TEXT_PIECE, TEXT_PIECE, 1]


def test_text_after_the_end_is_a_mistake() -> None:
    job, _ = new()
    with pytest.raises(ProtocolMistake):
        job.add_text("more")


def test_credit_is_sent_to_workers_that_keep_it_and_only_when_there_is_some() -> None:
    job, _ = new(credit=0)
    assert len(begin(job, has_credit=True)) == 1
    job.credit = 4800
    assert begin(job, has_credit=True)[-1] == m.Credit(4, 4800)
    assert len(begin(job, has_credit=False)) == 1
    assert new()[0].credit_message() == m.Credit(4, -1)


def test_words_are_announced_just_before_the_sound_of_their_last_sample() -> None:
    job, recorder = new()
    begin(job)
    job.take_words([[0, 3, 0, 240], [4, 7, 240, 480]])
    assert recorder.calls == []
    job.take_audio(WORD)
    job.take_audio(WORD[:100])
    job.take_audio(WORD[100:])
    assert [call[0] for call in recorder.calls] == ["words", "audio", "audio", "words", "audio"]
    assert recorder.calls[3][1] == [[4, 7, 240, 480]]


def test_words_whose_sound_never_came_are_announced_at_the_end() -> None:
    job, recorder = new()
    begin(job)
    job.take_words([[0, 3, 0, 9999]])
    job.take_audio(WORD)
    job.finish({})
    assert recorder.calls[1:] == [("words", [[0, 3, 0, 9999]]), ("done", 240)]


def test_words_announced_by_a_worker_that_died_before_their_sound_are_forgotten() -> None:
    job, recorder = new()
    begin(job)
    job.take_words([[0, 3, 0, 240], [4, 7, 240, 480]])
    job.take_audio(WORD)
    begin(job)
    job.take_words([[4, 7, 240, 480]])
    job.take_audio(WORD)
    assert [call[1] for call in recorder.calls if call[0] == "words"] == [
        [[0, 3, 0, 240]],
        [[4, 7, 240, 480]],
    ]


def test_a_cut_goes_on_after_the_last_complete_word_and_shifts_what_follows() -> None:
    job, recorder = new("one, two three", credit=1000)
    begin(job)
    job.take_words([[0, 3, 0, 240], [5, 8, 240, 480]])
    job.take_audio(WORD + b"\x00\x00" * 60)
    assert job.cut(has_word_timing=True)
    opening, credit = begin(job, has_credit=True)
    assert opening == m.Synthesize(4, 2, "two three", {}, {}, 7, None)
    assert credit == m.Credit(4, 700)
    job.take_words([[0, 3, 0, 240]])
    job.take_audio(WORD)
    assert recorder.calls[-2] == ("words", [[5, 8, 300, 540]])
    (again,) = begin(job)
    assert isinstance(again, m.Synthesize)
    assert again.resume == {"samples": 240, "crc": zlib.crc32(WORD)}
    job.finish({})
    assert recorder.calls[-1] == ("done", 540)


def test_a_second_cut_goes_on_from_the_first() -> None:
    job, recorder = new("one two three")
    for text in ("one two three", "two three"):
        (message,) = begin(job)
        assert isinstance(message, m.Synthesize)
        assert message.text == text
        job.take_words([[0, 3, 0, 240]])
        job.take_audio(WORD)
        assert job.cut(has_word_timing=True)
    (message,) = begin(job)
    assert isinstance(message, m.Synthesize)
    assert message.text == "three"
    assert recorder.calls[2] == ("words", [[4, 7, 240, 480]])


def test_a_cut_after_the_last_word_leaves_nothing_to_say() -> None:
    job, _ = new("one.")
    begin(job)
    job.take_words([[0, 3, 0, 240]])
    job.take_audio(WORD)
    assert job.has_text_left
    assert job.cut(has_word_timing=True)
    assert not job.has_text_left


def test_a_streaming_job_may_be_cut_at_the_end_of_its_text_so_far() -> None:
    job, _ = new(None)
    job.add_text("one ")
    begin(job)
    job.take_words([[0, 3, 0, 240]])
    job.take_audio(WORD)
    assert job.cut(has_word_timing=True)
    assert job.has_text_left
    assert begin(job) == [m.Open(4, 2, {}, {}, 7, None)]
    job.add_text("two")
    assert begin(job) == [m.Open(4, 3, {}, {}, 7, None), m.Text(4, "two")]


def test_part_of_a_first_word_is_heard_again_but_never_a_segment_without_timings() -> None:
    job, _ = new()
    begin(job)
    job.take_audio(WORD)
    assert not job.cut(has_word_timing=False)
    assert job.cut(has_word_timing=True)
    long, _ = new()
    begin(long)
    long.take_audio(WORD * 200)
    assert not long.cut(has_word_timing=True)


def test_a_failure_says_how_much_was_delivered_and_comes_once() -> None:
    job, recorder = new()
    begin(job)
    job.take_audio(WORD)
    error = WorkerDied("gone")
    job.fail(error)
    job.fail(WorkerDied("again"))
    assert recorder.calls[1:] == [("failed", error)]
    assert error.delivered_samples == 240
    assert job.is_over


@pytest.mark.parametrize("call", ["audio", "words"])
def test_a_sink_that_raises_is_noticed(call: str) -> None:
    job, recorder = new()
    begin(job)
    recorder.raises_at = call
    job.take_words([[0, 3, 0, 240]])
    assert not job.take_audio(WORD)


def test_the_sink_is_told_of_the_first_start_only() -> None:
    job, recorder = new()
    begin(job)
    assert job.start()
    begin(job)
    assert job.start()
    assert recorder.calls == [("started",)]


def test_a_job_owes_sound_unless_it_waits_for_credit_or_text() -> None:
    whole, _ = new(credit=240)
    assert whole.owes_sound(has_credit=True)
    begin(whole)
    whole.take_audio(WORD)
    assert not whole.owes_sound(has_credit=True)
    assert whole.owes_sound(has_credit=False)

    streamed, _ = new(None)
    assert not streamed.owes_sound(has_credit=True)
    streamed.add_text("A long sentence that has no end, " * 12)
    assert not streamed.owes_sound(has_credit=True)  # the model may well wait for its end
    streamed.add_text("and then so many words that some of them could have been spoken by now.")
    assert streamed.owes_sound(has_credit=True)
    begin(streamed)
    streamed.take_audio(WORD * 200)
    assert not streamed.owes_sound(has_credit=True)
    streamed.is_text_ended = True
    assert streamed.owes_sound(has_credit=True)
