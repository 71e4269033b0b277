"""An engine over a tiny checkpoint, behind the real server: for the tests in */server.

They run in the server's environment. ``tests/engines/run`` names the engine's interpreter in
ENGINE_PYTHON; without it there is nothing to test there, and nothing is collected.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from tests.end_to_end import conftest, talking
from tests.end_to_end.conftest import Server, running, wait_until
from tests.end_to_end.talking import Talk, talk
from tests.recordings import record

PYTHON = os.environ.get("ENGINE_PYTHON", "")
UNCOLLECTED = [] if PYTHON else ["test_*.py"]
HERE = Path(__file__).resolve().parent
TOKENS = ["the ", "quick ", "brown ", "fox. ", "It ", "jumps ", "over ", "the ", "lazy ", "dog."]

# Engines take their time on a busy machine.
talking.PATIENCE = conftest.PATIENCE = 120.0


def furnish(
    name: str,
    folder: Path,
    *kinds: str,
    script: str = "checkpoint.py",
    options: str = "",
    more: str = "",
) -> Path:
    """``folder`` with a backends.yaml whose only backend is ``name``, over the checkpoint of these
    ``kinds`` that the engine's ``script`` writes. ``options``, ``more``: of its entry.
    """
    command = [PYTHON, HERE / name / script, folder / "checkpoint", *kinds]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    yaml = f"""
default: {name}
backends:
  {name}:
    python: {PYTHON}
    load_timeout: 240
    first_chunk_timeout: 120
    gap_timeout: 120
    options: {{model: {folder / "checkpoint"}, {options}}}
    {more}
"""
    (folder / "backends.yaml").write_text(yaml)
    return folder


@contextmanager
def serving(name: str, folder: Path) -> Iterator[Server]:
    """A server over ``name`` in a furnished folder; warm."""
    with running(folder, name, yaml=(folder / "backends.yaml").read_text()) as server:
        server.wait_ready()
        yield server


def told(server: Server, tokens: Sequence[str] = TOKENS, **opening: Any) -> Talk:
    """One whole turn; the client closes nothing before the server does."""
    with talk(f"{server.ws}/stream-tokens") as agent:
        # What it refuses it refuses at once, perhaps while we are still sending.
        with suppress(ConnectionClosed):
            agent.send(**opening)
            agent.tokens(*tokens)
            agent.send(done=True)
        agent.until_closed()
        return agent


def cancel_inside_a_segment(server: Server, voice: str) -> None:
    """The turn ends, the connection speaks the next one, and nothing is left running."""
    with talk(f"{server.ws}/stream-tokens") as agent:
        agent.send(voice=voice, keep_open=True)
        agent.tokens(*["and on and on "] * 40, "it goes.")
        agent.send(flush=True)
        agent.until("audio")
        agent.send(cancel=True)
        agent.until("cancelled")
        agent.tokens("Hello.")
        agent.send(done=True)
        agent.until("done")
    server.wait_quiet()


def drop(server: Server, name: str, pitch: float) -> None:
    """Put a recording into the folder of samples, and wait until ``name`` is a voice."""
    folder = server.config.settings.voice_samples_dir
    folder.mkdir(exist_ok=True)
    record(folder / f"{name}.wav", 4.0, pitch=pitch)
    wait_until(lambda: not told(server, voice=name, seed=1).of("error"))
