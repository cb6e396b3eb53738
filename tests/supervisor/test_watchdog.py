"""Which workers count as hung (the whole story, with processes, is in test_process.py)."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor import watchdog as module
from unlimitedws.supervisor.process import DUMP_SIGNAL
from unlimitedws.supervisor.stats_table import StatsTable
from unlimitedws.supervisor.watchdog import Watchdog

SECOND = 10**9


class FakeChild:
    def __init__(self, row: int, state: str = "ready") -> None:
        self.order = SimpleNamespace(row=row, slot=0, serial=row + 1)
        self.state, self.pid = state, 4000 + row
        self.signals: list[int] = []
        self.killed: list[str] = []

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self, doom: str) -> None:
        self.killed.append(doom)


class Case:
    """A watchdog with children whose beat is set by hand, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, children: int = 1, hang_timeout_s: float = 10) -> None:
        self.now_ns = time.monotonic_ns()
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        self.children = [FakeChild(row) for row in range(children)]
        self.table = StatsTable.create(children)
        self.calls: list[tuple[float, Any, tuple[Any, ...]]] = []
        loop = SimpleNamespace(call_later=lambda delay, call, *args: self.calls.append((delay, call, args)))
        fleet: Any = SimpleNamespace(table=self.table, children=dict(enumerate(self.children)), loop=loop)
        self.watchdog = Watchdog(fleet, hang_timeout_s)

    def beat(self, child: int) -> None:
        self.table.row(child)[INDEX["beat_ns"]] = self.now_ns

    def passes(self, seconds: float) -> None:
        """Time goes on, and the watchdog looks as often as it wants to."""
        end = self.now_ns + int(seconds * SECOND)
        while self.now_ns < end:
            self.now_ns += int(self.watchdog.look_every_s * SECOND)
            self.watchdog.look()

    def suspended(self, seconds: float) -> None:
        """Time goes on without anybody looking."""
        self.now_ns += int(seconds * SECOND)
        self.watchdog.look()

    def dumped(self) -> list[int]:
        return [i for i, child in enumerate(self.children) if child.signals]


def test_a_silent_loop_is_dumped_once_and_killed_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch)
    case.beat(0)
    case.passes(9.9)
    assert case.dumped() == []
    case.passes(5)
    assert case.children[0].signals == [DUMP_SIGNAL]
    (kill,) = [call for call in case.calls if call[1] == case.children[0].kill]
    assert kill == (module.DUMP_S, case.children[0].kill, ("its loop hung",))


def test_a_loop_that_turns_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch, children=2)
    for _ in range(30):
        case.beat(0)
        case.beat(1)
        case.passes(1)
    assert case.dumped() == []


def test_only_the_silent_one_is_dumped(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch, children=2)
    case.beat(1)
    for _ in range(15):
        case.beat(0)
        case.passes(1)
    assert case.dumped() == [1]


def test_a_worker_that_starts_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch)
    case.beat(0)
    case.children[0].state = "starting"
    case.passes(100)
    assert case.dumped() == []


def test_a_worker_that_drains_may_hang_no_longer_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch)
    case.beat(0)
    case.children[0].state = "draining"
    case.passes(12)
    assert case.dumped() == [0]


def test_after_a_suspension_everybody_gets_the_whole_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(monkeypatch, children=2)
    case.beat(0)
    case.beat(1)
    case.suspended(3600)
    assert case.dumped() == []
    for _ in range(15):
        case.beat(0)
        case.passes(1)
    assert case.dumped() == [1]


def test_zero_means_never() -> None:
    called: list[object] = []
    fleet: Any = SimpleNamespace(loop=SimpleNamespace(call_later=lambda *args: called.append(args)))
    Watchdog(fleet, 0).start()
    assert called == []


@pytest.mark.parametrize(("limit_s", "every_s"), [(30, 1.0), (2, 0.5), (0.1, 0.5)])
def test_it_looks_no_more_often_than_needed(limit_s: float, every_s: float) -> None:
    async def main() -> float:
        fleet: Any = SimpleNamespace(loop=asyncio.get_running_loop())
        return Watchdog(fleet, limit_s).look_every_s

    assert asyncio.run(main()) == every_s
