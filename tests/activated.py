"""Starts a program as systemd starts one whose sockets it listens on itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

# What systemd does between fork and exec: descriptors from 3 on, and whom they are for.
LAUNCHER = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
for i, fd in enumerate(fds):
    os.dup2(fd, 100 + i, inheritable=False)
    os.close(fd)
for i in range(len(fds)):
    os.dup2(100 + i, 3 + i)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
if sys.argv[2]:
    os.environ["LISTEN_FDNAMES"] = sys.argv[2]
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


class Descriptor(Protocol):
    def fileno(self) -> int: ...


def activated(passed: Sequence[Descriptor], names: str, *arguments: str) -> list[str]:
    """The command `python ARGUMENTS` with these descriptors from 3 on; `subprocess` needs them in `pass_fds`.

    names: as in LISTEN_FDNAMES; "" for none."""
    return [sys.executable, "-c", LAUNCHER, ",".join(str(each.fileno()) for each in passed), names, *arguments]
