from __future__ import annotations

import logging
import random
import time
from array import array
from collections.abc import Sequence

import pytest

from unlimitedws.config import Config
from unlimitedws.engine.counters import FIELDS, INDEX
from unlimitedws.memory import Memory, Reading
from unlimitedws.pressure import Pressure, deal


class Readings(Memory):
    """A machine whose readings are given; the last one stays."""

    def __init__(self, *readings: float) -> None:
        self.readings = list(readings)

    def read(self) -> Reading:
        used = self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]
        return Reading(used, 0.0)


def row(**columns: int) -> memoryview:
    made = memoryview(array("q", [0] * len(FIELDS)))
    for name, value in columns.items():
        made[INDEX[name]] = value
    return made


def shares(rows: Sequence[memoryview]) -> list[int]:
    return [each[INDEX["connections_share"]] for each in rows]


@pytest.mark.parametrize(
    ("most", "held", "elsewhere", "dealt"),
    [
        (10, [0, 0], 0, [5, 5]),
        (10, [0, 0, 0], 0, [4, 3, 3]),
        (10, [7, 1], 0, [8, 2]),
        (10, [4, 1], 5, [4, 1]),
        (10, [20, 0], 0, [20, 0]),
        (10, [], 3, []),
    ],
)
def test_what_is_left_of_the_limit_is_dealt_out_equally(most: int, held: list[int], elsewhere: int, dealt: list[int]) -> None:
    assert deal(most, held, elsewhere) == dealt


def test_shares_never_add_up_to_more_than_the_limit() -> None:
    random.seed(3)
    for _ in range(1000):
        most, held, elsewhere = random.randrange(500), [random.randrange(50) for _ in range(random.randrange(1, 9))], random.randrange(50)
        assert sum(deal(most, held, elsewhere)) + elsewhere <= max(most, sum(held) + elsewhere)


def test_each_worker_is_told_its_share_and_draining_ones_count() -> None:
    rows, draining = [row(connections_counted=3), row(connections_counted=1)], row(connections_counted=4)
    before = time.monotonic_ns()
    Pressure(Config(max_connections_total=20), Readings(0.1)).advise(rows, [draining])
    assert shares(rows) == [9, 7]
    assert shares([draining]) == [0]
    assert all(each[INDEX["advised_ns"]] >= before for each in rows)


def test_handshakes_are_shed_while_memory_is_short(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("unlimitedws.pressure.MEMORY_EVERY_S", 0.0)
    pressure, told = Pressure(Config(shed_memory=0.9), Readings(0.5, 0.91, 0.89, 0.93, 0.87, 0.89)), []
    mine = row()
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            pressure.advise([mine])
            told.append(mine[INDEX["shedding"]])
    assert told == [0, 1, 1, 1, 0, 0]  # once begun, it ends clearly below the limit
    assert [line.split(":")[0] for line in caplog.messages] == ["memory is short", "memory is there again"]


def test_waiting_for_memory_sheds_as_well() -> None:
    pressure = Pressure(Config(shed_memory=0, shed_stall=0.2), Readings(0.99))
    pressure.judge(Reading(0.99, 0.19))
    assert not pressure.is_shedding
    pressure.judge(Reading(0.5, 0.2))
    assert pressure.is_shedding


def test_memory_is_read_once_a_second_at_most() -> None:
    pressure = Pressure(Config(shed_memory=0.9), Readings(0.1, 0.99))
    pressure.advise([row()])
    pressure.advise([row()])
    assert pressure.reading.used == 0.1


def test_shares_are_dealt_out_more_often_than_memory_is_read() -> None:
    assert Pressure(Config(max_connections_total=5)).every_s < Pressure(Config()).every_s == 1.0


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"shed_memory": 0.0}, False),
        ({"shed_memory": 0.5}, True),
        ({"shed_memory": 0.0, "shed_stall": 0.5}, True),
        ({"shed_memory": 0.0, "max_connections_total": 5}, True),
    ],
)
def test_it_is_needed_only_where_a_setting_asks_for_it(settings: dict[str, float], needed: bool) -> None:
    assert Pressure(Config(**settings)).is_needed is needed  # type: ignore[arg-type]
