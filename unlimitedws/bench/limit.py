"""Who was at his limit while it was measured: the server, as it should be, or the load generator, whose figures are then its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from unlimitedws.bench.run import Window

BUSY = 0.9
"""A process that uses this part of a core waits for nothing but its core."""

LATE_PART = 0.5
LATE_US = 1_000.0
"""An open loop is late that sends one message of a hundred later than this, and where that is this part of the 99th percentile."""

REMEDY = "give it CPUs that nothing else uses (--cpus) and as many --processes, or another machine"
LIMITS = {
    "load": "THE LOAD GENERATOR WAS THE LIMIT: it used its core up, and the server did not; the figures are its own. To load the server: "
    f"{REMEDY}",
    "server": "the server was the limit: one of its processes used its core up",
    "machine": "THE MACHINE WAS THE LIMIT: load or server waited for CPUs that the other, or other programs, used. Keep them apart, as in "
    "taskset -c 0 for the server and --cpus 1",
    "rate": "neither was at its limit: the rate, or the number of messages in flight, was",
    "unknown": "the load was not at its limit; of the server nothing is known: --pid shows it, while it runs",
}


def limit(window: Window, cpus: int = 0, *, is_punctual: bool = False) -> str:
    """What kept the load from being more, one of LIMITS. cpus: to which the load is bound; 0: to none.

    is_punctual: it sent everything when it was due. Then it may be busy: it wakes for each message, and for several when it has to."""
    load = window.load_cores.values()
    is_load_full = not is_punctual and (max(load, default=0.0) >= BUSY or 0 < cpus * BUSY <= sum(load))
    if not window.server_cores:
        return "load" if is_load_full else "unknown"
    if max(window.server_cores.values(), default=0.0) >= BUSY:
        return "server"
    if is_load_full:
        return "load"
    wanted = max([*wants(window.load_cores, window.load_waits), *wants(window.server_cores, window.server_waits)], default=0.0)
    is_known = any(window.load_waits.values()) or any(window.server_waits.values())  # some kernels do not tell
    is_machine_full = wanted >= BUSY or (not is_known and window.machine_cores >= BUSY * (os.cpu_count() or 1))
    return "machine" if is_machine_full else "rate"


def is_late(late_us: float, answer_us: float) -> bool:
    """Whether the latencies, by their 99th percentile, are for a good part the load generator's own."""
    return late_us > LATE_US and late_us > LATE_PART * answer_us


def wants(cores: Mapping[int, float], waits: Mapping[int, float]) -> list[float]:
    """Cores that each process would have used, had they been free."""
    return [used + waits.get(pid, 0.0) for pid, used in cores.items()]


def verdict(report: Mapping[str, Any]) -> list[str]:
    """In words, from a report."""
    load, latencies = report["load"], report["latency_us"]
    if not load["limit"]:
        return []
    lines = [LIMITS[load["limit"]]]
    if load["limit"] == "load" and is_secure(report):
        lines.append("TLS goes through Python's ssl module here, and costs as much as it costs a server of ours")
    if load["limit"] == "server" and load["busiest_core"] >= BUSY:
        lines.append(f"the load was near its own limit as well ({load['busiest_core']:.0%} of a core): more of it may show a little more")
    late, answers = (latencies.get(name, {}).get("p99", 0.0) for name in ("late", "latency"))
    if is_late(late, answers):
        lines.append(f"THE LOAD GENERATOR WAS LATE: 1 message in 100 by more than {late:,.0f} us, which the latencies contain; {REMEDY}")
    return lines


def is_secure(report: Mapping[str, Any]) -> bool:
    """Whether it was a run over TLS."""
    return any(url.startswith("wss:") for url in report["urls"])
