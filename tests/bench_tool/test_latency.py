"""Percentiles of what was counted, and how they are kept."""

from __future__ import annotations

import pytest

from unlimitedws.bench.latency import Latency, decoded


def counted(*values_ns: int) -> Latency:
    latency = Latency()
    latency.add(min(values_ns), max(values_ns), [(ns, 1) for ns in values_ns])
    return latency


def test_percentiles_are_within_a_thousandth_and_the_ends_exact() -> None:
    numbers = counted(*(ns * 1000 for ns in range(1, 1001))).to_json()
    assert numbers["number"] == 1000
    assert numbers["p50"] == pytest.approx(500, rel=1e-3)
    assert numbers["p99"] == pytest.approx(990, rel=1e-3)
    assert (numbers["least"], numbers["longest"]) == (1.0, 1000.0)


def test_processes_are_added_up() -> None:
    both = counted(1000, 2000)
    both.add(500, 9000, [(500, 3), (9000, 1)])
    assert (both.number, both.least_ns, both.most_ns) == (6, 500, 9000)


def test_nothing_counted_is_nothing_said() -> None:
    assert Latency().to_json() == {"number": 0}


def test_a_histogram_is_read_back_as_it_was_written() -> None:
    numbers = counted(1000, 5000, 70_000_000).to_json()
    again = decoded(numbers["histogram_ns"])
    assert again.get_total_count() == 3
    assert again.get_value_at_percentile(100) == pytest.approx(70_000_000, rel=1e-3)


def test_what_is_no_histogram_is_an_error() -> None:
    with pytest.raises(ValueError, match="no HdrHistogram"):
        decoded("bm8gaGlzdG9ncmFt")
