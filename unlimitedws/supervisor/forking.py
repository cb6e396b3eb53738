"""Forking from inside a running event loop, so that nothing of the parent's loop works in the child."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

from unlimitedws.output import flush

CRASHED = 70
"""Exit code of a child that met an error of ours (EX_SOFTWARE in <sysexits.h>); its traceback is on stderr."""

MOST_GAPS_BYTES = 2 << 20
"""What is filled before a fork: there are 0.6 MB of gaps; in the heap of an embedding program there may be more, which stay its own."""


def fork(child: Callable[[], NoReturn]) -> int:
    """Forks a process that runs `child` and never comes back; its pid.

    The child begins with every signal at its default, no wakeup descriptor and no running loop.
    Raises OSError where the system has no process left."""
    # Blocked until the child has dropped the parent's wakeup descriptor: a signal in between would reach the parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def begin() -> NoReturn:
        forget(before)
        child()

    try:
        return fork_alike(begin)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def fork_alike(child: Callable[[], NoReturn]) -> int:
    """The same, but the child keeps the parent's handlers of signals. For a parent that has no loop.

    What there is now is never collected, on neither side. The end of a parent's socket object would close a descriptor
    number in the child that means something else by then; and a collection writes into every object that it looks at,
    which would end the sharing of their memory."""
    flush()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        run(child)
    return pid


def forget(mask: Iterable[int]) -> None:
    """What a child must not have of a parent with a loop."""
    signal.set_wakeup_fd(-1)
    for number in (
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU
    ):  # fmt: skip
        signal.signal(number, signal.SIG_DFL)
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(child: Callable[[], NoReturn]) -> NoReturn:
    try:
        child()
    except BaseException:
        traceback.print_exc()
    end(CRASHED)


def end(code: int) -> NoReturn:
    """Ends a forked process: what it printed is written out, the parent's atexit functions are not run."""
    flush()
    os._exit(code)


def shrug(*numbers: signal.Signals) -> None:
    """Takes these signals and does nothing. Unlike SIG_IGN, not passed on to programs that the app starts."""
    for number in numbers:
        signal.signal(number, lambda *_: None)


def threads() -> int:
    """How many threads this process has, those that Python does not know of included."""
    return len(os.listdir("/proc/self/task"))
