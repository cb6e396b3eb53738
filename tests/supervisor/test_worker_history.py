"""What a page that is opened now can show of each worker's past, and how little of it is kept."""

from __future__ import annotations

import base64
import json
from array import array
from math import isnan
from typing import Any

import pytest

from tests.supervisor.conftest import Run
from tests.supervisor.running import until
from unlimitedws.engine.counters import FIELDS, INDEX, LOOP_LAG, MESSAGE_HANDLING
from unlimitedws.supervisor.worker_history import MOST_BYTES, SERIES, Now, WorkerHistory

EVERY_S = 5.0
HALF_HOUR_S = 1800.0


def row(**counted: int) -> list[int]:
    made = [0] * len(FIELDS)
    for name, value in counted.items():
        made[INDEX[name]] = value
    return made


def told(history: WorkerHistory | dict[str, Any]) -> dict[tuple[float, int], dict[str, float]]:
    """(time, slot) to the values of the series by name, as a page reads them."""
    document = history if isinstance(history, dict) else history.document()
    values = array("f")
    values.frombytes(base64.b64decode(document["values"]))
    width = len(document["series"])
    places = [(time, slot) for time in document["times"] for slot in document["slots"]]
    assert len(values) == width * len(places)
    return {at: dict(zip(document["series"], values[number * width :], strict=False)) for number, at in enumerate(places)}


def test_counters_become_rates_and_gauges_stay_what_they_are() -> None:
    history = WorkerHistory(HALF_HOUR_S, EVERY_S)
    history.look(100.0, {3: Now(row(messages_in=50, connections_open=7), None, 0)})
    history.look(105.0, {3: Now(row(messages_in=60, connections_open=9, closes_peer_closed=20, cpu_us=500_000), 4096, 2)})
    first, second = told(history)[100.0, 3], told(history)[105.0, 3]
    assert (first["connections_open"], first["restarts"]) == (7, 0)
    assert isnan(first["messages_in_per_s"])
    assert isnan(first["memory_bytes"])
    assert (second["connections_open"], second["memory_bytes"], second["restarts"]) == (9, 4096, 2)
    assert (second["messages_in_per_s"], second["closes_peer_closed_per_s"], second["cpu_us_per_s"]) == (2, 4, 100_000)


def test_histograms_become_averages_of_the_time_in_between() -> None:
    lag, more = LOOP_LAG.name, LOOP_LAG.bounds[3]
    handling = MESSAGE_HANDLING.name
    history = WorkerHistory(HALF_HOUR_S, EVERY_S)
    before = {f"{lag}_{more}": 10, f"{lag}_sum": 90_000, f"{handling}_sum": 5}
    history.look(0.0, {0: Now(row(**before), None, 0)})
    after = {f"{lag}_{more}": 13, f"{lag}_more": 1, f"{lag}_sum": 100_000, f"{handling}_sum": 5}
    history.look(5.0, {0: Now(row(**after), None, 0)})
    now = told(history)[5.0, 0]
    assert now["loop_lag_average_us"] == 2500
    assert isnan(now["message_handling_average_ns"])  # there was no message


def test_half_an_hour_is_kept_and_no_more() -> None:
    history = WorkerHistory(HALF_HOUR_S, EVERY_S)
    for number in range(1000):
        history.look(number * EVERY_S, {0: Now(row(), 1, 0)})
    times = history.document()["times"]
    assert (times[0], times[-1], len(times)) == (999 * 5 - 1800, 999 * 5, 361)


@pytest.mark.parametrize("slots", [1, 36, 37, 128, 1000])
def test_memory_is_bounded_whatever_the_number_of_workers(slots: int) -> None:
    history = WorkerHistory(HALF_HOUR_S, EVERY_S)
    now = {slot: Now(row(), 1, 0) for slot in range(slots)}
    for number in range(400):
        history.look(number * EVERY_S, now)
    assert history.bytes == sum(len(look.values) * 4 for look in history.looks) <= MOST_BYTES
    times = history.document()["times"]
    assert times[-1] - times[0] >= HALF_HOUR_S - 2 * EVERY_S * history.pace(slots)
    assert (history.pace(slots) == 1) == (slots <= 36)


def test_slots_that_come_and_go_are_told_where_they_were() -> None:
    history = WorkerHistory(HALF_HOUR_S, EVERY_S)
    history.look(0.0, {0: Now(row(connections_open=1), None, 0)})
    history.look(5.0, {0: Now(row(connections_open=2), None, 0), 1: Now(row(connections_open=3), None, 0)})
    history.look(10.0, {1: Now(row(connections_open=4), None, 0)})
    open_now = {at: values["connections_open"] for at, values in told(history).items()}
    assert {at: value for at, value in open_now.items() if not isnan(value)} == {(0.0, 0): 1, (5.0, 0): 2, (5.0, 1): 3, (10.0, 1): 4}


def test_it_outlives_an_upgrade_unless_other_things_are_measured() -> None:
    history, next, other = (WorkerHistory(HALF_HOUR_S, EVERY_S) for _ in range(3))
    for number in range(3):
        history.look(number * EVERY_S, {0: Now(row(messages_in=number), 1, 0), 7: Now(row(), None, 0)})
    packed = json.loads(json.dumps(history.pack()))
    next.resume(packed)
    assert next.document() == history.document()
    assert next.bytes == history.bytes
    other.resume({**packed, "series": ["another"]})
    other.resume({})  # of a release without it
    assert not other.looks


def test_a_server_without_looks_tells_nothing() -> None:
    document = WorkerHistory(HALF_HOUR_S, EVERY_S).document()
    assert (document["series"], document["slots"], document["times"], document["values"]) == (SERIES, [], [], "")


def test_the_admin_port_has_it(run: Run) -> None:
    server = run(workers=2).ready()

    def document() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(server.get("/history/workers")[1])
        return found

    until(lambda: document()["times"])
    found = told(document())
    assert {slot for _, slot in found} == {0, 1}
    assert all(values["connections_open"] == 0 for values in found.values())
    assert set(document()["times"]) <= {look["time"] for look in json.loads(server.get("/history")[1])["history"]}
