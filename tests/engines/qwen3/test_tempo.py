"""The tempo filter: another length, the same pitch, no clicks, however the sound is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen3_engine.tempo import Tempo

RATE = 24_000


def hum(seconds=1.0, pitch=180.0):
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def stretched(sound, speed, sizes=(1920,)):
    tempo, parts, at, turn = Tempo(speed), [], 0, 0
    while at < len(sound):
        size = sizes[turn % len(sizes)]
        parts.append(tempo.push(sound[at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*parts, tempo.flush()])


def test_speed_one_passes_every_sample_untouched():
    sound = hum()
    assert np.array_equal(stretched(sound, 1.0), sound)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.5, 2.0).filter(lambda speed: speed != 1.0),
    st.lists(st.integers(1, 5000), min_size=1, max_size=6),
    st.floats(0.01, 1.0),
)
def test_the_result_does_not_depend_on_how_the_sound_was_cut(speed, sizes, seconds):
    sound = hum(seconds)
    whole = stretched(sound, speed, (len(sound),))
    assert np.array_equal(stretched(sound, speed, sizes), whole)
    assert abs(len(whole) - len(sound) / speed) <= 2


@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
def test_the_pitch_stays_and_nothing_clicks(speed):
    sound = hum(2.0)
    made = stretched(sound, speed)
    middle = made[RATE // 4 : RATE // 4 + RATE // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(np.argmax(spectrum) * RATE / len(middle) - 180) < 3
    # A step between samples larger than the sine's own steepest one would be heard.
    assert np.abs(np.diff(middle)).max() < 1.3 * np.abs(np.diff(sound)).max()
    loudness = np.sqrt(np.mean(middle**2)) / np.sqrt(np.mean(sound**2))
    assert 0.9 < loudness < 1.1


def test_sound_comes_out_while_it_goes_in():
    tempo, made = Tempo(1.5), 0
    for _ in range(10):
        made += len(tempo.push(hum(0.08)))
    assert made > 0.7 * 10 * 1920 / 1.5


def test_nothing_in_gives_nothing_out():
    assert len(Tempo(1.5).flush()) == 0
