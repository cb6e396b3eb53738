"""Forking from inside a running event loop, so that nothing of the parent's loop works in the child."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import NoReturn

CRASHED = 70
"""Exit code of a child that met an error of ours (EX_SOFTWARE in <sysexits.h>); its traceback is on stderr."""


def fork(child: Callable[[], NoReturn]) -> int:
    """Forks a process that runs `child` and never comes back; its pid.

    The child begins with every signal at its default, no wakeup descriptor and no running loop. What the
    parent had is never collected in it: the end of a parent's socket object would close a descriptor number
    that means something else by then. Raises OSError where the system has no process left."""
    # Blocked until the child has dropped the parent's wakeup descriptor: a signal in between would reach the parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        flush()
        pid = os.fork()
        if pid == 0:
            run(child, before)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(child: Callable[[], NoReturn], mask: Iterable[int]) -> NoReturn:
    try:
        gc.freeze()
        signal.set_wakeup_fd(-1)
        for number in (
            signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU
        ):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        asyncio._set_running_loop(None)
        asyncio.set_event_loop(None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        child()
    except BaseException:
        traceback.print_exc()
    end(CRASHED)


def end(code: int) -> NoReturn:
    """Ends a forked process: what it printed is written out, the parent's atexit functions are not run."""
    flush()
    os._exit(code)


def flush() -> None:
    """Writes out what is printed but still buffered: a fork would print it twice, an _exit not at all."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # closed, or its reader is gone
                stream.flush()


def shrug(*numbers: signal.Signals) -> None:
    """Takes these signals and does nothing. Unlike SIG_IGN, not passed on to programs that the app starts."""
    for number in numbers:
        signal.signal(number, lambda *_: None)


def threads() -> int:
    """How many threads this process has, those that Python does not know of included."""
    return len(os.listdir("/proc/self/task"))
