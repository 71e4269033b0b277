"""What can be known of a backend without starting it, in every state in which one is found."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from voice_server.config import load_config
from voice_server.workers.environments import Environment
from voice_server.workers.inspection import missing_weights, why_not_runnable
from voice_worker.messages import PROTOCOL_VERSION

REQUIREMENTS = "numpy==2.2.6\nmsgpack==1.1.2\n"
Make = Callable[..., Environment]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A backend ``mini`` with these keys in backends.yaml and these requirements."""

    def environment(requirements: str = REQUIREMENTS, **keys: Any) -> Environment:
        home = tmp_path / "backends" / "mini"
        home.mkdir(parents=True, exist_ok=True)
        (home / "backend.py").write_text("print()", "utf-8")
        (home / "requirements.txt").write_text(requirements, "utf-8")
        listed = {"default": "mini", "backends": {"mini": keys}}
        (tmp_path / "backends.yaml").write_text(yaml.safe_dump(listed), "utf-8")
        return Environment("mini", load_config(backends_file=tmp_path / "backends.yaml"))

    return environment


def pretend_installed(environment: Environment, *, with_packages: bool) -> None:
    """A venv with the state that an install writes last, and what it should hold or not."""
    assert environment.venv is not None
    assert environment.requirements is not None
    command = [sys.executable, "-m", "venv", "--without-pip", environment.venv]
    subprocess.run([*command, *["--system-site-packages"] * with_packages], check=True)
    if with_packages:
        # A venv of a venv sees the packages of the first one's base, not of the first one.
        for package in Path(sys.executable).parents[1].glob("lib/python*/site-packages/*"):
            (next(environment.venv.glob("lib/python*/site-packages")) / package.name).symlink_to(
                package
            )
    digest = hashlib.sha256(environment.requirements.read_bytes()).hexdigest()
    state = {"requirements": digest, "python": "3.11.1", "protocol": PROTOCOL_VERSION}
    (environment.venv / "installed.json").write_text(json.dumps(state), "utf-8")


def interpreter(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def test_one_that_was_never_installed_says_how(make: Make) -> None:
    assert "run `cli.py backends install mini`" in str(why_not_runnable(make()))


def test_one_that_is_whole_can_run(make: Make) -> None:
    environment = make("numpy==2.2.6\n# a remark\nmsgpack==1.1.2 \\\n    --hash=sha256:00\n")
    pretend_installed(environment, with_packages=True)
    assert why_not_runnable(environment) is None


def test_one_that_lost_its_packages_is_half_installed(make: Make) -> None:
    environment = make(REQUIREMENTS + "torch[all]==2.0\nuvloop==1.0; sys_platform == 'x'\n")
    pretend_installed(environment, with_packages=False)
    assert environment.health() is None  # which believes what the install wrote
    assert why_not_runnable(environment) == (
        "its interpreter lacks msgpack, numpy, torch: run `cli.py backends install mini --force`"
    )


def test_one_that_is_being_installed_is_waited_for(make: Make) -> None:
    environment = make()
    assert environment.venv is not None
    environment.venv.mkdir()
    with open(environment.venv / "install.lock", "w", encoding="utf-8") as lock:
        lock.write("process 12")
        lock.flush()
        assert "its install was interrupted" in str(environment.health())
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert why_not_runnable(environment) == "process 12 is installing it: wait for that"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '[[3, 8], []]'", "is Python 3.8, and it needs Python 3.10 or newer: install"),
        ("echo '[[3, 12], [\"numpy\"]]'", "lacks numpy: install it there, or name another"),
        ("exit 1", "does not run"),
        ("kill -9 $$", "does not run"),
        ("echo nonsense", "does not run"),
    ],
)
def test_an_interpreter_of_somebodys_own_is_tried(
    make: Make, tmp_path: Path, script: str, says: str
) -> None:
    environment = make(python=interpreter(tmp_path, script))
    assert says in str(why_not_runnable(environment))


def test_this_interpreter_can_run_a_worker(make: Make) -> None:
    assert why_not_runnable(make("torch==99\n", python=sys.executable)) is None


def test_a_folder_without_weights_is_told(make: Make, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    environment = make(options={"model": str(weights)})
    assert missing_weights(environment) == f"no weights in {weights}"
    weights.mkdir()
    assert missing_weights(environment) is None


@pytest.mark.parametrize("where", ["option", "file"])
def test_weights_that_are_yet_to_be_fetched_are_told(
    make: Make, tmp_path: Path, where: str
) -> None:
    model = {"options": {"model": "Some-Body/some.model"}} if where == "option" else {}
    environment = make(env={"HF_HOME": str(tmp_path / "hub")}, **model)
    assert environment.entry is not None
    if where == "file":
        environment.entry.with_name("weights.txt").write_text("Some-Body/some.model\n", "utf-8")
    assert missing_weights(environment) == "fetches Some-Body/some.model on first use"
    snapshot = tmp_path / "hub" / "hub" / "models--Some-Body--some.model" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert missing_weights(environment) is not None  # a folder is made before its files
    (snapshot / "model.safetensors").touch()
    assert missing_weights(environment) is None


def test_an_engine_without_weights_lacks_none(make: Make) -> None:
    assert missing_weights(make()) is None
    assert missing_weights(make(options={"model": "base"})) is None
