"""Builds a backend's venv: with uv where there is one, else with ``venv`` and pip.

Nothing here knows what "installed" means; environments.py does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voice_server.core.errors import BackendNotInstalled

Progress = Callable[[str], None]

# What the installers print when it is not the package's fault → what to tell instead.
CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("dns error", "failed to lookup", "name resolution", "name or service not known"),
        "the package index cannot be found: connect to the network, or set PIP_FIND_LINKS to a"
        " folder of wheels",
    ),
    (
        (
            *("connection refused", "network is unreachable", "no route to host"),
            *("timed out", "error sending request", "failed to establish a new connection"),
            *("connectionerror", "client error (connect)"),
        ),
        "the package index does not answer: connect to the network, or set PIP_FIND_LINKS to a"
        " folder of wheels",
    ),
    (("no space left",), "the disk is full: make room"),
    (
        ("ensurepip",),
        "this Python cannot make a venv: install the system's python3-venv package, or uv",
    ),
    (
        ("no interpreter found", "requires-python", "requires a different python"),
        "it needs another Python: set python_version in backends.yaml",
    ),
)


@dataclass(frozen=True)
class Installer:
    """How venvs are built. ``uv`` is its program; None means ``python -m venv`` and pip."""

    uv: Path | None

    @classmethod
    def find(cls) -> Installer:
        """uv where it is installed beside this Python or on PATH, else pip."""
        try:
            import uv

            return cls(Path(uv.find_uv_bin()))
        except (ImportError, FileNotFoundError):
            found = shutil.which("uv")
            return cls(Path(found) if found else None)

    @property
    def name(self) -> str:
        return "uv" if self.uv else "pip"

    def create(self, venv: Path, python_version: str | None, run: Run) -> None:
        """Make a venv in the folder ``venv``, which may exist. Raises BackendNotInstalled."""
        if self.uv:
            python = python_version or sys.executable
            run(
                [
                    str(self.uv),
                    "venv",
                    "--quiet",
                    "--no-project",
                    "--allow-existing",
                    "-p",
                    python,
                    str(venv),
                ]
            )
        else:
            run([_python(python_version), "-m", "venv", str(venv)])

    def install(
        self, python: Path, requirements: Path, run: Run, *, with_dependencies: bool = True
    ) -> None:
        """Install a pinned requirements.txt for ``python``. Raises BackendNotInstalled."""
        if self.uv:
            links = os.environ.get("PIP_FIND_LINKS", "").split()
            index = ["--no-index"] if os.environ.get("PIP_NO_INDEX") else []
            command = [str(self.uv), "pip", "install", "--compile-bytecode", "-p", str(python)]
            command += [*index, *(f"--find-links={link}" for link in links)]
        else:
            command = [str(python), "-m", "pip", "install", "--progress-bar", "off"]
        bare = [] if with_dependencies else ["--no-deps"]
        run([*command, *bare, "-r", str(requirements)])


@dataclass(frozen=True)
class Run:
    """Runs the installer's commands: tells each line, keeps them in ``log``.

    ``held`` is a descriptor that the command inherits, so that a lock on it is held until the
    command too is gone, even when this process is killed.
    """

    backend: str
    progress: Progress
    log: Path
    held: int

    def __call__(self, command: Sequence[str]) -> None:
        """Raises BackendNotInstalled with the cause in one line and where the rest is."""
        last: deque[str] = deque(maxlen=200)
        with open(self.log, "a", encoding="utf-8") as log:
            print("$", *command, file=log)
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=_environment(),
                pass_fds=(self.held,),
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    if line := line.strip():
                        last.append(line)
                        self.progress(line)
        if process.returncode:
            raise BackendNotInstalled(
                f"{self.backend} › {_cause(last)}; then run `cli.py backends install"
                f" {self.backend}` (everything it said: {self.log})"
            )


def _environment() -> dict[str, str]:
    """This process's environment without what would point the installers at another Python."""
    misleading = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET")
    kept = {name: value for name, value in os.environ.items() if name not in misleading}
    # Few retries: without a network the answer comes within seconds.
    quick = {"UV_HTTP_RETRIES": "2", "UV_HTTP_CONNECT_TIMEOUT": "5", "PIP_RETRIES": "2"}
    fixed = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}
    # On a busy machine compiling takes minutes, which is no reason to give up.
    quick["UV_COMPILE_BYTECODE_TIMEOUT"] = "0"
    return {**quick, **kept, **fixed}


def _python(version: str | None) -> str:
    if version is None:
        return sys.executable
    found = shutil.which("python" + ".".join(version.split(".")[:2]))
    if found is None:
        raise BackendNotInstalled(
            f"no Python {version} on PATH: install it, or uv, which finds one"
        )
    return found


def _cause(lines: Sequence[str]) -> str:
    said = "\n".join(lines).lower()
    for signs, remedy in CAUSES:
        if any(sign in said for sign in signs):
            return remedy
    errors = [
        line for line in lines if line.lower().startswith(("error", "×", "╰", "because", "cause:"))
    ]
    told = " ".join(errors or list(lines)[-1:]).removeprefix("error: ").removeprefix("ERROR: ")
    return f"installing failed: {told[:300] or 'the installer said nothing'}"
