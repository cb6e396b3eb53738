"""Children that nobody waits for: zombies of processes whose parent died before them.

The supervisor is a child subreaper, so that workers whose template died become its children, and it may
be PID 1 of a container, where every orphan does. Children that the embedding program had before it
started the supervisor are left to that program.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
TASKS = Path("/proc/self/task")


def become_subreaper() -> None:
    """From now on orphans below this process become its children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def children(tasks: Path = TASKS) -> set[int] | None:
    """Process ids of this process's children, zombies included; None where the kernel does not list them."""
    found: set[int] = set()
    try:
        for task in tasks.iterdir():
            found.update(int(pid) for pid in (task / "children").read_text().split())
    except OSError:  # CONFIG_PROC_CHILDREN is off
        return None
    return found


class Reaper:
    """Waits for every dead child but the embedding program's own; tells `found(pid, status)` of each.

    status: as `os.waitstatus_to_exitcode` gives it, negative for a signal.  ours: the children that this process had when an upgrade
    replaced its program: whosever they were, nobody else can wait for them any more."""

    def __init__(self, found: Callable[[int, int], None], ours: Iterable[int] = ()) -> None:
        self.found = found
        self.not_ours = (children() or set()) - set(ours)

    def reap(self) -> None:
        """Call on SIGCHLD: one signal may stand for many children."""
        pids = children()
        if pids is None:  # whoever it is: better the program's own child than zombies without end
            while self._reap(-1):
                pass
            return
        for pid in pids - self.not_ours:
            self._reap(pid)

    def _reap(self, pid: int) -> bool:
        try:
            gone, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return False
        if gone:
            self.found(gone, os.waitstatus_to_exitcode(status))
        return bool(gone)
