"""The text side of a slot, without a model: when a piece starts, what it is fed, where it is cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.guard import FREE_FRAMES, Guard, Runaway
from qwen3_engine.job import Job, Limits, Start
from qwen3_engine.options import TurnOptions
from qwen3_engine.stream import tail_of
from qwen3_engine.text import Piece

END, PAD = 900, 901


class WordFeed:
    """A stand-in for the tokenizer: each word is a token, its number; a stop ends a sentence."""

    def feed(self, text):
        return [
            Piece((int(word.strip(".")),), starts_word=True, ends_sentence=word.endswith("."))
            for word in text.split()
        ]

    def finish(self):
        return []


def job_of(text="", length=2048, **limits):
    limits = Limits.for_length(length, END, PAD, end_before_text=limits.get("early", False))
    job = Job(1, 0, TurnOptions(), WordFeed(), limits)
    job.feed(text)
    return job


def begin(job, bridge=0, lead=()):
    start = job.next_start(bridge, len(lead), is_bridge_optional=False)
    assert start is not None
    job.begin(start, bridge, lead, 10)
    return start


def frames(job, count):
    """Make ``count`` frames; the tokens they were fed."""
    fed = []
    for _ in range(count):
        token = job.next_token()
        if token is None:
            break
        fed.append(token)
        job.launched += 1
        job.frames.append((len(job.frames), 0))
        job.levels.append(1.0)
    return fed


def test_text_is_fed_then_its_end_then_pads():
    job = job_of("1 2 3")
    begin(job)
    assert frames(job, 9) == [1, 2, 3]
    assert not job.can_step()
    job.feed("4")
    assert frames(job, 9) == [4]
    job.finish_text()
    assert frames(job, 3) == [END, PAD, PAD]


def test_the_end_is_possible_only_when_all_text_was_fed():
    job = job_of("1 2 3")
    job.finish_text()
    begin(job)
    possible = []
    for _ in range(6):
        possible.append(job.may_end)
        frames(job, 1)
    assert possible == [False, False, False, True, True, True]
    early = job_of("1 2 3 4", early=True)
    begin(early)
    frames(early, 2)
    assert early.may_end


def test_a_bridge_swallows_text_before_the_first_frame():
    job = job_of("1 2")
    assert job.next_start(3, 1, is_bridge_optional=False) is None, "three tokens, four wanted"
    job.feed("3")
    assert begin(job, bridge=3, lead=(70,)) == Start(None, with_bridge=True)
    assert [job.token_at(index) for index in range(3)] == [70, 1, 2]
    assert job.position == 13
    assert frames(job, 5) == [3]


def test_a_whole_sentence_is_spoken_by_itself_when_the_bridge_wants_more():
    job = job_of("1 2 3 4. 5")
    start = begin(job, bridge=20)
    assert start.stop == 4
    assert [job.token_at(index) for index in range(7)] == [1, 2, 3, 4, END, PAD, PAD]
    job.launched = 3
    job.frames = [(1, 0)] * 3
    job.end_piece(is_cut=False)
    assert job.start == 4
    assert not job.is_finished
    assert job.next_start(20, 0, is_bridge_optional=False) is None
    job.finish_text()
    assert begin(job, bridge=20).stop is None
    assert job.token_at(0) == 5


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 30), st.integers(0, 60))
def test_a_bridge_begins_the_same_piece_whenever_its_text_came(sizes, bridge, early):
    numbers = iter(range(1000))
    words = [f"{next(numbers)}{'.' * (at + 1 == n)}" for n in sizes for at in range(n)]
    whole, late = job_of(" ".join(words)), job_of(" ".join(words[:early]))
    whole.finish_text()
    start = late.next_start(bridge, 0, is_bridge_optional=False)
    if start is not None:
        assert start == whole.next_start(bridge, 0, is_bridge_optional=False)


def test_a_bridge_that_is_not_needed_is_left_out_when_text_is_short():
    job = job_of("1 2")
    assert job.next_start(9, 0, is_bridge_optional=True) == Start(None, with_bridge=False)
    job.finish_text()
    assert job.next_start(9, 0, is_bridge_optional=True) == Start(None, with_bridge=True)


def test_a_cut_piece_leaves_what_it_was_not_given():
    job = job_of("1 2 3 4 5 6")
    begin(job)
    frames(job, 4)
    job.end_piece(is_cut=True)
    assert job.tokens[job.start :] == [5, 6]
    begin(job)
    frames(job, 1)
    # One more is on its way to the device when the end is read.
    job.launched += 1
    job.end_piece(is_cut=False)
    assert job.start == 6


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=60),
    st.integers(64, 400),
    st.randoms(use_true_random=False),
)
def test_every_token_is_fed_once_and_in_order_however_long(sentences, length, random_):
    number, words = 0, []
    for size, is_ended in sentences:
        words += [str(number + at) for at in range(size)]
        words[-1] += "." if is_ended else ""
        number += size
    job = job_of(length=length)
    fed, silent = [], (END, PAD)
    while not job.is_finished:
        if words and random_.random() < 0.5:
            job.feed(" ".join(words[:5]))
            del words[:5]
        elif not words and not job.is_text_over:
            job.finish_text()
        if not job.is_speaking:
            if start := job.next_start(0, 0, is_bridge_optional=False):
                job.begin(start, 0, (), 10)
            continue
        if job.may_end and job.launched > job.fed_tokens() + 1:
            job.end_piece(is_cut=False)
            continue
        fed += frames(job, 1)
        hard = job.limits.hard_tokens
        assert job.fed_tokens() <= hard + 1, "a piece outgrew its context"
    assert [token for token in fed if token not in silent] == list(range(number))


def test_a_word_without_end_is_cut_before_the_context_is_full():
    job = job_of(" ".join(map(str, range(600))))
    job.word_starts.clear()
    begin(job)
    fed = frames(job, 600)
    assert job.limits.hard_tokens < fed.index(END) < job.limits.length // 3


def test_the_tail_of_a_piece_is_its_last_sentence_from_the_pause_before_it():
    job = job_of("1 2 3 4. 5 6 7 8.")
    job.finish_text()
    begin(job)
    job.frames = [(at, 0) for at in range(40)]
    job.levels = [1.0] * 40
    job.levels[17] = 0.01
    tokens, tail = tail_of(job, (0, 8), longest=100)
    assert tokens == (5, 6, 7, 8)
    assert tail == job.frames[17:]
    assert tail_of(job, (0, 8), longest=10) is None
    assert tail_of(job, (0, 4), longest=100) == ((1, 2, 3, 4), job.frames)


# -- the guard ---------------------------------------------------------------------------------------


def test_the_guard_lets_lively_speech_pass():
    guard = Guard(8.0)
    codes = [(17 * at * at + at) % 61 for at in range(400)]
    for count in range(1, 400):
        assert guard.check(codes[:count], tokens=60, is_text_over=count > 60) is None


def test_the_guard_notices_a_missing_end_only_when_the_text_is_over():
    guard = Guard(2.0)
    codes = [(17 * at * at + at) % 61 for at in range(FREE_FRAMES + 21)]
    assert guard.check(codes, 10, is_text_over=False) is None
    assert guard.check(codes[:-1], 10, is_text_over=True) is None
    assert guard.check(codes, 10, is_text_over=True) is Runaway.NO_END


def test_the_guard_notices_a_stall_and_a_loop():
    guard = Guard(100.0)

    def first(codes):
        found = (guard.check(codes[:n], 10, is_text_over=True) for n in range(1, len(codes)))
        return next((at, trouble) for at, trouble in enumerate(found, 1) if trouble)

    lively = [(17 * at * at + at) % 61 for at in range(30)]
    at, trouble = first([*lively, *[7, 8] * 60])
    assert trouble is Runaway.STALL
    assert at <= 30 + 50 + 8
    at, trouble = first([*lively, *[1, 9, 4, 2, 8, 8, 3] * 20])
    assert trouble is Runaway.LOOP
    assert at <= 30 + 21 + 8 + 8
