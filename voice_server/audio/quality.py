"""Judges a recording as a sample to clone, and makes it ready: silence trimmed, loudness set.

Speech is found by energy against the quietest parts, in frames of 20 ms; loudness is that of
ITU-R BS.1770-4 with its gates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voice_server.audio.formats import SOURCE_RATE
from voice_server.core.errors import RequestError

Int16 = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]

FRAME = SOURCE_RATE // 50
TARGET_LUFS = -20.0
PEAK_LIMIT = 0.89  # -1 dBFS
MARGIN = SOURCE_RATE // 10  # of silence left before and after the speech
MIN_SPEECH_SECONDS = 1.0
_SILENCE_DB = -100.0
_QUIETEST_SPEECH_DB = -55.0
_HISS = 0.45  # spectral flatness above which a sound has no pitch and no formants


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured. Levels in dB full scale, ``loudness`` in LUFS, ``duration`` in seconds.

    ``clipping`` and ``speech_share`` are shares from 0 to 1. ``noise_floor`` is None when there
    is no pause to hear it in. ``warnings`` are sentences that each end with a suggestion.
    """

    duration: float
    peak: float
    loudness: float
    clipping: float
    noise_floor: float | None
    speech_share: float
    warnings: tuple[str, ...] = ()


def measure(pcm: Int16) -> Quality:
    """Measure int16 mono at 24 kHz. Raises RequestError for a recording that cannot work:
    ``silent_audio``, ``no_speech`` (hiss, or next to nothing in it).
    """
    if len(pcm) < FRAME:
        raise RequestError("the recording is empty; record again", code="silent_audio")
    levels = _frame_levels(pcm)
    peak = float(np.abs(pcm.astype(np.int32)).max(initial=0)) / 32768
    peak_db = _decibels(peak)
    if min(peak_db, float(levels.max())) < _QUIETEST_SPEECH_DB:
        raise RequestError(
            "the recording is silent; check the microphone and record again", code="silent_audio"
        )
    active = _active(levels)
    if active.any() and _flatness(pcm, active & (levels >= np.median(levels[active]))) > _HISS:
        raise RequestError(
            "the recording is noise without a voice in it; record again in a quiet room",
            code="no_speech",
        )
    quietest = levels <= np.percentile(levels, 10)
    if active.all() and _flatness(pcm, quietest) > _HISS:
        # The pauses are there, but full of noise.
        active = levels > np.percentile(levels, 10) + 6
    speech = float(active.sum()) * FRAME / SOURCE_RATE
    if speech < MIN_SPEECH_SECONDS:
        raise RequestError(
            f"only {speech:.1f} seconds of the recording hold sound; "
            f"at least {MIN_SPEECH_SECONDS:g} of speech are needed: record a longer sample",
            code="no_speech",
        )
    quality = Quality(
        duration=len(pcm) / SOURCE_RATE,
        peak=round(peak_db, 1),
        loudness=round(loudness(pcm), 1),
        clipping=round(_clipping(pcm), 5),
        noise_floor=_noise_floor(levels, active),
        speech_share=round(float(active.mean()), 3),
    )
    return Quality(
        **{name: getattr(quality, name) for name in Quality.__slots__ if name != "warnings"},
        warnings=tuple(_warnings(quality, _speech_level(levels, active))),
    )


def prepare(pcm: Int16) -> Int16:
    """Cut the silence at both ends but for 0.1 s, and bring the loudness to -20 LUFS.

    A recording whose peaks would clip is left quieter. Nothing inside it is changed.
    """
    sounding = np.flatnonzero(_active(_frame_levels(pcm)))
    if len(sounding):
        start = max(0, int(sounding[0]) * FRAME - MARGIN)
        pcm = pcm[start : (int(sounding[-1]) + 1) * FRAME + MARGIN]
    now = loudness(pcm)
    peak = float(np.abs(pcm.astype(np.int32)).max(initial=0)) / 32768
    if now <= _SILENCE_DB or not peak:
        return pcm
    gain = min(10 ** ((TARGET_LUFS - now) / 20), PEAK_LIMIT / peak)
    scaled: Int16 = np.rint(pcm.astype(np.float32) * gain).astype(np.int16)
    return scaled


def loudness(pcm: Int16) -> float:
    """Integrated loudness in LUFS; -100 for silence. Blocks of 400 ms, half overlapping."""
    block = SOURCE_RATE * 2 // 5
    hop = block // 2
    if len(pcm) < block:
        pcm = np.pad(pcm, (0, block - len(pcm)))
    weights = _k_weights(block)
    powers: list[float] = []
    for start in range(0, len(pcm) - block + 1, hop):
        spectrum = np.fft.rfft(pcm[start : start + block].astype(np.float64) / 32768)
        power = (np.abs(spectrum) ** 2) * weights
        # Parseval: a real signal's negative frequencies are the mirror of its positive ones.
        powers.append(float(2 * power.sum() - power[0] - power[-1]) / block**2)
    energy = np.array(powers)
    level = -0.691 + 10 * np.log10(np.maximum(energy, 1e-12))
    energy = energy[level > -70]
    if not len(energy):
        return _SILENCE_DB
    relative = -0.691 + 10 * np.log10(energy.mean()) - 10
    kept = energy[-0.691 + 10 * np.log10(energy) > relative]
    return float(-0.691 + 10 * np.log10(kept.mean()))


def _k_weights(size: int) -> Floats:
    """Power response of the K-weighting for each bin of an rfft of ``size`` (BS.1770-4, annex 1).

    The standard gives the filters for 48 kHz; their response there is what counts at any rate.
    """
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size, 1 / SOURCE_RATE) / 48_000)
    shelf = (1.53512485958697 - 2.69169618940638 * z + 1.19839281085285 * z**2) / (
        1 - 1.69065929318241 * z + 0.73248077421585 * z**2
    )
    high_pass = (1 - 2 * z + z**2) / (1 - 1.99004745483398 * z + 0.99007225036621 * z**2)
    weights: Floats = np.abs(shelf * high_pass) ** 2
    return weights


def _decibels(amplitude: float) -> float:
    return float(20 * np.log10(max(amplitude, 1e-5)))


def _frame_levels(pcm: Int16) -> Floats:
    """RMS of each 20 ms, in dB full scale. A constant offset is no sound."""
    whole = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32)
    rms: Floats = whole.std(axis=1).astype(np.float64) / 32768
    return 20 * np.log10(np.maximum(rms, 1e-5))


def _active(levels: Floats) -> npt.NDArray[np.bool_]:
    """Which frames hold sound: well above the quietest tenth, unless everything is equally loud."""
    if not len(levels):
        return np.zeros(0, np.bool_)
    floor, loud = np.percentile(levels, 10), np.percentile(levels, 95)
    threshold = max(_QUIETEST_SPEECH_DB, min(floor + 9, loud - 20))
    active: npt.NDArray[np.bool_] = levels > threshold
    # A pause shorter than 0.2 s belongs to the speech around it.
    sounding = np.flatnonzero(active)
    for left, right in itertools.pairwise(sounding):
        if 1 < right - left <= 10:
            active[left:right] = True
    return active


def _noise_floor(levels: Floats, active: npt.NDArray[np.bool_]) -> float | None:
    quiet = levels[~active]
    return round(float(np.median(quiet)), 1) if len(quiet) >= 5 else None


def _speech_level(levels: Floats, active: npt.NDArray[np.bool_]) -> float:
    return float(10 * np.log10((10 ** (levels[active] / 10)).mean()))


def _clipping(pcm: Int16) -> float:
    """Share of samples that stand at the rail beside another that does."""
    if len(pcm) < 2:
        return 0.0
    rail = (pcm >= 32_700) | (pcm <= -32_700)
    return float((rail[1:] & rail[:-1]).mean())


def _flatness(pcm: Int16, chosen: npt.NDArray[np.bool_]) -> float:
    """Median spectral flatness of the chosen frames: about 0.56 for hiss, under 0.3 for speech."""
    frames = pcm[: len(chosen) * FRAME].reshape(-1, FRAME)[chosen]
    step = max(1, len(frames) // 500)
    spectrum = np.abs(np.fft.rfft(frames[::step] * np.hanning(FRAME), axis=1)[:, 2:200]) ** 2 + 1e-3
    flatness = np.exp(np.log(spectrum).mean(axis=1)) / spectrum.mean(axis=1)
    return float(np.median(flatness))


def _warnings(quality: Quality, speech_level: float) -> list[str]:
    found = []
    if quality.duration < 5:
        found.append(f"it is short ({quality.duration:.1f} s): 6 to 15 seconds clone better")
    if quality.duration > 60:
        found.append(
            f"it is long ({quality.duration:.0f} s): engines use the first 10 to 30 seconds; "
            "keep the best part"
        )
    if quality.clipping > 0.0005:
        found.append("it clips: record again at a lower level")
    if quality.loudness < -40:
        found.append("it was very quiet: record nearer to the microphone")
    if quality.noise_floor is not None and speech_level - quality.noise_floor < 20:
        found.append(
            f"there is noise only {speech_level - quality.noise_floor:.0f} dB below the voice: "
            "record in a quieter room"
        )
    if quality.speech_share < 0.5:
        found.append(
            f"only {quality.speech_share:.0%} of it is speech: trim the pauses, or choose "
            "a part with more speech"
        )
    return found
