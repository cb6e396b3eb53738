"""What a run has measured, as JSON: `fields.py` says what each field means."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict
from typing import Any

from unlimitedws.bench import options as declared
from unlimitedws.bench.limit import is_late, limit
from unlimitedws.bench.run import Reading, Run, Window

FORMAT = 1
Report = dict[str, Any]


def make(run: Run) -> Report:
    """The whole report: plain numbers, units at the ends of the names, null for what is not known."""
    options, now = run.options, run.counters
    faults = run.faults()
    errors = {name: number for name, number in error_counts(run).items() if number}
    return {
        "format": FORMAT,
        "tool": "unlimitedws bench",
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(), "cpu": cpu_model()},
        "urls": [target.url for target in run.crew.targets],
        "mode": options.mode,
        "loop": "open" if options.is_open_loop else "closed",
        "options": declared.to_json(options),
        "interrupted": run.is_interrupted,
        "stopped_early": run.stopped_early or None,
        "connections": connections(run),
        "messages": messages(run),
        "latency_us": {name: latency.to_json() for name, latency in run.latencies.items()},
        "connect_us": run.crew.latency("connect").to_json(),
        "server": server(run),
        "kernel": kernel(run),
        "load": load(run),
        "faults": faults,
        "errors": errors,
        "closes": {str(code): number for code, number in run.crew.closes().items()},
        "statuses": {str(status): number for status, number in run.crew.statuses().items()},
        "errnos": {call: {str(errno): number for errno, number in numbers.items()} for call, numbers in run.crew.errnos().items()},
        "counters": dict(sorted(now.items())),
        "ok": not errors and not run.stopped_early,
    }


def connections(run: Run) -> dict[str, Any]:
    now, per_s = run.counters, connects_per_s(run)
    return {
        "asked": run.options.connections,
        "opened": now["opened"],
        "failed": now["failed"],
        "lost": now["lost"],
        "held": now["held"],
        "cut": now["cut"],
        "per_s": per_s and round(per_s, 1),
        **{f"{name.replace(' ', '_')}_s": round(seconds, 3) for name, seconds in run.seconds.items()},
    }


def connects_per_s(run: Run) -> float | None:
    """While it was measured, where it is connections that are; else while they came up."""
    if window := cycles(run):
        return window.counters["opened"] / window.seconds
    took_s = (run.counters["last_ns"] - run.counters["first_ns"]) / 1e9
    if run.options.mode in ("slow", "half-open"):  # they come in two parts, seconds apart
        took_s = run.seconds.get("connecting", 0.0)
    return run.counters["opened"] / took_s if took_s > 0 else None


def cycles(run: Run) -> Window | None:
    """The time measured, where it is connections that are."""
    return run.windows.get("measure") if run.options.mode in ("connect", "reconnect") else None


def messages(run: Run) -> dict[str, Any]:
    now = run.counters
    window = run.windows.get("measure")
    per_s = None
    if window and run.options.mode not in ("connect", "reconnect"):
        per_s = round((window.counters["answered"] + window.counters["delivered"]) / window.seconds, 1)
    return {
        "due": now["due"],
        "answered": now["answered"],
        "unanswered": now["unanswered"],
        "published": now["published"],
        "delivered": now["delivered"],
        "per_s": per_s,
    }


def error_counts(run: Run) -> dict[str, int]:
    """What makes a run not ok. A slow or half-open connection that is cut is what a good server does."""
    now, retried = run.counters, run.options.mode == "reconnect" and run.counters["up"] >= run.options.connections
    return {
        "failed": 0 if retried else now["failed"],
        "lost": now["lost"],
        "wrong content": now["wrong_content"],
        "wrong length": now["wrong_length"],
        "wrong opcode": now["wrong_opcode"],
        "unanswered": now["unanswered"],
        "unasked": now["unasked"],
        "missing": now["missing"],
        "doubled": now["doubled"],
        "protocol": now["protocol_errors"],
        "timeouts": 0 if retried else now["timeouts"],
    }


def cpu_model() -> str:
    with open("/proc/cpuinfo") as info:
        return next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())


# ---- server, kernel, load


def server(run: Run) -> dict[str, Any] | None:
    if run.server is None:
        return None
    measured: dict[str, Any] = {name: reading_json(reading) for name, reading in run.readings.items()}
    empty, full = run.readings.get("empty"), run.readings.get("full")
    per_connection = None
    if empty and full and empty.memory and full.memory and full.connections:
        per_connection = round((full.memory.pss - empty.memory.pss) / full.connections, 1)
    return {
        "pid": run.server.pid,
        "doubt": run.server.doubt or None,
        "memory": measured,
        "pss_per_connection_bytes": per_connection,
        **server_cpu(run),
    }


def reading_json(reading: Reading) -> dict[str, Any] | None:
    return {**asdict(reading.memory), "connections": reading.connections} if reading.memory else None


def server_cpu(run: Run) -> dict[str, Any]:
    """Cores of the whole server and of its busiest process; CPU for each message (connection), and at rest."""
    found: dict[str, Any] = {"cores": None, "busiest_core": None, "cpu_us_per_message": None, "rest_us_per_connection_s": None}
    window, rest = run.windows.get("measure"), run.windows.get("rest")
    if window and window.server_cores:
        cores = sum(window.server_cores.values())
        done = window.counters["answered"] + window.counters["delivered"] or window.counters["opened"]
        found["cores"], found["busiest_core"] = round(cores, 3), round(max(window.server_cores.values()), 3)
        found["cpu_us_per_message"] = round(cores * window.seconds * 1e6 / done, 3) if done else None
    full = run.readings.get("full")
    if rest and rest.server_cores and full and full.connections:
        found["rest_us_per_connection_s"] = round(sum(rest.server_cores.values()) * 1e6 / full.connections, 4)
    return found


def kernel(run: Run) -> dict[str, Any]:
    """Growth for each connection, from the empty server to all connected; of both ends where the load runs here too."""
    empty, full = run.readings.get("empty"), run.readings.get("full")
    number = full.connections if empty and full else 0
    return {
        "connections": number,
        "bytes_per_connection": full.kernel.per_connection(empty.kernel, number) if empty and full and number else None,
        "both_ends": all(target.is_loopback for target in run.crew.targets),
    }


def load(run: Run) -> dict[str, Any]:
    window = run.windows.get("measure")
    cores = list(window.load_cores.values()) if window else []
    return {
        "processes": len(run.crew.rows),
        "sources": len(run.crew.plan.sources),
        "cores": round(sum(cores), 3) if cores else None,
        "busiest_core": round(max(cores), 3) if cores else None,
        "machine_cores": round(window.machine_cores, 3) if window else None,
        "seconds": round(window.seconds, 3) if window else None,
        "waited_cores": round(max(window.load_waits.values(), default=0.0), 3) if window else None,
        "limit": limit(window, len(run.crew.plan.cpus), is_punctual=is_punctual(run)) if window and not run.stopped_early else None,
    }


def is_punctual(run: Run) -> bool:
    late = run.latencies["late"]
    return late.number > 0 and not is_late(late.at_us(99.0), run.latencies["latency"].at_us(99.0))
