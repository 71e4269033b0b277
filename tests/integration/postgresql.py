"""A PostgreSQL server of our own, where its programs are installed: on a socket, in a folder."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def is_available() -> bool:
    """Whether the programs are here, and somebody whom they agree to serve: they refuse root."""
    return bool(PROGRAMS) and (os.geteuid() != 0 or _user() is not None)


@contextmanager
def running() -> Iterator[str]:
    """The SQLAlchemy URL of an empty database."""
    programs = PROGRAMS[-1].parent
    user = _user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="voice-pg-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)

    def run(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            cwd=folder,
            timeout=120,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
        )

    data = str(folder / "data")
    control = str(programs / "pg_ctl")
    try:
        run(
            str(programs / "initdb"),
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            "voice",
            "--no-sync",
            "-E",
            "UTF8",
        )
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        run(
            control, "-D", data, "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start"
        )
        try:
            yield f"postgresql+asyncpg://voice@/postgres?host={folder}"
        finally:
            run(control, "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None
