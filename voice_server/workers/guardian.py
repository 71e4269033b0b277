"""A process that outlives the server by a moment, to end what its workers have started.

A worker dies with the server by itself: at the end of its pipe, and by PR_SET_PDEATHSIG. Programs
that a model has started know of neither; they are in their worker's process group, which the
server kills when it is alive to do so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from typing import Final

logger = logging.getLogger(__name__)

# Reads "+ group" and "- group"; at the end of its input kills the groups that are left.
_SCRIPT: Final = """
groups=
while read -r sign group; do
  rest=
  for known in $groups; do
    [ "$known" = "$group" ] || rest="$rest $known"
  done
  groups=$rest
  [ "$sign" = + ] && groups="$groups $group"
done
for group in $groups; do
  kill -9 "-$group"
done
"""


class Guardian:
    """Start it with ``watch``; ``close`` it when all its groups are gone or to be killed."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._shell: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """Kill this process group should the server die."""
        self._groups.add(group)
        if self._shell is None or not self._tell("+", group):
            self._start()

    def forget(self, group: int) -> None:
        """The group is gone; its number may soon be another's."""
        self._groups.discard(group)
        self._tell("-", group)

    def close(self) -> None:
        """End the guardian. Groups it still watches are killed."""
        shell, self._shell = self._shell, None
        if shell is not None and shell.stdin is not None:
            shell.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                shell.wait(1.0)

    def _start(self) -> None:
        """Start the guardian, or another one where somebody has killed it."""
        self.close()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={},
                start_new_session=True,  # what ends the server's group must not end it too
            )
        except OSError as exc:
            logger.warning("no guardian (%s): what a worker starts may outlive the server", exc)
            return
        if self._shell.stdin is not None:
            os.set_blocking(self._shell.stdin.fileno(), False)
        for group in self._groups:
            self._tell("+", group)

    def _tell(self, sign: str, group: int) -> bool:
        if self._shell is None or self._shell.stdin is None:
            return False
        try:
            self._shell.stdin.write(f"{sign} {group}\n".encode())
        except OSError:
            return False
        return True
