"""The one line that says what the server does."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.progress import Progress
from unlimitedws.supervisor.stats_table import StatsTable
from unlimitedws.supervisor.stopping import Stopping


class Case:
    """A fleet of so many slots that is all figures."""

    def __init__(self, slots: int = 4) -> None:
        self.table = StatsTable.create(slots)
        self.now = 100.0
        self.stopping = Stopping()
        self.statuses: list[str] = []
        self.fleet: Any = SimpleNamespace(
            table=self.table, stopping=self.stopping, leaving=False, config=Config(stop_timeout_s=30),
            slots=[SimpleNamespace(is_served=True) for _ in range(slots)],
            children={i: SimpleNamespace(order=SimpleNamespace(row=i)) for i in range(slots)},
            loop=SimpleNamespace(time=lambda: self.now),
        )  # fmt: skip
        notifier: Any = SimpleNamespace(status=self.statuses.append)
        self.progress = Progress(self.fleet, notifier)

    def opens(self, *numbers: int) -> None:
        for row, number in enumerate(numbers):
            self.table.row(row)[INDEX["connections_open"]] = number


def test_it_counts_the_connections_of_all_workers() -> None:
    case = Case()
    case.opens(12_000, 300, 40, 5)
    assert case.progress.line() == "serving 12,345 connections with 4 workers"


def test_one_is_one() -> None:
    case = Case(slots=1)
    case.opens(1)
    assert case.progress.line() == "serving 1 connection with 1 worker"


def test_slots_without_a_worker_do_not_count() -> None:
    case = Case(slots=2)
    case.fleet.slots[0].is_served = False
    assert case.progress.line() == "serving 0 connections with 1 worker"
    case.fleet.slots[1].is_served = False
    assert case.progress.line() == "no worker is ready"


def test_before_a_stop_it_says_that_it_goes_on_accepting() -> None:
    case = Case()
    case.fleet.leaving = True
    case.opens(7)
    assert case.progress.line() == "about to stop: accepting, but not ready, with 7 connections"


def test_a_stop_counts_down_from_what_there_was(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    case.opens(1000, 500)
    case.fleet.leaving = True
    case.stopping.set()
    with caplog.at_level(logging.INFO):
        case.progress.tell()
        case.now += 4
        case.opens(200, 0)
        case.progress.tell()
        case.now += 60
        case.opens(0)
        case.progress.tell()
    said = [
        "stopping: 1,500 of 1,500 connections left, cut in 30 s at the latest",
        "stopping: 200 of 1,500 connections left, cut in 26 s at the latest",
    ]
    assert caplog.messages == said
    assert case.statuses == [*said, "stopping: 0 of 1,500 connections left, cut in 0 s at the latest"]


def test_the_first_line_of_a_stop_comes_at_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        case = Case()
        case.opens(1000)
        case.stopping.pause = lambda seconds: case.stopping.wait()
        telling = asyncio.ensure_future(case.progress.go_on_telling())
        await asyncio.sleep(0)
        case.stopping.set()
        while not caplog.messages:
            await asyncio.sleep(0)
        telling.cancel()

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(story(), 10))
    assert caplog.messages == ["stopping: 1,000 of 1,000 connections left, cut in 30 s at the latest"]
