"""A report for people: which loop it was, what went wrong."""

from __future__ import annotations

from typing import Any

from unlimitedws.bench.table import table


def report(**given: Any) -> dict[str, Any]:
    return {
        "mode": "echo", "loop": "open", "urls": ["ws://a/"], "interrupted": False, "stopped_early": None, "ok": True,
        "faults": [], "errors": {},
        "connections": {"opened": 5, "failed": 0, "lost": 0, "held": 0, "cut": 0, "per_s": 10.0, "connecting_s": 0.5},
        "messages": {"per_s": 100.0}, "server": None, "kernel": {"connections": 0, "bytes_per_connection": None, "both_ends": True},
        "load": {"processes": 2, "sources": 0, "cores": None, "busiest_core": None, "limit": "load"},
        "latency_us": {"latency": {"number": 0}}, "connect_us": {"number": 0}, **given,
    }  # fmt: skip


def test_a_closed_loop_is_called_one() -> None:
    assert "CLOSED LOOP" in table(report(loop="closed"))
    assert "CLOSED" not in table(report())
    assert "all are due back at the loss" in table(report(mode="reconnect"))


def test_memory_that_may_be_of_another_process_is_said_to_be() -> None:
    server = {"pid": 5, "memory": {"empty": None}, "cores": None, "rest_us_per_connection_s": None}
    assert "WHOSE MEMORY AND CPU? process 5 does not" in table(report(server={**server, "doubt": "process 5 does not"}))
    assert "WHOSE" not in table(report(server={**server, "doubt": None}))


def test_errors_come_with_their_causes() -> None:
    shown = table(report(ok=False, errors={"lost": 3}, faults=["3 x Close 1011"], stopped_early="every connection was lost"))
    assert "STOPPED EARLY: every connection was lost" in shown
    assert "ERRORS: 3 lost" in shown
    assert "because of: 3 x Close 1011" in shown


def test_memory_is_shared_out_among_connections_only_where_there_are_many() -> None:
    sizes = {"slab": 9000.0, "caches": None, "cgroup": None, "tcp_pages": 0.0}
    few, many = (report(kernel={"connections": n, "bytes_per_connection": sizes, "both_ends": True}) for n in (999, 1000))
    assert "bytes for both ends" not in table(few)
    assert "bytes for both ends of a connection: 9,000 (all slab)" in table(many)
