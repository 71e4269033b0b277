"""The engine's codes are the package's, token for token, whatever the batch and the text do."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import soundfile
import torch
from driving import Request, engine_of, speak, speak_all
from qwen3_engine import frame

from voice_worker.backend import Sample, Voice

FRAMES = 28
WORDS = "the quick brown fox jumps over lazy dogs and then hello world of speech".split()


def sentence(random_: random.Random) -> str:
    """Text without a sentence end inside, so that a clone speaks it in one piece."""
    return " ".join(random_.choice(WORDS) for _ in range(random_.randint(2, 14)))


def expected(wrapper, text, *, language="auto", speaker=None, instruct=None, clone=None):
    """What the package's ``generate`` makes of it, in streaming mode, without randomness."""
    ids = wrapper._tokenize_texts([wrapper._build_assistant_text(text)])
    extra = {}
    if instruct:
        extra["instruct_ids"] = wrapper._tokenize_texts([wrapper._build_instruct_text(instruct)])
    if clone:
        extra["voice_clone_prompt"] = wrapper._prompt_items_to_voice_clone_prompt([clone])
        if clone.ref_text:
            extra["ref_ids"] = wrapper._tokenize_texts([wrapper._build_ref_text(clone.ref_text)])
    codes, _ = wrapper.model.generate(
        input_ids=ids,
        languages=[language],
        speakers=None if speaker is None else [speaker],
        non_streaming_mode=False,
        do_sample=False,
        subtalker_dosample=False,
        repetition_penalty=1.05,
        max_new_tokens=FRAMES + 1,
        **extra,
    )
    return [tuple(frame) for frame in codes[0].tolist()]


# The package takes longest by far, and says the same each time.
remembered = cache(expected)


def assert_equal_speech(engine, requests, references, random_):
    spoken = speak_all(engine, requests, random_, max_frames=FRAMES)
    ends = frames = 0
    for request, record, reference in zip(requests, spoken, references, strict=True):
        first = record.pieces.get(0, [])
        assert first[: len(reference)] == reference, request
        frames += len(reference)
        # Shorter than asked for: the model ended it, and so must the engine have.
        if len(reference) < FRAMES:
            ends += 1
            assert len(first) == len(reference), request
    assert frames > 5 * len(requests), "too little speech to prove anything"
    return ends


def options(**more):
    return {"temperature": 0, "repetition_penalty": 1.05, **more}


@pytest.mark.parametrize("pipelined", [False, True])
def test_custom_voices_with_instructions_and_dialects_equal_the_package(packages, pipelined):
    wrapper = packages["custom_voice"]
    random_ = random.Random(1)
    requests, references = [], []
    for number in range(12):
        text = sentence(random_)
        speaker = random_.choice(["vivian", "ryan", "dylan", "eric"])
        tag, name = random_.choice([("en", "english"), ("zh-CN", "chinese"), ("auto", "auto")])
        instruct = "speak of the lazy fox" if number % 3 == 0 else None
        params = options(language=tag, instructions=instruct)
        requests.append(Request(text, Voice(speaker=speaker), params))
        references.append(
            remembered(wrapper, text, language=name, speaker=speaker, instruct=instruct)
        )
    engine = engine_of(wrapper, slots=4, end_before_text=True, pipelined=pipelined)
    ends = assert_equal_speech(engine, requests, references, random_)
    assert 0 < ends < len(requests), "some end by themselves and some are cut off"


def test_designed_voices_equal_the_package(packages):
    wrapper = packages["voice_design"]
    random_ = random.Random(2)
    requests, references = [], []
    for _ in range(6):
        text, design = sentence(random_), "the voice of a " + sentence(random_)
        requests.append(Request(text, Voice(design=design), options(language="de")))
        references.append(expected(wrapper, text, language="german", instruct=design))
    engine = engine_of(wrapper, slots=3, end_before_text=True)
    assert_equal_speech(engine, requests, references, random_)


def recording(path, seconds=1.6, pitch=140.0):
    """A hum with vibrato: generated, and unlike any other pitch's."""
    time = np.arange(int(seconds * 24_000)) / 24_000
    phase = 2 * np.pi * pitch * time + 2 * np.sin(2 * np.pi * 5 * time)
    sound = 0.3 * np.sin(phase) + 0.1 * np.sin(3 * phase)
    soundfile.write(path, sound.astype(np.float32), 24_000, subtype="FLOAT")
    return sound.astype(np.float32)


@pytest.mark.parametrize("transcript", [None, "hello world of speech", "a " * 40 + "lazy dog"])
def test_clones_equal_the_package(packages, tmp_path, transcript):
    """Without a transcript by speaker embedding; with one in context, also where the transcript
    has more tokens than the recording has frames.
    """
    wrapper = packages["base"]
    random_ = random.Random(3)
    requests, references = [], []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        sound = recording(path, pitch=110.0 + 30 * number)
        clone = wrapper.create_voice_clone_prompt(
            (sound, 24_000), transcript, x_vector_only_mode=transcript is None
        )[0]
        text = sentence(random_)
        voice = Voice(samples=(Sample(path, transcript),), digest=f"{number}-{transcript}")
        requests.append(Request(text, voice, options(language="en")))
        references.append(expected(wrapper, text, language="english", clone=clone))
    engine = engine_of(wrapper, slots=3, end_before_text=True)
    assert_equal_speech(engine, requests, references, random_)


def test_logits_equal_the_package_when_both_are_given_the_same_frames(packages, monkeypatch):
    """Teacher forcing: the numbers behind the choice, not only the choice."""
    wrapper = packages["custom_voice"]
    said = {"language": "english", "speaker": "ryan"}
    reference = remembered(wrapper, "hello world of speech", **said)
    seen: list[torch.Tensor] = []
    hook = wrapper.model.talker.codec_head.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output[:, -1].float())
    )
    expected(wrapper, "hello world of speech", **said)
    hook.remove()

    engine = engine_of(wrapper, slots=2, end_before_text=True)
    talker, mine = engine.parts.talker, []
    head = talker.head
    original = torch.nn.functional.linear

    def watched(x, weight, bias=None):
        out = original(x, weight, bias)
        if weight is head:
            mine.append(out)
        return out

    monkeypatch.setattr(frame.F, "linear", watched)
    request = Request("hello world of speech", Voice(speaker="ryan"), options(language="en"))
    speak(engine, request, max_frames=len(reference))
    for ours, theirs in zip(mine, seen, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(mine) >= len(reference) > 2
