"""The front door measured: what a hook costs, whether slow hooks lose anybody, what a siege does to honest clients.

    python -m tests.bench.door --rounds 5      (or: make bench-door)

Each figure is a ratio of two measures of one round, the server on one core, all loads on the other.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.servers import OURS, Server, running
from tests.bench.tools import ROOT, compile_tools
from tests.bench.works import Load, wsload

COOKIE = "--header 'Cookie: theme=dark; session=6f1c0a9e2b7d4c35; lang=en'"
RAMP = f"idle --conns 15000 --connect-limit 60 --settle 0.2 {COOKIE}"
TOGETHER = "idle --conns 5000 --inflight 5000 --connect-limit 60 --settle 0.2"
# Paced: latency counts from when a message was due, and the quiet value is not that of a server at its limit.
HONEST = "echo --conns 100 --size 32 --msg-rate 10000 --warm 0.5 --secs 3 --settle 0.2"


def ours(app: str) -> Server:
    return Server(app, OURS.replace("{app}", f"tests.bench.{app}:handlers") + "native")


def measured(app: str, arguments: str, *, besieged: bool = False) -> dict[str, object]:
    """The load generator's report of one server under one load."""
    with running(ours(app), "echo", {0}) as (port, pid):
        load = Load(port, pid, {1}, 0.3, 3.0)
        if not besieged:
            return wsload(load, arguments)
        with siege(port):
            return wsload(load, arguments)


@contextmanager
def siege(port: int) -> Iterator[None]:
    """2,000 requests that never end and a flood of Pings, held against a server; from the core of the load, behind it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.siege", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: os.sched_setaffinity(0, {1}),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "held\n":
            raise SystemExit("the siege did not come up")
        yield
        if process.poll() is not None:
            raise SystemExit("the siege ended before the measure")
    finally:
        process.kill()
        process.communicate()


def hook_ratio() -> float:
    bare, hooked = measured("echo", RAMP), measured("hooked", RAMP)
    return cpu(hooked) / cpu(bare)


def cpu(report: dict[str, object]) -> float:
    return float(report["server"]["cpu_us_per_handshake"])  # type: ignore[index]


def siege_ratio() -> float:
    return p99(measured("echo", HONEST, besieged=True)) / p99(measured("echo", HONEST))


def p99(report: dict[str, object]) -> float:
    return float(report["latency_us"]["p99"])  # type: ignore[index]


def shown(name: str, ratios: list[float], most: float) -> None:
    median = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{name}: {median:.2f} ({spread}, {len(ratios)} rounds), to reach: <= {most}: {'yes' if median <= most else 'NO'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    compile_tools()
    shown("connect and upgrade with a plain on_upgrade that reads a cookie, x without", [hook_ratio() for _ in range(rounds)], 1.3)
    measured("deciding", TOGETHER)  # raises where a single handshake is lost
    print("5,000 handshakes at once, an async on_upgrade that sleeps 10 ms: none lost", flush=True)
    shown("echo p99 of 100 clients beside 2,000 slow requests and a flood of Pings, x quiet", [siege_ratio() for _ in range(rounds)], 2.0)


if __name__ == "__main__":
    main()
