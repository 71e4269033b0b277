"""Recordings made of tones, hiss and silence, judged as samples to clone."""

from __future__ import annotations

import numpy as np
import pytest

from voice_server.audio.quality import TARGET_LUFS, loudness, measure, prepare
from voice_server.core.errors import RequestError

RATE = 24_000


def tone(seconds: float, pitch: float = 200.0, level: float = 0.3) -> np.ndarray:
    """Harmonics of a voice, switched on and off four times a second as syllables are."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in range(1, 6)) / 1.7
    return (wave * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)) * level * 32767).astype(np.int16)


def hiss(seconds: float, level: float) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(int(seconds * RATE))
    return np.clip(noise * level * 32767, -32768, 32767).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.int16)


def test_a_good_recording_has_no_warnings() -> None:
    quality = measure(np.concatenate([silence(0.3), tone(8), silence(0.3)]) + hiss(8.6, 0.0005))
    assert quality.warnings == ()
    assert quality.duration == pytest.approx(8.6)
    assert 0.85 < quality.speech_share <= 1.0
    assert quality.noise_floor == pytest.approx(-66, abs=2)
    assert quality.clipping == 0


def test_the_loudness_of_a_reference_tone_is_that_of_the_standard() -> None:
    """BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS."""
    t = np.arange(RATE * 3) / RATE
    sine = (np.sin(2 * np.pi * 997 * t) * 32767).astype(np.int16)
    assert loudness(sine) == pytest.approx(-3.01, abs=0.1)
    assert loudness(sine // 10) == pytest.approx(-23.01, abs=0.1)
    # The gates leave silence out of it.
    assert loudness(np.concatenate([sine, silence(9)])) == pytest.approx(-3.01, abs=0.5)


@pytest.mark.parametrize("pcm", [silence(3), hiss(3, 0.0002), silence(3) - 32_767])
def test_a_silent_recording_is_refused(pcm: np.ndarray) -> None:
    with pytest.raises(RequestError, match="check the microphone") as caught:
        measure(pcm)
    assert caught.value.code == "silent_audio"


def test_an_offset_is_no_sound() -> None:
    """Cheap sound cards add one; its pauses are pauses all the same."""
    pcm = np.concatenate([silence(2), tone(4), silence(2)])
    assert (
        measure(pcm + 3_000).speech_share
        == measure(pcm).speech_share
        == pytest.approx(0.5, abs=0.05)
    )
    assert len(prepare(pcm + 3_000)) == len(prepare(pcm))


def test_hiss_is_refused_as_noise() -> None:
    with pytest.raises(RequestError, match="noise without a voice") as caught:
        measure(hiss(4, 0.1))
    assert caught.value.code == "no_speech"


def test_half_a_second_of_speech_is_refused() -> None:
    with pytest.raises(RequestError, match=r"0\.\d seconds of the recording") as caught:
        measure(np.concatenate([silence(2), tone(0.5), silence(2)]))
    assert caught.value.code == "no_speech"


@pytest.mark.parametrize(
    ("pcm", "words"),
    [
        (tone(3), "short"),
        (tone(70), "long"),
        (np.clip(tone(8, level=0.9).astype(int) * 6, -32768, 32767).astype(np.int16), "clips"),
        (tone(8, level=0.004), "very quiet"),
        (np.concatenate([silence(2), tone(8), silence(2)]) + hiss(12, 0.06), "noise only"),
        (np.concatenate([tone(3), silence(8), tone(2)]), "only 3"),
    ],
)
def test_each_weakness_is_a_warning_with_a_suggestion(pcm: np.ndarray, words: str) -> None:
    assert any(words in warning and ":" in warning for warning in measure(pcm).warnings)


def test_silence_is_cut_at_the_ends_and_nowhere_else() -> None:
    pcm = np.concatenate([silence(3), tone(2), silence(1), tone(2), silence(4)])
    assert len(prepare(pcm)) / RATE == pytest.approx(5.2, abs=0.15)


@pytest.mark.parametrize("level", [0.01, 0.3])
def test_the_loudness_is_set(level: float) -> None:
    assert loudness(prepare(tone(5, level=level))) == pytest.approx(TARGET_LUFS, abs=0.5)


def test_a_quiet_recording_with_a_loud_peak_is_not_made_to_clip() -> None:
    pcm = tone(5, level=0.01)
    pcm[60_000:60_040] = 20_000
    assert np.abs(prepare(pcm).astype(int)).max() < 32_000


def test_preparing_keeps_the_pitch() -> None:
    pcm = prepare(np.concatenate([silence(1), tone(4, pitch=180)])).astype(float)
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    assert np.argmax(spectrum) * RATE / len(pcm) == pytest.approx(180, abs=1)


def test_preparing_twice_changes_nothing_more() -> None:
    once = prepare(np.concatenate([silence(1), tone(4)]))
    assert np.abs(prepare(once).astype(int) - once).max() <= 400
    assert len(prepare(once)) == len(once)
