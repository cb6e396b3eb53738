"""The sums of /stats (the whole document is looked at in test_admin.py)."""

from __future__ import annotations

import json

from unlimitedws.engine.counters import FIELDS, HISTOGRAMS, INDEX, LOOP_LAG
from unlimitedws.supervisor.report import add, columns, resources
from unlimitedws.supervisor.sampler import Sample
from unlimitedws.wire.closing import Cause


def row(**values: int) -> memoryview[int]:
    items = memoryview(bytearray(8 * len(FIELDS))).cast("q")
    for name, value in values.items():
        items[INDEX[name]] = value
    return items


def test_every_counter_is_shown_under_its_name_and_closes_by_cause() -> None:
    shown = columns(row(messages_in=3, closes_drain=2))
    assert (shown["messages_in"], shown["closes"]["drain"]) == (3, 2)
    assert list(shown["closes"]) == list(Cause)
    assert {field.name for field in FIELDS if field.kind in ("counter", "gauge") and not field.family} <= set(shown)
    for histogram in HISTOGRAMS:
        assert list(shown[histogram.name]) == [*map(str, histogram.bounds), "more", "sum"]
    assert not {"beat_ns", "advised_ns", "pid", "ring_noted"} & set(shown)


def test_histograms_are_added_bucket_by_bucket() -> None:
    one, other = row(), row()
    LOOP_LAG.note(one, 10)
    LOOP_LAG.note(other, 20)
    LOOP_LAG.note(other, 99_000_000)
    total = columns(add([one, other]))["loop_lag"]
    assert (total["1000"], total["more"], total["sum"]) == (2, 1, 99_000_030)


def test_counters_and_gauges_are_added_and_of_lags_the_largest_counts() -> None:
    total = columns(add([
        row(messages_in=3, connections_open=1, loop_lag_us=50, loop_lag_max_us=900, pid=4001, beat_ns=5),
        row(messages_in=4, connections_open=2, loop_lag_us=70, loop_lag_max_us=800, pid=4002, beat_ns=6),
    ]))  # fmt: skip
    assert (total["messages_in"], total["connections_open"]) == (7, 3)
    assert (total["loop_lag_us"], total["loop_lag_max_us"]) == (70, 900)


def test_the_sum_of_nothing_is_zero() -> None:
    assert set(columns(add([]))["closes"].values()) == {0}


def test_big_numbers_survive_json() -> None:
    assert json.loads(json.dumps(columns(row(bytes_in=2**62))))["bytes_in"] == 2**62


def test_what_the_kernel_does_not_tell_is_null_and_not_zero() -> None:
    told = Sample(rss_bytes=100, pss_bytes=60, cpu_percent=1.26, cpu_seconds=2.0, descriptors=7)
    untold = Sample(rss_bytes=None, pss_bytes=None, cpu_percent=1.0, cpu_seconds=1.0, descriptors=None)
    assert resources([told, untold]) == {
        "memory": {"rss_bytes": 100, "pss_bytes": 60},
        "cpu": {"percent": 2.3, "seconds": 3.0},
        "descriptors": 7,
    }
    assert resources([untold])["memory"] == {"rss_bytes": None, "pss_bytes": None}
