"""Where each backend lives: its adapter, its venv, whether that is installed, and installing it.

A venv counts as installed only by its installed.json, which is written last:

    nothing ─install→ locked, wiped ─→ built ─→ greeted (Hello) ─→ installed.json
       ↑                     └──── killed or failed at any point ────┐
       └──────────── "interrupted": the next install wipes it ───────┘
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from voice_server.config import CHECKOUT, Config
from voice_server.core.errors import BackendNotInstalled, ConfigError
from voice_server.workers.installer import Installer, Progress, Run
from voice_server.workers.process import BOOTSTRAP, WorkerSpec
from voice_server.workers.pythons import Pythons
from voice_server.workers.scratch import Scratch
from voice_worker import messages as m
from voice_worker.protocol import Connection, ProtocolError, Role

ADAPTER, REQUIREMENTS = "backend.py", "requirements.txt"
# Beside it, for packages whose own pins are too narrow: installed after it, without dependencies.
BARE_REQUIREMENTS = "requirements-no-deps.txt"
STATE, LOCK, LOG = "installed.json", "install.lock", "install.log"


def say_nothing(_line: str) -> None:
    """Progress for those who want none."""


@dataclass(frozen=True)
class InstalledState:
    """What installed.json holds: what the venv was built from."""

    requirements: str
    python: str
    protocol: int

    @classmethod
    def read(cls, path: Path) -> InstalledState | None:
        """None where there is no such file, or it makes no sense."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


class Environment:
    """One backend of backends.yaml on this disk. Making one only looks for files.

    ``entry``: its adapter, None where there is none. ``requirements``: its requirements.txt, None
    where there is none. ``venv``: a folder, None where backends.yaml names an interpreter.
    ``python``: the interpreter that runs its workers. Raises UnknownBackend.
    """

    def __init__(self, name: str, config: Config, installer: Installer | None = None) -> None:
        self.name = name
        self.config = config.backend(name)
        self._installer = installer
        self._base = config.backends_file.parent
        own = [self._path(self.config.path)] if self.config.path else []
        rooms = list(dict.fromkeys([self._base / "backends", CHECKOUT / "backends"]))
        homes = [*own, *(room / name for room in rooms)]
        adapters = [home / ADAPTER for home in homes] + [room / f"{name}.py" for room in rooms]
        self.entry = _first_file(adapters)
        self.requirements = _first_file([home / REQUIREMENTS for home in homes])
        self._sought = adapters[0]
        # The folder named by `path:` may hold the venv alone, its adapter being in backends/.
        with_adapter = [home for home in homes if home / ADAPTER == self.entry]
        folder = (own or with_adapter or homes)[0]
        self.venv: Path | None = None
        if self.config.python:
            self.python = self._interpreter(self.config.python)
        else:
            self.venv = self._path(self.config.venv) if self.config.venv else folder / ".venv"
            self.python = self.venv / "bin" / "python"

    def health(self) -> str | None:
        """Why its workers cannot run, in words that name the remedy, or None. Takes microseconds.

        It believes installed.json; ``greet`` tries.
        """
        if self.entry is None:
            return f"there is no adapter: expected {self._sought}"
        if self.venv is None:
            if os.access(self.python, os.X_OK):
                return None
            return f"backends.yaml names the interpreter {self.python}, which cannot be run"
        if (holder := _installer_at_work(self.venv)) is not None:
            return f"{holder} is installing it: wait for that"
        reason = self._why_not_installed(self.venv)
        return reason and f"{reason}: run `cli.py backends install {self.name}`"

    def install(
        self, progress: Progress = say_nothing, *, is_forced: bool = False, patience: float = 3600
    ) -> bool:
        """Build the venv, greet a worker in it, and say so in installed.json.

        False: it was installed already, perhaps by the one we waited for, and a worker greets.
        ``patience`` is how many seconds to wait for another install of the same venv. Raises
        BackendNotInstalled, or ConfigError where there is nothing that could be installed.
        """
        if self.venv is None:
            raise ConfigError(
                f"backends.yaml › backends.{self.name}.python › names an interpreter, which is used"
                " as it is; remove the key to have a venv installed"
            )
        if self.entry is None or self.requirements is None:
            missing = self._sought if self.entry is None else self._sought.with_name(REQUIREMENTS)
            raise ConfigError(
                f"backends.yaml › backends.{self.name} › expected {missing}, which is not there"
            )
        self._check_python(self.requirements)
        try:
            with self._lock(self.venv, progress, patience) as held:
                if not is_forced and self.health() is None and self._answers():
                    return False
                self._build(self.venv, self.requirements, progress, held)
        except OSError as exc:
            raise BackendNotInstalled(
                f"{self.name} › cannot write to {self.venv}: {exc.strerror}; venv: in backends.yaml"
                " says where else it may be"
            ) from None
        return True

    def greet(self) -> m.Hello:
        """Start a worker, wait for its Hello, let it go: the adapter can be imported and speaks.

        Takes as long as the imports do, load_timeout at most. Raises BackendNotInstalled with the
        last line that the worker printed.
        """
        scratch = Scratch(self.config.env.get("TMPDIR"))
        try:
            with tempfile.TemporaryFile() as stderr:
                return _greet(worker_spec(self), stderr, scratch)
        finally:
            scratch.remove()

    def _answers(self) -> bool:
        """Whether installed.json is still true: packages of the venv may be gone since."""
        try:
            self.greet()
        except BackendNotInstalled:
            return False
        return True

    def _why_not_installed(self, venv: Path) -> str | None:
        state = InstalledState.read(venv / STATE)
        if state is None:
            is_begun = (venv / LOCK).exists()
            return "its install was interrupted" if is_begun else "it is not installed"
        if state.requirements != self._digest():
            return f"{REQUIREMENTS} changed since it was installed"
        wanted = self.config.python_version
        if wanted and not f"{state.python}.".startswith(f"{wanted}."):
            return f"it was installed for Python {state.python}, not {wanted}"
        if state.protocol != m.PROTOCOL_VERSION:
            return "it was installed for another version of this server"
        if not os.access(self.python, os.X_OK):
            return f"its interpreter {self.python} is gone"
        return None

    def _check_python(self, requirements: Path) -> None:
        """Raises BackendNotInstalled, in words that no resolver finds."""
        chosen = self.config.python_version
        pythons, found = Pythons.beside(requirements), chosen or platform.python_version()
        if [int(part) for part in found.split(".")[:2]] not in pythons:
            where = "python_version in backends.yaml" if chosen else "this"
            raise BackendNotInstalled(
                f"{self.name} needs {pythons}, and {where} is {found}: set python_version:"
                f' "3.{pythons.oldest}" under {self.name} in backends.yaml'
            )

    def _build(self, venv: Path, requirements: Path, progress: Progress, held: int) -> None:
        _wipe(venv)
        installer = self._installer or Installer.find()
        run = Run(self.name, progress, venv / LOG, held)
        progress(f"making {venv} with {installer.name}")
        installer.create(venv, self.config.python_version, run)
        progress(f"installing {requirements}")
        digest = self._digest()
        installer.install(self.python, requirements, run)
        if (bare := requirements.with_name(BARE_REQUIREMENTS)).is_file():
            progress(f"installing {bare}")
            installer.install(self.python, bare, run, with_dependencies=False)
        progress("starting a worker, to see that it answers")
        hello = self.greet()
        _write_last(venv / STATE, InstalledState(digest, hello.python, hello.protocol))

    def _digest(self) -> str:
        content = b""
        if self.requirements is not None:
            content = self.requirements.read_bytes()
            if (bare := self.requirements.with_name(BARE_REQUIREMENTS)).is_file():
                content += b"\0" + bare.read_bytes()
        return hashlib.sha256(content).hexdigest()

    @contextlib.contextmanager
    def _lock(self, venv: Path, progress: Progress, patience: float) -> Iterator[int]:
        """Hold the venv for this process and the installers it starts. Gives the descriptor."""
        if venv.exists() and not (venv / LOCK).exists() and any(venv.iterdir()):
            raise BackendNotInstalled(
                f"{self.name} › {venv} was not made here and is left alone: move it away, or set"
                " python: in backends.yaml to run it as it is"
            )
        venv.mkdir(parents=True, exist_ok=True)
        with open(venv / LOCK, "a+", encoding="utf-8") as lock:
            deadline = time.monotonic() + patience
            has_told = False
            while not _try_lock(lock.fileno()):
                lock.seek(0)
                holder = lock.read().strip() or "another process"
                if time.monotonic() > deadline:
                    raise BackendNotInstalled(
                        f"{self.name} › {holder} is installing it and has not finished: wait for it"
                    )
                if not has_told:
                    progress(f"waiting for {holder}, which is installing {self.name}")
                    has_told = True
                time.sleep(0.1)
            lock.truncate(0)
            lock.write(f"process {os.getpid()}")
            lock.flush()
            # Descriptors of Python are not inherited, except by the installers in Run.
            yield lock.fileno()

    def _path(self, path: Path) -> Path:
        return self._base / path.expanduser()

    def _interpreter(self, python: Path) -> Path:
        found = shutil.which(python) if len(python.parts) == 1 else None
        return Path(found) if found else self._path(python)


def worker_spec(environment: Environment) -> WorkerSpec:
    """How to start its workers, installed or not. Raises ConfigError where there is no adapter."""
    config = environment.config
    if environment.entry is None:
        raise ConfigError(f"backends.yaml › backends.{environment.name} › {environment.health()}")
    return WorkerSpec(
        backend=environment.name,
        python=environment.python,
        entry=environment.entry,
        options=config.options,
        env=config.env,
        load_timeout=config.load_timeout,
        first_chunk_timeout=config.first_chunk_timeout,
        gap_timeout=config.gap_timeout,
        job_timeout=config.job_timeout,
        stop_timeout=config.stop_timeout,
        cancel_timeout=config.cancel_timeout,
        memory_limit_mb=config.memory_limit_mb,
        nice=config.nice,
    )


def spec_for(name: str, config: Config) -> WorkerSpec:
    """How to start the workers of an installed backend.

    Raises UnknownBackend, ConfigError (no adapter), BackendNotInstalled with the remedy.
    """
    environment = Environment(name, config)
    spec = worker_spec(environment)
    if reason := environment.health():
        raise BackendNotInstalled(f"{name} › {reason}")
    return spec


def ensure_installed(
    name: str, config: Config, progress: Progress = say_nothing, is_allowed: bool = False
) -> WorkerSpec:
    """``spec_for``, after installing it if it needs that and is marked auto_install or allowed."""
    environment = Environment(name, config)
    is_possible = environment.entry is not None and environment.venv is not None
    if is_possible and environment.health() and (environment.config.auto_install or is_allowed):
        environment.install(progress)
    return spec_for(name, config)


def _greet(spec: WorkerSpec, stderr: IO[bytes], scratch: Scratch) -> m.Hello:
    try:
        # A file, not a pipe: what nobody drains would stop the worker at about 61 KiB.
        process = subprocess.Popen(
            [spec.python, "-I", "-u", BOOTSTRAP, spec.entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=scratch.environment(spec.environment()),
            start_new_session=True,
        )
    except OSError as exc:
        raise BackendNotInstalled(
            f"{spec.backend} › its interpreter {spec.python} cannot be run: {exc.strerror}"
        ) from None
    with process:
        try:
            return _receive_hello(process, time.monotonic() + spec.load_timeout)
        except (ProtocolError, OSError) as exc:
            # It may be about to say why: a closed stdout comes just before the end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            stderr.seek(0)
            said = stderr.read().decode(errors="replace").strip().splitlines()
            raise BackendNotInstalled(
                f"{spec.backend} › a worker did not greet: {said[-1] if said else exc}"
            ) from exc
        finally:
            if process.returncode is None:  # else its number may be somebody else's by now
                os.killpg(process.pid, signal.SIGKILL)


def _receive_hello(process: subprocess.Popen[bytes], deadline: float) -> m.Hello:
    assert process.stdout is not None
    connection = Connection(Role.SERVER)
    while True:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([process.stdout], [], [], left)[0]:
            raise OSError("it took longer than its load_timeout")
        data = os.read(process.stdout.fileno(), 65_536)
        if not data:
            raise OSError("it ended at once")
        for message in connection.receive_data(data):
            if isinstance(message, m.Hello):
                return message


def _first_file(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _installer_at_work(venv: Path) -> str | None:
    """Who is installing it at this moment, or None."""
    if (venv / STATE).exists():
        return None  # written last
    try:
        with open(venv / LOCK, encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or "another process"
    except OSError:
        pass
    return None


def _wipe(venv: Path) -> None:
    """Remove what an earlier install left: the state first, the lock, which we hold, never."""
    for child in sorted(venv.iterdir(), key=lambda child: child.name != STATE):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        elif child.name != LOCK:
            child.unlink()


def _write_last(path: Path, state: InstalledState) -> None:
    temporary = path.with_suffix(".new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
