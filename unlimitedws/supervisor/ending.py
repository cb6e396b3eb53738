"""How a process ended, in words, and how long to wait before the next one is started."""

from __future__ import annotations

import signal

from unlimitedws.errors import UnlimitedwsError

LONG_LIFE_S = 5.0
"""A worker that served so long did not die of its start: its successor comes at once."""

FIRST_PAUSE_S = 0.1

GIVES_UP = "; the next reload that is asked for gives it up"
GIVEN_UP = "it was given up for the next reload"
"""Of what does not come to the end of its start."""


class ProcessGone(Exception):
    """A process of ours ended before it did what it was asked for."""


START_FAILURES = (UnlimitedwsError, ProcessGone, OSError)
"""Why a template or a worker may fail to start: the app's own error, its death, no process left."""


def describe(status: int | None) -> str:
    """An exit status as `os.waitstatus_to_exitcode` gives it; None: nobody could tell."""
    if status is None:
        return "ended (status unknown)"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


class Backoff:
    """The pause before a restart: none after a long life, then 0.1 s, doubled with each short one."""

    def __init__(self, longest_s: float) -> None:
        self.longest_s = max(longest_s, FIRST_PAUSE_S)
        self.failures = 0

    def after_life(self, seconds: float) -> float:
        """Seconds to wait after a process that served so long."""
        if seconds >= LONG_LIFE_S:
            self.failures = 0
            return 0.0
        return self.after_failure()

    def after_failure(self) -> float:
        """Seconds to wait after a process that never served."""
        self.failures += 1
        return min(self.longest_s, FIRST_PAUSE_S * 2.0 ** min(self.failures - 1, 32))
