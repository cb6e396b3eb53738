"""What a run waits for, and what ends it early."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, cast

import pytest

from unlimitedws.bench.crew import Crew
from unlimitedws.bench.options import Options
from unlimitedws.bench.progress import Progress
from unlimitedws.bench.run import Interrupted, Run


class Counted:
    """A crew that has counted just this, and goes on doing so."""

    def __init__(self, **counters: int) -> None:
        self.counters, self.rows = Counter(counters), [None]

    def look(self) -> Counter[str]:
        return self.counters


def run(**counters: int) -> Run:
    return Run(Options(), cast(Crew, Counted(**counters)), Progress(quiet=True))


def elapsed(wait: Any) -> float:
    began = time.monotonic()
    wait()
    return time.monotonic() - began


def test_a_time_after_all_have_left_lasts_and_is_no_early_end() -> None:
    made = run(lost=1, closed=2)
    assert elapsed(lambda: made.outstay("afterwards", 0.2)) >= 0.2
    assert made.stopped_early == ""


def test_a_time_with_connections_ends_when_the_last_of_them_is_lost() -> None:
    made = run(lost=3)
    made.pause("at rest", 10_000.0)
    assert made.stopped_early == "every connection was lost"


def test_an_interruption_ends_either() -> None:
    made = run(up=1)
    made.is_interrupted = True
    for wait in (made.pause, made.outstay):
        with pytest.raises(Interrupted):
            wait("waiting", 10_000.0)
