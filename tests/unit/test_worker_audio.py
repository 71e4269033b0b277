"""PCM and the resampler: lengths, pitch, images, and independence of how the chunks were cut."""

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from voice_worker.audio import SAMPLE_RATE, Resampler, to_pcm

RATES = [4000, 8000, 11025, 12000, 16000, 22050, 32000, 44100, 48000, 96000, 192_000]
AWKWARD = [4001, 22051, 23999, 44101]


def resample(samples: np.ndarray, rate: int, cuts: list[int] | None = None) -> np.ndarray:
    resampler = Resampler(rate)
    edges = [0, *sorted(min(cut, len(samples)) for cut in cuts or []), len(samples)]
    parts = [resampler.push(samples[start:end]) for start, end in pairwise(edges)]
    return np.concatenate([*parts, resampler.flush()])


def sine(hertz: float, rate: int, seconds: float = 0.5, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


def spectrum_db(pcm: np.ndarray) -> np.ndarray:
    """Decibels below the strongest bin; a bin is SAMPLE_RATE / len(pcm) hertz wide."""
    amplitudes = np.abs(np.fft.rfft(pcm * np.kaiser(len(pcm), 14.0)))
    return 20 * np.log10(np.maximum(amplitudes, 1e-9) / amplitudes.max())


def test_float_becomes_int16_clipped_and_silent_where_it_is_no_number():
    samples = np.array([0.0, 1.0, -1.0, 0.5, 7.0, -7.0, np.nan, np.inf], dtype=np.float32)
    expected = [0, 32767, -32767, 16384, 32767, -32768, 0, 32767]
    assert np.frombuffer(to_pcm(samples), "<i2").tolist() == expected
    assert Resampler(SAMPLE_RATE).push(samples).tolist() == expected


def test_int16_at_24_khz_passes_untouched():
    samples = np.random.default_rng(1).integers(-32768, 32767, 5000).astype(np.int16)
    resampler = Resampler(SAMPLE_RATE)
    assert np.shares_memory(resampler.push(samples), samples)
    assert len(resampler.flush()) == 0
    assert to_pcm(samples) == samples.tobytes()


def test_a_batch_axis_is_accepted():
    assert Resampler(SAMPLE_RATE).push(np.zeros((1, 10), dtype=np.float32)).shape == (10,)
    assert resample(np.zeros((1, 16_000), dtype=np.float32)[0], 16_000).shape == (24_000,)


@pytest.mark.parametrize("rate", [3999, 192_001, 0, -1])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="4000 to 192000"):
        Resampler(rate)


@given(st.sampled_from(RATES + AWKWARD), st.integers(0, 9000), st.lists(st.integers(0, 9000)))
@settings(max_examples=150, deadline=None)
def test_the_bytes_do_not_depend_on_the_cuts_and_the_length_is_exact(rate, count, cuts):
    rng = np.random.default_rng(count)
    for samples in (
        rng.integers(-32768, 32767, count).astype(np.int16),
        rng.uniform(-1.2, 1.2, count).astype(np.float32),
    ):
        whole = resample(samples, rate)
        assert len(whole) == round(count * SAMPLE_RATE / rate)
        np.testing.assert_array_equal(resample(samples, rate, cuts), whole)


@pytest.mark.parametrize("rate", RATES + AWKWARD)
def test_a_tone_keeps_its_place_and_its_height(rate):
    hertz = rate / 16
    pcm = resample(sine(hertz, rate), rate)
    expected = 0.5 * 32768 * np.sin(2 * np.pi * hertz * np.arange(len(pcm)) / SAMPLE_RATE)
    inner = slice(400, -400)
    # Its height to 0.1 %; rounding adds at most one step.
    assert np.abs(pcm[inner] - expected[inner]).max() < 0.001 * 16384 + 1


@pytest.mark.parametrize("rate", RATES + AWKWARD)
def test_nothing_but_the_tone_is_heard(rate):
    """Images above the input's Nyquist frequency, and folding below the output's."""
    hertz = 0.4 * min(rate, SAMPLE_RATE)
    pcm = resample(sine(hertz, rate, 1.0), rate)[1000:21_000].astype(float)
    level = spectrum_db(pcm)
    bin_of_tone = round(hertz * len(pcm) / SAMPLE_RATE)
    level[bin_of_tone - 20 : bin_of_tone + 21] = -200
    assert level.max() < -60


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000, 96_000, 192_000])
def test_what_24_khz_cannot_hold_does_not_fold_back(rate):
    hertz = 14_000
    pcm = resample(sine(hertz, rate, 0.5), rate)[1000:-1000]
    assert np.abs(pcm).max() < 16384 * 10 ** (-60 / 20) + 1


def test_the_first_sound_needs_little_more_than_a_millisecond_of_look_ahead():
    given_ms = 20.0
    for rate in (16_000, 22_050, 44_100, 48_000):
        count = len(Resampler(rate).push(sine(440, rate, given_ms / 1000)))
        assert given_ms - 1000 * count / SAMPLE_RATE < 1.7
