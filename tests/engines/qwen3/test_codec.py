"""Streaming the codec is exact: the samples do not depend on how frames are grouped, or batched."""

from __future__ import annotations

import pytest
import torch
from checkpoint import BOOK
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.codec import Codec

FRAMES = 96  # more than the transformer's window of 72


@pytest.fixture(scope="module")
def decoder(packages):
    return packages["base"].model.speech_tokenizer.model.decoder


@pytest.fixture(scope="module")
def codes():
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, BOOK, (3, 16, FRAMES), generator=generator)


@pytest.fixture(scope="module")
def whole(decoder, codes):
    with torch.no_grad():
        return decoder(codes)[:, 0]


@pytest.fixture(scope="module")
def codec(decoder):
    return Codec(decoder, slots=4, max_group=8)


def stream(codec, slot, codes, groups):
    """One stream's samples, its frames decoded in groups of the given sizes."""
    parts, at = [], 0
    for size in groups:
        rows = torch.tensor([slot])
        parts.append(codec.decode(rows, codes[None, :, at : at + size])[0])
        at += size
    return torch.cat(parts)


def cut(sizes, total):
    """``sizes`` repeated until they make up ``total``."""
    groups = []
    while sum(groups) < total:
        groups.append(min(sizes[len(groups) % len(sizes)], total - sum(groups)))
    return groups


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=20))
def test_any_grouping_equals_one_pass(codec, codes, whole, sizes):
    codec.reset(0)
    made = stream(codec, 0, codes[0], cut(sizes, FRAMES))
    assert made.shape == whole[0].shape
    assert (made - whole[0]).abs().max() <= 1e-5
    assert made.abs().max() > 0.1


def test_streams_at_different_places_share_a_call(codec, codes, whole):
    made = {0: [], 1: [], 2: []}
    at = {0: 0, 1: 0, 2: 0}
    for slot in made:
        codec.reset(slot)
    for turn in range(200):
        live = [slot for slot in at if (turn + slot) % (slot + 1) == 0 and at[slot] < FRAMES]
        if not live:
            continue
        size = min(1 + turn % 4, *(FRAMES - at[slot] for slot in live))
        part = torch.stack([codes[slot, :, at[slot] : at[slot] + size] for slot in live])
        for slot, samples in zip(live, codec.decode(torch.tensor(live), part), strict=True):
            made[slot].append(samples)
            at[slot] += size
    for slot, parts in made.items():
        joined = torch.cat(parts)
        assert at[slot] == FRAMES
        assert (joined - whole[slot]).abs().max() <= 1e-5


def test_a_reset_slot_is_bit_equal_to_a_fresh_one(decoder, codec, codes):
    fresh = stream(Codec(decoder, slots=4, max_group=8), 1, codes[0], cut([3, 1], 80))
    stream(codec, 1, codes[1], cut([8], FRAMES))
    codec.reset(1)
    assert torch.equal(stream(codec, 1, codes[0], cut([3, 1], 80)), fresh)


def test_a_saved_stream_continues_in_another_slot_as_often_as_wanted(codec, codes):
    codec.reset(0)
    stream(codec, 0, codes[0][:, :50], cut([8], 50))
    state = codec.save(0)
    expected = stream(codec, 0, codes[0][:, 50:], cut([2], 46))
    for slot in (1, 2):
        stream(codec, slot, codes[2], cut([5], 30))
        codec.reset(slot)
        codec.restore(slot, state)
        assert torch.equal(stream(codec, slot, codes[0][:, 50:], cut([2], 46)), expected)


def test_a_call_that_fails_half_way_can_be_repeated(codec, codes):
    codec.reset(0)
    expected = stream(codec, 0, codes[0], cut([4], 24))
    codec.reset(0)
    parts = [stream(codec, 0, codes[0][:, :12], cut([4], 12))]
    original, calls = codec._layers[-1], []

    def fail_once(x, rows):
        if not calls:
            calls.append(1)
            raise torch.OutOfMemoryError("no room")
        return original(x, rows)

    codec._layers[-1] = fail_once
    with pytest.raises(torch.OutOfMemoryError):
        stream(codec, 0, codes[0][:, 12:16], [4])
    codec._layers[-1] = original
    parts.append(stream(codec, 0, codes[0][:, 12:24], cut([4], 12)))
    assert torch.equal(torch.cat(parts), expected)


def test_the_first_decoded_frames_equal_what_the_package_decodes(packages, codec, codes):
    """Up to 300 frames the package's own decode is one pass, so the two must agree there."""
    tokenizer = packages["base"].model.speech_tokenizer
    theirs, rate = tokenizer.decode([{"audio_codes": codes[0].T}])
    codec.reset(0)
    mine = stream(codec, 0, codes[0], cut([1, 2, 4, 8], FRAMES))
    assert rate == 24_000
    assert abs(theirs[0] - mine.numpy()).max() <= 1e-5
