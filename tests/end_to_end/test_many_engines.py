"""Several engines on one server: each has its own process, and what befalls one is its own affair.

``tests/engines/run`` has the engines that it installed join, over their tiny checkpoints: ENGINES
in the environment is a JSON map of names to entries of backends.yaml, their options as typed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from tests.end_to_end.conftest import Server, running
from tests.end_to_end.talking import Talk, talk
from voice_server.cli.console import parse_option

PLAIN = {"python": sys.executable, "load_timeout": 300}
JOINED = {
    name: {**entry, "options": dict(map(parse_option, entry["options"]))}
    for name, entry in json.loads(os.environ.get("ENGINES", "{}")).items()
}
BACKENDS = {"tone": PLAIN, "espeak": PLAIN, "babble": PLAIN, "chaos": PLAIN, **JOINED}
TEXTS = (
    "Every engine has a process of its own. Nobody hears what another one does.",
    "This is said at the same time. It is said to the end.",
    "And once more, while somebody falls.",
)
MISDEEDS = ("exit", "segfault", "garbage")
TURNS_BESIDE = 3  # of each engine, while chaos does all of its misdeeds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("engines")
    listed = yaml.safe_dump({"default": "tone", "backends": BACKENDS})
    with running(folder, *BACKENDS, yaml=listed) as server:
        for name in BACKENDS:
            server.call(server.service.pools[name].wait_ready(BACKENDS[name]["load_timeout"]))
        yield server


def said(server: Server, backend: str, text: str) -> Talk:
    """One turn on a socket of its own."""
    with talk(f"{server.ws}/stream-tokens") as listener:
        listener.send(backend=backend, seed=7)
        listener.send(token=text)
        listener.send(done=True)
        listener.until("done")
        return listener


def workers(server: Server, backend: str) -> set[int]:
    return {worker["pid"] for worker in server.service.pools[backend].snapshot()["workers"]}


@pytest.mark.timeout(900 if JOINED else 180)
def test_one_engine_crashes_again_and_again_and_no_other_one_notices(server: Server) -> None:
    calm = [name for name in BACKENDS if name != "chaos"]
    alone = {name: [said(server, name, text).sound for text in TEXTS] for name in calm}
    assert all(all(sounds) for sounds in alone.values()), "an engine is silent"
    before = {name: workers(server, name) for name in BACKENDS}

    def fall() -> list[tuple[Talk, Talk]]:
        """Each misdeed, and a word after it, by the worker that takes the place."""
        return [
            (said(server, "chaos", f"{word} once more."), said(server, "chaos", "All is well."))
            for word in MISDEEDS
        ]

    def go_on(name: str) -> list[tuple[bytes, list[dict]]]:
        turns = [said(server, name, TEXTS[n % len(TEXTS)]) for n in range(TURNS_BESIDE)]
        return [(turn.sound, turn.of("error")) for turn in turns]

    with ThreadPoolExecutor(len(BACKENDS)) as pool:
        falling = pool.submit(fall)
        going_on = {name: pool.submit(go_on, name) for name in calm}
        heard = {name: future.result() for name, future in going_on.items()}
        fallen = falling.result()

    assert all(fall.of("error") for fall, _ in fallen), "chaos did not do as it was told"
    assert not any(again.of("error") for _, again in fallen), "chaos did not get up"
    assert not before["chaos"] & workers(server, "chaos"), "nobody died, so nothing was shown"
    for name in calm:
        assert [errors for _, errors in heard[name]] == [[]] * TURNS_BESIDE, name
        for n, (sound, _) in enumerate(heard[name]):
            assert sound == alone[name][n % len(TEXTS)], f"{name} was disturbed"
        assert workers(server, name) == before[name], f"{name} lost a worker"


@pytest.mark.parametrize(
    ("asked", "status", "code", "says"),
    [
        ({"backend": "tone", "voice": "en-us+f3"}, 404, "unknown_voice", "'espeak' has it"),
        ({"backend": "espeak", "voice": "alto"}, 404, "unknown_voice", "'babble' has it"),
        ({"backend": "tone", "language": "de"}, 400, "unsupported_language", "it speaks en"),
        ({"backend": "babble", "language": "zh-CN"}, 400, "unsupported_language", "it speaks en"),
        ({"backend": "espeak", "language": "tlh"}, 400, "unsupported_language", "another backend"),
        ({"backend": "kokro"}, 404, "unknown_backend", "no backend named 'kokro' is running"),
    ],
)
def test_what_only_another_engine_can_do_is_refused_before_a_word_is_said(
    server: Server, asked: dict, status: int, code: str, says: str
) -> None:
    answer = httpx.post(f"{server.url}/tts", json={"text": "Hello.", **asked}, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert says in answer.json()["detail"]
    with talk(f"{server.ws}/stream-tokens") as listener:
        listener.send(**asked)  # and no more: the answer closes the socket
        error = listener.until("error")
        assert (error["code"], says in error["msg"]) == (code, True)


@pytest.mark.parametrize("backend", ["tone", "espeak", "babble"])
def test_a_sound_that_an_engine_cannot_make_is_never_read_aloud(
    server: Server, backend: str
) -> None:
    asked = said(server, backend, "Well, [sneeze] I never. [clears throat]")
    assert asked.sentences == said(server, backend, "Well, I never.").sentences
