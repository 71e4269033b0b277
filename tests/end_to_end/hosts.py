"""Two hosts with a cable to each: network namespaces of Linux where we may, else two ports."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """``address`` is how we reach it, ``ours`` how it reaches us; ``prefix`` runs a command on it."""

    address: str = "127.0.0.1"
    ours: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    cable: str = ""

    @property
    def is_separate(self) -> bool:
        """Whether its only way to anywhere is its cable, which can be pulled."""
        return bool(self.cable)

    @property
    def listens(self) -> str:
        """Where its servers listen, so that we reach them."""
        return "0.0.0.0" if self.cable else "127.0.0.1"

    def pull(self) -> None:
        """Pull the cable: what is on its way is lost, and nobody is told."""
        _ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        _ip("link", "set", self.cable, "up")


_numbers = itertools.count()


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Neither reaches the other, but through us."""
    with contextlib.ExitStack() as stack:
        made = []
        try:
            for _ in range(2):
                made.append(_namespace(next(_numbers)))
                stack.callback(_remove, made[-1])
        except (OSError, subprocess.SubprocessError):
            made = [Host(), Host()]
        yield made[0], made[1]


def _namespace(number: int) -> Host:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise PermissionError("only root makes namespaces")
    name = f"vs{os.getpid()}-{number}"
    # Four addresses each of the network that RFC 2544 keeps for tests.
    block = (os.getpid() * 64 + number % 64) * 4 % (1 << 17)
    ours, address = (
        f"198.{18 + (block >> 16)}.{block >> 8 & 255}.{(block & 255) + n}" for n in (1, 2)
    )
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("addr", "add", f"{ours}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "addr", "add", f"{address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        prefix = ("ip", "netns", "exec", name)
        subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=60)
    except BaseException:
        _ip("netns", "del", name)
        raise
    return Host(address, ours, prefix, name)


def _remove(host: Host) -> None:
    with contextlib.suppress(subprocess.SubprocessError):
        _ip("netns", "del", host.cable)  # and the cable with it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=60)
