"""Who was at his limit, and that it is said when that was the load."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from unlimitedws.bench.limit import LIMITS, limit, verdict
from unlimitedws.bench.run import Window


def window(load: float, server: float | None, machine: float = 0.5, *, load_waits: float = 0.0, server_waits: float = 0.0) -> Window:
    servers = None if server is None else {3: server, 4: 0.0}
    return Window(1.0, Counter(), {1: load, 2: 0.1}, servers, machine, {1: load_waits}, {3: server_waits})


@pytest.mark.parametrize(
    ("seen", "name"),
    [
        (window(0.95, 0.99), "server"),
        (window(0.97, 0.5), "load"),
        (window(0.97, None), "load"),
        (window(0.5, None), "unknown"),
        (Window(1.0, Counter(), {1: 0.5}, {}, 0.5), "unknown"),  # it has ended meanwhile
        (window(0.3, 0.3), "rate"),
        (window(0.5, 0.5, machine=10_000), "machine"),
        (window(0.5, 0.3, load_waits=0.5), "machine"),
        (window(0.1, 0.1, machine=10_000, load_waits=0.1), "rate"),
        (window(0.3, 0.5, server_waits=0.5), "machine"),
        (window(0.3, 0.93, load_waits=0.7), "server"),
    ],
)
def test_the_limit_is_whoever_used_a_core_up(seen: Window, name: str) -> None:
    assert limit(seen) == name
    assert name in LIMITS


def test_processes_that_fill_the_cpus_they_are_bound_to_are_at_their_limit_together() -> None:
    two_on_one_cpu = Window(1.0, Counter(), {1: 0.5, 2: 0.48}, {3: 0.7}, 1.7)
    assert (limit(two_on_one_cpu, cpus=1), limit(two_on_one_cpu, cpus=2), limit(two_on_one_cpu)) == ("load", "rate", "rate")


def test_an_open_loop_that_sends_in_time_may_be_busy() -> None:
    busy = window(0.97, 0.5)
    assert (limit(busy, is_punctual=True), limit(busy)) == ("machine", "load")


def report(name: str, busiest_core: float = 0.5, url: str = "ws://a/", **latencies: float) -> dict[str, Any]:
    return {
        "urls": [url],
        "load": {"limit": name, "busiest_core": busiest_core},
        "latency_us": {name: {"number": 1, "p99": p99} for name, p99 in latencies.items()},
    }


def test_it_says_that_the_load_generator_was_the_limit_and_what_to_do() -> None:
    (line,) = verdict(report("load", 0.97))
    assert "THE LOAD GENERATOR WAS THE LIMIT" in line
    assert "--cpus" in line
    assert "--processes" in line


def test_of_a_load_at_its_limit_it_says_what_tls_has_to_do_with_it() -> None:
    assert "TLS goes through" in verdict(report("load", 0.97, "wss://a/"))[1]


def test_it_says_that_the_load_was_near_its_limit_where_the_server_was_at_its_own() -> None:
    assert len(verdict(report("server", 0.5))) == 1
    assert "the load was near its own limit as well (95% of a core)" in verdict(report("server", 0.95))[1]


@pytest.mark.parametrize(("late", "answers", "is_told"), [(5_000.0, 6_000.0, True), (5_000.0, 60_000.0, False), (900.0, 1_000.0, False)])
def test_a_load_that_sent_late_says_so_where_it_made_the_latencies(late: float, answers: float, is_told: bool) -> None:
    words = verdict(report("rate", late=late, latency=answers))
    assert any("THE LOAD GENERATOR WAS LATE: 1 message in 100 by more than 5,000 us" in line for line in words) is is_told


def test_nothing_is_said_where_nothing_was_measured() -> None:
    assert verdict({"load": {"limit": None}, "latency_us": {}}) == []
