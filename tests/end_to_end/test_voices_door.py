"""``GET /voices``: what is made, what is dropped into the folder, what backends bring along."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from tests.end_to_end.conftest import Server, wait_until
from tests.end_to_end.talking import talk
from tests.recordings import pitch_of, wav
from voice_server.core.voices import Sample, Voice


def listed(http: httpx.Client, **query: Any) -> dict[str, dict[str, Any]]:
    answer = http.get("/voices", params=query)
    assert answer.status_code == 200, answer.text
    return {voice["id"]: voice for voice in answer.json()["voices"]}


@pytest.fixture
def crowd(server: Server) -> Iterator[int]:
    """Ten thousand voices in the catalogue."""
    sample = Sample("s", "/nowhere.wav", "0" * 64)
    voices = [
        Voice(
            id=f"crowd_{n}",
            name=f"Member {n}",
            kind="cloned",
            language="pt-BR" if n % 2 else "en",
            samples=(sample,),
            tags=("loud",) if n == 7_777 else (),
            created_at=f"2026-01-01T00:00:{n:05}Z",
        )
        for n in range(10_000)
    ]
    index = server.service.catalogue._index

    async def fill() -> None:
        for voice in voices:
            index.put(voice)

    async def clear() -> None:
        for voice in voices:
            index.discard(voice.id)

    server.call(fill())
    yield len(voices)
    server.call(clear())


def test_the_voices_of_every_backend_are_listed(http: httpx.Client) -> None:
    voices = listed(http)
    assert voices["low"]["backends"] == ["tone"]
    assert voices["alto"]["backends"] == ["babble"]
    assert voices["en-us"]["backends"] == ["espeak"]
    assert voices["low"]["kind"] == "builtin"
    assert len(voices) > 140


def test_voices_are_found_by_backend_language_kind_and_words(http: httpx.Client) -> None:
    assert set(listed(http, backend="tone")) == {"low", "high"}
    english = listed(http, language="en", backend="espeak")
    assert "en-us" in english
    assert all(v["language"].lower().split("-")[0] == "en" for v in english.values())
    assert not listed(http, kind="designed")
    assert set(listed(http, search="ALT", backend="babble")) == {"alto"}
    assert not listed(http, search="no such voice anywhere")


def test_a_page_is_a_part_of_the_whole(http: httpx.Client) -> None:
    every = http.get("/voices").json()
    first = http.get("/voices", params={"limit": 3}).json()
    second = http.get("/voices", params={"limit": 3, "offset": 3}).json()
    assert first["total"] == second["total"] == every["total"]
    assert first["voices"] + second["voices"] == every["voices"][:6]
    assert http.get("/voices", params={"offset": 10**9}).json()["voices"] == []


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({"backend": "nothing"}, 404, "known: babble"),
        ({"kind": "strange"}, 422, "kind › expected one of"),
        ({"limit": "0"}, 422, "limit › expected an integer from 1 to 1000"),
        ({"limit": "many"}, 422, "limit › "),
        ({"offset": "-1"}, 422, "offset › "),
        ({"languge": "en"}, 422, "did you mean 'language'"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(
    http: httpx.Client, query: dict[str, str], status: int, says: str
) -> None:
    answer = http.get("/voices", params=query)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_ten_thousand_voices_are_paged_and_searched(http: httpx.Client, crowd: int) -> None:
    page = http.get("/voices", params={"limit": 50, "kind": "cloned"}).json()
    assert page["total"] == crowd
    assert [voice["id"] for voice in page["voices"]][:2] == ["crowd_9999", "crowd_9998"]
    assert page["voices"][0]["backends"] == ["tone", "babble"]
    last = http.get("/voices", params={"kind": "cloned", "offset": crowd - 1}).json()
    assert [voice["id"] for voice in last["voices"]] == ["crowd_0"]
    assert set(listed(http, search="loud")) == {"crowd_7777"}
    assert set(listed(http, search="member 1234", kind="cloned")) == {"crowd_1234"}
    half = http.get("/voices", params={"language": "pt", "kind": "cloned", "limit": 1}).json()
    assert half["total"] == crowd // 2


def test_a_file_dropped_into_the_folder_is_a_voice_for_those_that_clone(
    server: Server, http: httpx.Client
) -> None:
    folder = server.config.settings.voice_samples_dir
    (folder / "Obama.wav").write_bytes(wav(3, pitch=233.0))
    (folder / "broken.mp3").write_bytes(b"no sound at all")
    wait_until(lambda: "obama" in listed(http, kind="dropped"))
    voice = listed(http)["obama"]
    assert (voice["name"], voice["backends"]) == ("Obama", ["tone", "babble"])
    wait_until(lambda: http.get("/voices").json()["problems"])
    [problem] = http.get("/voices").json()["problems"]
    assert problem["file"] == "broken.mp3"
    assert problem["reason"]
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice="obama", opts={"speed": 0.25})
        agent.send(token="One two three four five.", done=True)
        assert agent.until_closed() == 1000
    assert pitch_of(np.frombuffer(agent.sound, np.int16)) == pytest.approx(233.0, rel=0.05)
    refused = http.post("/tts", json={"text": "Hello.", "voice": "obama", "backend": "espeak"})
    assert refused.json()["code"] == "voice_not_supported"
    for file in ("Obama.wav", "broken.mp3"):
        (folder / file).unlink()
    wait_until(lambda: "obama" not in listed(http))
    wait_until(lambda: not http.get("/voices").json()["problems"])


def test_a_voice_of_the_catalogue_comes_before_those_that_are_built_in(
    server: Server, http: httpx.Client
) -> None:
    index = server.service.catalogue._index
    maya = Voice(id="maya", name="Maya", kind="designed", design="a warm voice")

    async def put(voice: Voice) -> None:
        index.put(voice)

    async def discard() -> None:
        index.discard("maya")

    server.call(put(replace(maya, description="reads news")))
    try:
        first = http.get("/voices", params={"limit": 1}).json()["voices"][0]
        assert (first["id"], first["description"]) == ("maya", "reads news")
        assert first["backends"] == ["babble"]  # the one that designs
    finally:
        server.call(discard())
