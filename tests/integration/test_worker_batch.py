"""The runtime of batching backends in a real process: text that arrives late, credit, cancel,
resume, and neighbours that never notice.
"""

import zlib
from collections import defaultdict

import pytest

from tests.integration.raw_worker import RawWorker
from voice_worker import messages as m
from voice_worker.protocol import RemoteProtocolError

TEXT = "Speech before the sentence is written, which is the point of all this."
FRAME = 1920


@pytest.fixture(scope="module")
def babble():
    with RawWorker("babble", {"slots": 8, "obeys": True}) as worker:
        yield worker


class Numbers:
    last = 0


@pytest.fixture
def job():
    Numbers.last += 1
    return Numbers.last * 1000


class Turns:
    """Several jobs at once; collects what each of them said until it is over."""

    def __init__(self, worker: RawWorker) -> None:
        self.worker = worker
        self.pcm: dict[int, bytes] = defaultdict(bytes)
        self.words: dict[int, list[list[int]]] = defaultdict(list)
        self.ends: dict[int, m.Done | m.Failed] = {}

    def open(self, job: int, *, credit: int = -1, **fields) -> None:
        attempt = fields.pop("attempt", 1)
        self.worker.send(m.Open(job, attempt, fields.pop("voice", {}), **fields))
        self.worker.send(m.Credit(job, credit))

    def take(self) -> m.Message:
        message = self.worker.get()
        match message:
            case m.Audio():
                assert message.offset == len(self.pcm[message.job]) // 2
                self.pcm[message.job] += message.pcm
            case m.Words():
                self.words[message.job] += message.words
            case m.Done() | m.Failed():
                self.ends[message.job] = message
        return message

    def finish(self, *jobs: int) -> None:
        while not self.ends.keys() >= set(jobs):
            self.take()

    def speak(self, job: int, *texts: str, **fields) -> bytes:
        self.open(job, **fields)
        self.worker.send(*(m.Text(job, text) for text in texts), m.EndText(job))
        self.finish(job)
        assert isinstance(self.ends[job], m.Done), self.ends[job]
        return self.pcm[job]

    def settle(self) -> None:
        """Return when the worker has nothing more to say about what it was sent."""
        self.worker.send(m.Prepare(2**40 + len(self.ends), {}))
        while not isinstance(self.take(), m.Prepared):
            pass


@pytest.fixture
def turns(babble):
    return Turns(babble)


def test_it_says_that_it_streams_text_and_has_slots(babble):
    assert babble.ready.info["streams_text"] is True
    assert babble.ready.info["slots"] == 8


def test_the_bytes_do_not_depend_on_how_the_text_was_cut(turns, job):
    whole = turns.speak(job, TEXT, seed=5)
    assert turns.speak(job + 1, *TEXT, seed=5) == whole
    assert turns.speak(job + 2, *(TEXT[i : i + 7] for i in range(0, len(TEXT), 7)), seed=5) == whole
    assert turns.words[job] == turns.words[job + 1] == turns.words[job + 2]
    assert turns.speak(job + 3, TEXT, seed=6) != whole
    assert turns.speak(job + 4, TEXT, seed=5, voice={"speaker": "bass"}) != whole


def test_words_are_exact_and_cover_the_text(turns, job):
    turns.speak(job, TEXT)
    spoken = [TEXT[start:end] for start, end, _, _ in turns.words[job]]
    assert spoken == TEXT.split()
    per_char = 24_000 // 15
    end = 0
    for start_char, end_char, start, stop in turns.words[job]:
        assert start == end
        end = start + (end_char - start_char + 1) * per_char
        assert stop == end
    assert end * 2 == len(turns.pcm[job])


def test_neighbours_change_nothing(turns, job):
    alone = turns.speak(job, TEXT, seed=job)
    for number in range(1, 8):
        turns.open(job + number, seed=job if number == 4 else number)
    for piece in TEXT.split(" "):
        for number in range(1, 8):
            turns.worker.send(m.Text(job + number, f"{piece} "))
    turns.worker.send(m.Cancel(job + 2))
    turns.worker.send(*(m.EndText(job + number) for number in (1, 3, 4, 5, 6, 7)))
    turns.finish(*range(job + 1, job + 8))
    assert turns.pcm[job + 4] == alone
    assert turns.ends[job + 2].cancelled


def test_it_waits_for_text_and_holds_back_the_unfinished_word(turns, job):
    turns.open(job)
    turns.worker.send(m.Text(job, "one tw"))
    while len(turns.pcm[job]) < 2 * 3 * FRAME:  # "one " is 3.3 frames long
        turns.take()
    turns.settle()
    assert len(turns.pcm[job]) == 2 * 3 * FRAME
    turns.worker.send(m.Text(job, "o"), m.EndText(job))
    turns.finish(job)
    assert turns.pcm[job] == turns.speak(job + 1, "one two")


def test_without_credit_nothing_is_sent_and_the_others_go_on(turns, job):
    turns.open(job, credit=0)
    turns.worker.send(m.Text(job, TEXT), m.EndText(job))
    whole = turns.speak(job + 1, TEXT)
    assert turns.pcm[job] == b""
    turns.worker.send(m.Credit(job, 1000))
    while len(turns.pcm[job]) < 2000:
        turns.take()
    turns.settle()
    assert len(turns.pcm[job]) == 2000
    turns.worker.send(m.Credit(job, -1))
    turns.finish(job)
    assert turns.pcm[job] == whole


def test_credit_up_to_the_very_end_is_enough(turns, job):
    whole = turns.speak(job, "five words")
    turns.open(job + 1, credit=len(whole) // 2)
    turns.worker.send(m.Text(job + 1, "five words"), m.EndText(job + 1))
    turns.finish(job + 1)
    assert turns.pcm[job + 1] == whole


def test_cancel_frees_the_slot_in_every_phase(turns, job):
    for number in range(job, job + 40):
        turns.open(number)
        if number % 4:
            turns.worker.send(m.Text(number, TEXT))
        if number % 4 == 2:
            turns.take()
        if number % 4 == 3:
            turns.worker.send(m.EndText(number))
        turns.worker.send(m.Cancel(number))
        turns.finish(number)
        assert turns.ends[number].cancelled
    assert turns.speak(job + 40, TEXT)


def test_a_whole_segment_may_be_given_at_once(babble, turns, job):
    babble.send(m.Synthesize(job, 1, TEXT, {}, seed=3), m.Credit(job, -1))
    turns.finish(job)
    assert turns.pcm[job] == turns.speak(job + 1, TEXT, seed=3)


def test_a_failed_step_fails_the_jobs_in_it_and_no_others(turns, job):
    turns.open(job, credit=0)
    turns.worker.send(m.Text(job, "I am not in the batch "), m.EndText(job))
    turns.open(job + 1)
    turns.worker.send(m.Text(job + 1, "now raise an error"), m.EndText(job + 1))
    turns.finish(job + 1)
    assert turns.ends[job + 1].code == "synthesis_failed"
    assert "the whole step failed" in turns.ends[job + 1].error
    turns.worker.send(m.Credit(job, -1))
    turns.finish(job)
    assert isinstance(turns.ends[job], m.Done)


def test_a_job_that_fails_alone_leaves_its_neighbour_alone(turns, job):
    for number in (job, job + 1):
        turns.open(number)
    turns.worker.send(m.Text(job, "this will fail now"), m.EndText(job))
    turns.worker.send(m.Text(job + 1, "this will work now"), m.EndText(job + 1))
    turns.finish(job, job + 1)
    assert turns.ends[job].error == "the model failed here"
    assert isinstance(turns.ends[job + 1], m.Done)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"voice": {"speaker": "nobody"}}, "unknown_voice"),
        ({"params": {"speed": "fast"}}, "bad_option"),
        ({"voice": {"samples": 5}}, "synthesis_failed"),
    ],
)
def test_a_refused_job_takes_no_slot(turns, job, fields, code):
    for number in range(job, job + 20):
        turns.open(number, **fields)
        turns.worker.send(m.Text(number, "x"))  # crosses the refusal
        turns.finish(number)
        assert turns.ends[number].code == code
    assert turns.speak(job + 20, "fine")


@pytest.mark.parametrize("delivered", [1, FRAME, 5 * FRAME + 17, 100_000])
def test_a_resumed_turn_goes_on_with_the_same_bytes(turns, job, delivered):
    whole = turns.speak(job, TEXT, seed=9)
    resume = {"samples": delivered, "crc": zlib.crc32(whole[: 2 * delivered])}
    babble = turns.worker
    babble.send(m.Open(job, 2, {}, seed=9, resume=resume), m.Text(job, TEXT), m.EndText(job))
    babble.send(m.Credit(job, -1))
    rest, words = b"", []
    for message in babble.job(job):
        if isinstance(message, m.Audio):
            assert message.offset == delivered + len(rest) // 2
            rest += message.pcm
        elif isinstance(message, m.Words):
            words += message.words
    assert isinstance(message, m.Done)
    assert message.samples == len(whole) // 2
    assert whole[: 2 * delivered] + rest == whole
    assert words == [word for word in turns.words[job] if word[3] > delivered]


def test_a_turn_that_cannot_be_resumed_frees_its_slot(turns, job):
    for number in range(job, job + 10):
        turns.open(number, attempt=2, resume={"samples": 100, "crc": 1})
        turns.worker.send(m.Text(number, TEXT), m.EndText(number))
        turns.finish(number)
        assert turns.ends[number].code == "resume_mismatch"
        assert turns.pcm[number] == b""
    assert turns.speak(job + 10, "fine")


def test_a_word_without_end_is_spoken_in_pieces(turns, job):
    turns.open(job)
    turns.worker.send(m.Text(job, "x" * 1000))
    while len(turns.pcm[job]) < 2 * 50 * FRAME:
        turns.take()
    turns.worker.send(m.Cancel(job))
    turns.finish(job)


def test_a_turn_without_text_is_done_at_once(turns, job):
    assert turns.speak(job) == b""


def test_it_finishes_its_turns_and_goes_when_asked():
    with RawWorker("babble") as worker:
        turns = Turns(worker)
        turns.open(1)
        worker.send(m.Text(1, "one "), m.Shutdown(), m.Text(1, "two"), m.EndText(1))
        turns.finish(1)
        with pytest.raises(EOFError):
            worker.get()
        assert worker.wait() == 0
        assert len(turns.words[1]) == 2


def test_a_worker_with_one_slot_needs_no_credit():
    with RawWorker("babble", {"slots": 1}) as worker:
        worker.send(m.Open(1, 1, {}), m.Text(1, "hello"), m.EndText(1))
        assert isinstance(list(worker.job(1))[-1], m.Done)


def test_a_worker_that_dies_in_a_step_ends_the_pipe():
    with RawWorker("babble", {"obeys": True}) as worker:
        turns = Turns(worker)
        turns.open(1)
        worker.send(m.Text(1, "now exit please"), m.EndText(1))
        with pytest.raises(RemoteProtocolError, match="ended while ready"):
            turns.finish(1)
        assert worker.wait() == 7


def test_a_backend_that_breaks_its_contract_ends_with_its_traceback(tmp_path):
    (tmp_path / "backend.py").write_text(
        """
from voice_worker import BackendInfo, BatchBackend, serve

class Broken(BatchBackend):
    name = "broken"
    def load(self, options): return BackendInfo(24_000, slots=2)
    def admit(self, job): pass
    def feed(self, job, text): pass
    def finish_text(self, job): pass
    def cancel(self, job): pass
    def is_runnable(self, job): raise RuntimeError("asked too much")
    def step(self, runnable): return []

serve(Broken())
"""
    )
    with RawWorker(tmp_path / "backend.py") as worker:
        worker.send(m.Synthesize(1, 1, "x", {}), m.Credit(1, -1))
        with pytest.raises(RemoteProtocolError):
            list(worker.job(1))
        assert worker.wait() == 70
        assert "asked too much" in worker.stderr


def test_a_segment_backend_may_not_claim_slots(tmp_path):
    (tmp_path / "backend.py").write_text(
        """
from voice_worker import Backend, BackendInfo, serve

class Vain(Backend):
    name = "vain"
    def load(self, options): return BackendInfo(24_000, slots=2)
    def synthesize(self, job): return iter(())

serve(Vain())
"""
    )
    with RawWorker(tmp_path / "backend.py") as worker:
        assert isinstance(worker.ready, m.Failed)
        assert "only a BatchBackend has several slots" in worker.ready.error


def test_each_end_of_a_job_tells_what_the_backend_counted_since_the_last():
    with RawWorker("babble", {"slots": 4, "obeys": True}) as worker:
        turns = Turns(worker)
        turns.speak(1, "one two")
        first = turns.ends[1].counts
        assert first["failures"] == 0, "a count that is still zero is told once"
        assert first["frames"] >= len(turns.pcm[1]) // 2 // FRAME
        turns.open(2)
        worker.send(m.Text(2, "fail now"), m.EndText(2))
        turns.finish(2)
        assert isinstance(turns.ends[2], m.Failed)
        turns.open(3)
        worker.send(m.Cancel(3))
        turns.finish(3)
        assert turns.ends[3].cancelled
        assert turns.ends[3].counts["failures"] == 1, "the failed job's count comes with the next"
        turns.open(4)
        worker.send(m.Cancel(4))
        turns.finish(4)
        assert turns.ends[4].counts == {}
