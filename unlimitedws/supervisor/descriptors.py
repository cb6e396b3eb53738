"""Which descriptors a process may hold, and how many."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable

from unlimitedws import cost
from unlimitedws.errors import ProcMissing, TooFewFiles

OWN_KINDS = ("socket:", "anon_inode:", "pidfd:", "/memfd:unlimitedws")
"""What the supervisor opens while it runs: sockets, epoll sets, pidfds, the stats table. (As /proc/self/fd says it.)"""


def open_descriptors() -> dict[int, str]:
    """The descriptors of this process and what each of them is. For the supervisor, which has few. Raises ProcMissing."""
    found = {}
    try:
        names = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        raise ProcMissing from None
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # the one that listed the folder
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def close_supervisors(keep: Iterable[int]) -> None:
    """In a process just forked from the supervisor: closes everything the supervisor opened for itself.

    A listener kept here would stay in the reuseport group and its clients unread; an end of a channel
    kept here would hide the supervisor's death. Files, pipes and terminals stay: log handlers use them,
    and closing them under a handler would let its lines end up in a peer's socket.
    keep: descriptors that stay, such as what was open before the supervisor began."""
    keep = set(keep)
    for fd, kind in open_descriptors().items():
        if fd not in keep and kind.startswith(OWN_KINDS):
            os.close(fd)


def hold_standard() -> None:
    """Has stdin, stdout and stderr lead nowhere where they are closed (>&-).

    Else the next sockets would get their numbers, and what a library prints would go to a peer."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # open(2) takes the lowest free number, which is this one


def check_limit(limit: int, workers: int, places: int) -> None:
    """Raises TooFewFiles where a server cannot even start with so many open files. places: of TCP that it listens on."""
    supervisor = cost.SUPERVISOR_DESCRIPTORS + workers * (cost.SLOT_DESCRIPTORS + places)
    needed = max(supervisor, cost.WORKER_DESCRIPTORS + 1)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise TooFewFiles(limit, needed, workers)


def raise_limit() -> int:
    """Raises RLIMIT_NOFILE to its hard limit, for this process and those it forks; what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
