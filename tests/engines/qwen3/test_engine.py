"""What a turn may rely on: its own voice and randomness, its text whole, its neighbours unfelt."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from driving import Request, Spoken, engine_of, speak, speak_all, step
from qwen3_engine.guard import Runaway
from torch.utils._python_dispatch import TorchDispatchMode

from voice_worker.backend import BackendError, Voice

TEXT = "hello world of speech and then the quick brown fox"
RYAN = Voice(speaker="ryan")


def rows_launched(engine, monkeypatch):
    """Every batch of rows the engine launches from now on."""
    batches = []
    launch = engine.parts.frames.launch
    monkeypatch.setattr(
        engine.parts.frames, "launch", lambda rows: (batches.append(rows), launch(rows))[1]
    )
    return batches


def test_a_seed_gives_the_same_speech_whatever_else_runs(small):
    requests = [Request(TEXT[: 10 + 4 * n], RYAN, seed=n) for n in range(8)]
    alone = [speak(engine_of(small, slots=1), request) for request in requests]
    among = speak_all(engine_of(small, slots=3), requests, random.Random(5))
    for one, other in zip(alone, among, strict=True):
        assert one.is_finished
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


def test_another_seed_gives_other_speech(small):
    engine = engine_of(small, slots=1)
    first, second = (speak(engine, Request(TEXT, RYAN, seed=seed)) for seed in (1, 2))
    assert first.frames != second.frames


def test_a_seed_among_the_options_wins_over_the_turn_s_own(small):
    engine = engine_of(small, slots=1)
    first = speak(engine, Request(TEXT, RYAN, seed=1))
    second = speak(engine, Request(TEXT, RYAN, {"seed": 1}, seed=2))
    assert first.frames == second.frames


def test_next_to_no_temperature_is_none(small):
    """1e-40 has no reciprocal in float32."""
    engine = engine_of(small, slots=1)
    codes = [
        speak(engine, Request("the quick brown", RYAN, {"temperature": heat}), max_frames=20).frames
        for heat in (0, 1e-40, 1e-300, 1e-6)
    ]
    assert codes == codes[:1] * 4


def test_a_cancelled_turn_leaves_no_trace_in_its_slot(packages):
    """Bit for bit: the next turn in the slot is what it is in an engine that was never used."""
    wrapper = packages["custom_voice"]
    request = Request(TEXT, RYAN, seed=3)
    fresh = speak(engine_of(wrapper, slots=1), request)
    engine = engine_of(wrapper, slots=1)
    for stop in (1, 2, 9, 30):
        other = Request("a much longer text " * 4, Voice(speaker="eric"), {"top_k": 3}, seed=stop)
        speak(engine, other, max_frames=stop)
        again = speak(engine, request)
        assert again.pieces == fresh.pieces
        assert np.array_equal(again.samples, fresh.samples)


def test_a_neighbour_that_is_cancelled_does_not_change_a_sample(small):
    def run(cancel_at):
        engine, spoken = engine_of(small, slots=2), {1: Spoken(), 2: Spoken()}
        for job in spoken:
            engine.admit(job, RYAN, {}, job)
            engine.feed(job, TEXT)
            engine.finish_text(job)
        for number in range(400):
            if number == cancel_at:
                engine.cancel(2)
            step(engine, list(engine._streams), spoken)
        assert spoken[1].is_finished
        return spoken[1]

    undisturbed = run(None)
    for moment in (0, 1, 4):
        disturbed = run(moment)
        assert disturbed.pieces == undisturbed.pieces
        np.testing.assert_allclose(disturbed.samples, undisturbed.samples, atol=1e-7)


def test_a_cancel_frees_the_slot_at_once(small):
    engine = engine_of(small, slots=1, pipelined=True)
    engine.admit(1, RYAN, {}, 0)
    engine.feed(1, TEXT)
    engine.step([1])
    with pytest.raises(BackendError, match="try again later"):
        engine.admit(2, RYAN, {}, 0)
    engine.cancel(1)
    engine.admit(2, RYAN, {}, 0)
    assert 1 not in engine._streams


def test_sound_starts_before_the_text_ends(small):
    engine, spoken = engine_of(small, slots=1), {1: Spoken()}
    engine.admit(1, RYAN, {}, 0)
    assert not engine.is_runnable(1)
    engine.feed(1, "Hel")
    assert not engine.is_runnable(1), "the word may still grow"
    engine.feed(1, "lo ")
    step(engine, [1], spoken)
    assert len(spoken[1].samples) == 1920


def test_a_turn_that_waits_for_text_is_not_in_the_batch(small, monkeypatch):
    engine, spoken = engine_of(small, slots=2), {1: Spoken(), 2: Spoken()}
    batches = rows_launched(engine, monkeypatch)
    for job, text in ((1, "hello "), (2, TEXT)):
        engine.admit(job, RYAN, {}, job)
        engine.feed(job, text)
    for _ in range(6):
        step(engine, [1, 2], spoken)
    slots = [[row.slot for row in rows] for rows in batches]
    assert [0, 1] in slots
    assert slots[-1] == [1]
    assert not engine.is_runnable(1)


def test_no_pad_is_fed_before_the_text_is_over(small, monkeypatch):
    """A pad means the end: it must never stand in for a token that is late."""
    engine, spoken = engine_of(small, slots=1), {1: Spoken()}
    batches = rows_launched(engine, monkeypatch)
    engine.admit(1, RYAN, {}, 0)
    tokens = engine.parts.text.tokens(TEXT)
    for letter in TEXT:
        engine.feed(1, letter)
        step(engine, [1], spoken)
    engine.finish_text(1)
    while not spoken[1].is_finished:
        step(engine, [1], spoken)
    fed = [row.text for (row,) in batches]
    config = small.model.config
    assert fed[: len(tokens)] == tokens
    assert fed[len(tokens)] == config.tts_eos_token_id
    assert set(fed[len(tokens) + 1 :]) <= {config.tts_pad_token_id}


def test_a_turn_without_text_ends_without_sound(small):
    engine = engine_of(small, slots=1)
    for text in ("", "  \n"):
        spoken = speak(engine, Request(text, RYAN))
        assert spoken.is_finished
        assert len(spoken.samples) == 0


def test_reading_codes_a_step_late_changes_nothing(small):
    requests = [Request(TEXT[: 12 + 5 * n], RYAN, seed=n) for n in range(6)]
    at_once = speak_all(engine_of(small, slots=3), requests, random.Random(1))
    late = speak_all(engine_of(small, slots=3, pipelined=True), requests, random.Random(1))
    for one, other in zip(at_once, late, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


def test_frames_are_grouped_under_pressure_and_the_sound_is_the_same(small, monkeypatch):
    requests = [Request(TEXT[: 12 + 5 * n], RYAN, seed=n) for n in range(4)]
    single = speak_all(engine_of(small, slots=2), requests, random.Random(1))
    engine = engine_of(small, slots=2, codec_group=4, quiet_rows=0)
    sizes = set()
    decode = engine.parts.codec.decode
    monkeypatch.setattr(
        engine.parts.codec,
        "decode",
        lambda rows, codes: (sizes.add(codes.shape[2]), decode(rows, codes))[1],
    )
    grouped = speak_all(engine, requests, random.Random(1))
    assert sizes >= {1, 4}
    for one, other in zip(single, grouped, strict=True):
        assert one.pieces == other.pieces
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-7)


# -- long turns ------------------------------------------------------------------------------------

LONG = " ".join(f"The {word} fox jumps over it." for word in TEXT.split() * 2)


def test_a_turn_longer_than_the_context_rolls_over_at_a_sentence(small, monkeypatch):
    engine = engine_of(small, slots=1, max_length=256)
    batches = rows_launched(engine, monkeypatch)
    crossed = []
    cross = engine.parts.prompts.cross
    monkeypatch.setattr(
        engine.parts.prompts,
        "cross",
        lambda slot, prompt, tokens: (
            crossed.append((prompt, tokens)),
            cross(slot, prompt, tokens),
        ),
    )
    spoken = speak(engine, Request(LONG, RYAN, seed=1))
    assert spoken.is_finished
    assert engine.counters.rollovers >= 2
    config = small.model.config
    silent = {config.tts_eos_token_id, config.tts_pad_token_id}
    fed, expected = [], engine.parts.text.tokens(LONG)
    crossings = iter(crossed)
    lead = 0
    for (row,) in batches:
        if row.frame & 0xFFFFF == 0:
            lead = 0
            if row.position > batches[0][0].position:
                prompt, tokens = next(crossings)
                # The piece opens with the last sentence, said again in its context, unheard.
                lead = len(prompt.lead)
                fed += tokens[lead:]
                lead = max(0, lead - len(tokens))
        if lead:
            lead -= 1
        elif row.text not in silent:
            fed.append(row.text)
    assert [token for token in fed if token not in silent] == expected
    assert crossed, "no piece was led into by the one before"
    assert max(row.position for (row,) in batches) < 256


def test_text_is_never_lost_when_the_model_ends_early(small, monkeypatch):
    """With the package's rule a piece may end before it was given its text: another one follows."""
    engine = engine_of(small, slots=1, end_before_text=True)
    batches = rows_launched(engine, monkeypatch)
    for seed in range(4):
        batches.clear()
        spoken = speak(engine, Request(TEXT, RYAN, seed=seed))
        config = small.model.config
        silent = {config.tts_eos_token_id, config.tts_pad_token_id}
        assert spoken.is_finished
        fed = [row.text for (row,) in batches if row.text not in silent]
        expected = iter(fed)
        assert all(token in expected for token in engine.parts.text.tokens(TEXT))
    assert engine.counters.rollovers > 0


# -- when something goes wrong -----------------------------------------------------------------------


def test_a_stall_before_anything_was_heard_is_said_again_with_other_numbers(small, monkeypatch):
    engine = engine_of(small, slots=1)
    plain = speak(engine, Request(TEXT, RYAN, seed=1))
    cuts = engine.counters.cuts
    calls = []

    def stall_once(codes, tokens, is_text_over):
        calls.append(len(codes))
        return Runaway.STALL if len(calls) == 3 else None

    monkeypatch.setattr("qwen3_engine.stream.AUDIBLE", 10.0)
    monkeypatch.setattr(engine._guard.__class__, "check", lambda _self, *a: stall_once(*a))
    again = speak(engine, Request(TEXT, RYAN, seed=1))
    assert engine.counters.retries == 1
    assert engine.counters.cuts == cuts
    assert again.is_finished
    assert again.frames[:2] != plain.frames[:2]


def test_a_runaway_that_was_heard_is_cut_cleanly(small, monkeypatch):
    engine = engine_of(small, slots=1)
    monkeypatch.setattr(
        engine._guard.__class__,
        "check",
        lambda _self, codes, *_: Runaway.LOOP if len(codes) == 5 else None,
    )
    monkeypatch.setattr("qwen3_engine.stream.AUDIBLE", 0.0)
    spoken = speak(engine, Request(TEXT, RYAN, seed=1))
    assert spoken.is_finished
    assert engine.counters.cuts >= 1
    assert engine.counters.retries == 0
    assert len(spoken.pieces[0]) == 5
    loudness = abs(spoken.samples)
    assert loudness[5 * 1920 - 1] == 0, "it fades out"
    assert loudness[4 * 1920 : 5 * 1920 - 240].max() > 0.01


def test_a_turn_that_finds_no_end_stops_at_its_budget(small, monkeypatch):
    engine = engine_of(small, slots=1, frames_per_token=2.0)
    # A model that never ends: its end is as suppressed as any other control.
    engine.parts.talker.suppressed[engine.parts.talker.end] = True
    spoken = speak(engine, Request("hello world", RYAN, seed=1), max_frames=2000)
    assert spoken.is_finished
    assert engine.counters.cuts == 1
    assert len(spoken.frames) < 60


def test_a_context_that_is_full_ends_the_piece(small):
    engine = engine_of(small, slots=1, max_length=64, frames_per_token=100.0)
    engine.parts.talker.suppressed[engine.parts.talker.end] = True
    spoken = speak(engine, Request("hello world", RYAN, seed=1), max_frames=2000)
    assert spoken.is_finished
    assert len(spoken.frames) <= 64


def no_room_on_a_gpu(*_):
    raise torch.OutOfMemoryError("no room")


def no_room_on_a_cpu(*_):
    torch.empty(2**50)


no_room = pytest.mark.parametrize("no_room", [no_room_on_a_gpu, no_room_on_a_cpu])


@no_room
@pytest.mark.parametrize("part", ["frames", "codec"])
def test_out_of_memory_costs_the_newest_turn_and_nobody_else(small, monkeypatch, part, no_room):
    def run(fail_at):
        engine, spoken = engine_of(small, slots=2), {1: Spoken(), 2: Spoken()}
        name = "launch" if part == "frames" else "decode"
        original, calls = getattr(getattr(engine.parts, part), name), []

        def sometimes(*args):
            calls.append(1)
            if len(calls) == fail_at:
                no_room()
            return original(*args)

        monkeypatch.setattr(getattr(engine.parts, part), name, sometimes)
        for job in spoken:
            engine.admit(job, RYAN, {}, job)
            engine.feed(job, TEXT)
            engine.finish_text(job)
        for _ in range(400):
            step(engine, list(engine._streams), spoken)
        return engine, spoken

    _, undisturbed = run(0)
    engine, spoken = run(4)
    assert isinstance(spoken[2].error, BackendError)
    assert spoken[2].error.code == "out_of_memory"
    assert spoken[1].is_finished
    assert spoken[1].pieces == undisturbed[1].pieces
    np.testing.assert_allclose(spoken[1].samples, undisturbed[1].samples, atol=1e-7)
    assert engine.counters.out_of_memory == 1
    assert speak(engine, Request(TEXT, RYAN), job=7).is_finished


@no_room
@pytest.mark.parametrize("name", ["continued", "cross"])
def test_out_of_memory_between_two_pieces_costs_that_turn_alone(small, monkeypatch, name, no_room):
    """Nothing is made on the device when it is only asked whether a turn can run."""
    engine, spoken = engine_of(small, slots=2, max_length=256), {1: Spoken(), 2: Spoken()}
    for job, text in ((1, TEXT), (2, LONG)):
        engine.admit(job, RYAN, {}, job)
        engine.feed(job, text)
        engine.finish_text(job)
    with monkeypatch.context() as patch:
        patch.setattr(engine.parts.prompts, name, no_room)
        while 2 in engine._streams:
            step(engine, list(engine._streams), spoken)
    while engine._streams:
        step(engine, list(engine._streams), spoken)
    assert spoken[1].is_finished
    assert isinstance(spoken[2].error, BackendError)
    assert spoken[2].error.code == "out_of_memory"
    assert speak(engine, Request(TEXT, RYAN, seed=1), job=3).is_finished


class Shortage(TorchDispatchMode):
    """No memory for what the operation number ``at`` makes, counted from 0."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Neither a view nor what writes to memory that is there takes any.
        if all(made.alias_info is None for made in func._schema.returns):
            if self.left == 0:
                no_room_on_a_cpu()
            self.left -= 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("part", ["frames", "codec"])
def test_a_step_that_ran_out_of_memory_anywhere_can_be_run_again(small, monkeypatch, part):
    engine = engine_of(small, slots=1)
    request = Request(TEXT, RYAN, seed=4)
    undisturbed = speak(engine, request)
    name = "launch" if part == "frames" else "decode"
    original, points = getattr(getattr(engine.parts, part), name), []

    def stumble(*args):
        # Backwards from the last operations, where what was made is kept.
        for _ in range(12 if points else 0):
            with pytest.raises(RuntimeError, match="can't allocate memory"), Shortage(points.pop()):
                original(*args)
        counted = Shortage(-1)
        with counted:
            result = original(*args)
        if len(points) < 12:
            points[:] = range(-1 - counted.left)
        return result

    monkeypatch.setattr(getattr(engine.parts, part), name, stumble)
    spoken = speak(engine, request)
    assert spoken.pieces == undisturbed.pieces
    assert np.array_equal(spoken.samples, undisturbed.samples)


@no_room
def test_out_of_memory_on_admission_is_a_typed_error(small, monkeypatch, no_room):
    engine = engine_of(small, slots=1)
    with monkeypatch.context() as patch:
        patch.setattr(engine.parts.prompts, "make", no_room)
        with pytest.raises(BackendError) as failure:
            engine.admit(1, RYAN, {}, 0)
    assert failure.value.code == "out_of_memory"
    assert speak(engine, Request(TEXT, RYAN)).is_finished


def test_an_error_that_is_no_lack_of_memory_is_not_told_as_one(small, monkeypatch):
    engine = engine_of(small, slots=1)
    engine.admit(1, RYAN, {}, 0)
    engine.feed(1, TEXT)
    monkeypatch.setattr(engine.parts.frames, "launch", lambda _rows: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        engine.step([1])
    assert engine.counters.out_of_memory == 0


def test_speed_changes_the_length_and_not_the_codes(small):
    engine = engine_of(small, slots=1)
    plain = speak(engine, Request(TEXT, RYAN, seed=2))
    for speed in (0.5, 1.6):
        other = speak(engine, Request(TEXT, RYAN, {"speed": speed}, seed=2))
        assert other.frames == plain.frames
        assert abs(len(other.samples) - len(plain.samples) / speed) <= 2


@pytest.mark.parametrize(
    ("voice", "params", "code"),
    [
        (Voice(speaker="nobody"), {}, "unknown_voice"),
        (Voice(samples=("x",)), {}, "unknown_voice"),  # type: ignore[arg-type]
        (RYAN, {"language": "nl"}, "unsupported_language"),
        (RYAN, {"temperature": 9}, "bad_option"),
        (RYAN, {"top_k": 1.5}, "bad_option"),
        (RYAN, {"speed": True}, "bad_option"),
        (RYAN, {"seed": "x"}, "bad_option"),
        (RYAN, {"instructions": 7}, "bad_option"),
    ],
)
def test_what_cannot_be_spoken_is_refused_without_taking_a_slot(small, voice, params, code):
    engine = engine_of(small, slots=1)
    with pytest.raises(BackendError) as failure:
        engine.admit(1, voice, params, 0)
    assert failure.value.code == code
    assert speak(engine, Request("hello world", RYAN)).is_finished
