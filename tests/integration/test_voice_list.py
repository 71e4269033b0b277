"""The list of voices: what it says of each is of that voice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.stored import new, open_catalogue, voice
from voice_server.storage.voice_files import NewSample
from voice_server.web.voices import every_voice
from voice_worker.backend import BackendInfo

pytestmark = pytest.mark.anyio


def lasting(seconds: float, sample_id: str) -> NewSample:
    return dataclasses.replace(new(sample_id), duration=seconds)


async def test_a_recording_too_short_for_a_backend_says_nothing_of_longer_ones(
    tmp_path: Path,
) -> None:
    patient = BackendInfo(sample_rate=24_000, clones=True, min_sample_seconds=5.0)
    quick = BackendInfo(sample_rate=24_000, clones=True)
    pools = {"patient": SimpleNamespace(info=patient), "quick": SimpleNamespace(info=quick)}
    async with open_catalogue(tmp_path) as catalogue:
        await catalogue.create(voice("long", "Long"), [lasting(9.0, "a")])
        await catalogue.create(voice("short", "Short"), [lasting(2.0, "b")])
        await catalogue.create(voice("long_again", "Again"), [lasting(9.0, "c")])
        found = every_voice(cast(Any, SimpleNamespace(pools=pools)), catalogue)
    assert {v.id: able for v, able in found} == {
        "long": ["patient", "quick"],
        "short": ["quick"],
        "long_again": ["patient", "quick"],
    }
