"""What can be known of a backend without starting it: its interpreter, its packages, its weights.

``Environment.health`` believes installed.json and costs nothing. This looks, and costs a start of
Python for each backend; ``backends list`` tells what it finds.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from voice_server.workers.environments import BARE_REQUIREMENTS, Environment, worker_spec
from voice_server.workers.pythons import Pythons

WEIGHTS: Final = "weights.txt"
NEEDED: Final = ("numpy", "msgpack")  # by voice_worker
PATIENCE: Final = 20.0  # seconds; an interpreter on a sleeping disk
MOST_NAMED: Final = 3

_PROBE: Final = """
import json, sys
missing = []
if sys.version_info >= (3, 8):
    from importlib.metadata import PackageNotFoundError, version
    for name in sys.argv[1:]:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
print(json.dumps([list(sys.version_info[:2]), missing]))
"""
# name[extras]==version, perhaps with a line of hashes to follow
_PINNED: Final = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*==\s*[^\s;]+\s*(?:\\)?")
_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+")


def why_not_runnable(environment: Environment) -> str | None:
    """Why its workers cannot run, in words that name the remedy, or None: ``health``, and a look
    at the interpreter and at what is installed beside it."""
    if reason := environment.health():
        return reason
    remedy = f"run `cli.py backends install {environment.name} --force`"
    names = {*NEEDED, *_pinned(environment)}
    if environment.venv is None:
        names, remedy = set(NEEDED), "install it there, or name another in backends.yaml"
    try:
        done = subprocess.run(
            [environment.python, "-I", "-c", _PROBE, *sorted(names)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=worker_spec(environment).environment(),
        )
        python, missing = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return f"its interpreter {environment.python} does not run: {remedy}"
    if python not in (pythons := Pythons.beside(environment.requirements)):
        found = ".".join(map(str, python))
        return f"its interpreter is Python {found}, and it needs {pythons}: {remedy}"
    if missing:
        named = ", ".join(missing[:MOST_NAMED])
        more = f" and {len(missing) - MOST_NAMED} more" * (len(missing) > MOST_NAMED)
        return f"its interpreter lacks {named}{more}: {remedy}"
    return None


def missing_weights(environment: Environment) -> str | None:
    """Which weights are not on this disk, as far as can be known, or None.

    A folder under ``options: model:`` is looked for; a repository there, or in the weights.txt
    beside the adapter, is looked for in the hub's cache. Half of a repository counts as there.
    """
    model = environment.config.options.get("model")
    if isinstance(model, str) and (model.startswith(("/", ".", "~")) or Path(model).exists()):
        return None if Path(model).expanduser().exists() else f"no weights in {model}"
    repositories = [model] if isinstance(model, str) and _REPOSITORY.fullmatch(model) else []
    if model is None and environment.entry is not None:
        repositories = _lines(environment.entry.with_name(WEIGHTS))
    cache = _hub_cache(worker_spec(environment).environment())
    absent = [name for name in repositories if not _is_cached(cache, name)]
    return f"fetches {' and '.join(absent)} on first use" if absent else None


def _pinned(environment: Environment) -> list[str]:
    """Names of the packages in its requirements. Lines with conditions are left out."""
    if environment.requirements is None:
        return []
    files = (environment.requirements, environment.requirements.with_name(BARE_REQUIREMENTS))
    found = (_PINNED.fullmatch(line) for file in files for line in _lines(file))
    return [match[1] for match in found if match]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def _hub_cache(env: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it fetched (its documentation, "Environment variables")."""
    home = env.get("XDG_CACHE_HOME") or "~/.cache"
    hub = env.get("HF_HUB_CACHE") or f"{env.get('HF_HOME') or f'{home}/huggingface'}/hub"
    return Path(hub).expanduser()


def _is_cached(cache: Path, repository: str) -> bool:
    snapshots = cache / f"models--{repository.replace('/', '--')}" / "snapshots"
    return any(snapshots.glob("*/*"))
