"""Whether `unlimitedws bench` is ever the bottleneck: the CPU that it needs beside the CPU of the server that it drives.

    python -m tests.bench.load                       (or: make bench-load)
    python -m tests.bench.load --server websockets   a peer of tests/bench/servers.py

The server is pinned to core 0, the load to core 1. Where the machine has other things to do, the
ratio still holds and the latencies do not.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.empty import row
from tests.bench.servers import chosen, running
from tests.bench.tools import ROOT

BENCH = [sys.executable, "-c", "import sys; from unlimitedws.cli import main; sys.exit(main())", "bench"]
CLOSED = tuple(
    f"--connections {connections} --message-bytes {size} --pipeline {pipeline}"
    for pipeline in (1, 16)
    for size in (32, 1024)
    for connections in (100, 1000)
)
OPEN = tuple(
    f"--connections {connections} --message-bytes {size} --rate {rate}"
    for rate in (50_000, 1_000_000)
    for size in (32, 1024)
    for connections in (100, 1000)
)
COLUMNS = ("load", "messages/s", "p50, us", "p99, us", "server, cores", "load, cores", "load / server", "the limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="unlimitedws", help="one of those of tests/bench/servers.py")
    parser.add_argument("--measure-s", default="3", help="time of each measure")
    parser.add_argument("loads", nargs="*", default=[*CLOSED, *OPEN], help="flags of unlimitedws bench, in quotes, instead of all")
    options = parser.parse_args()
    (server,) = chosen([options.server], ())
    server.install()
    print(row(*COLUMNS), row(*("---" for _ in COLUMNS)), sep="\n", flush=True)
    with running(server, "echo", {0}) as (port, pid):
        for flags in options.loads:
            print(row(f"`{flags}`", *figures(measured(port, pid, flags, options.measure_s))), flush=True)


def measured(port: int, pid: int, flags: str, measure_s: str) -> dict[str, Any]:
    """The report of one load. Raises SystemExit where there is none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        fixed = ["--pid", str(pid), "--cpus", "1", "--warm-s", "0.5", "--measure-s", measure_s, "--json", str(file)]
        subprocess.run([*BENCH, f"ws://127.0.0.1:{port}/", *fixed, *shlex.split(flags)], cwd=ROOT, stdout=subprocess.DEVNULL)
        if not file.exists():
            raise SystemExit(f"no report of {flags}")
        report: dict[str, Any] = json.loads(file.read_text())
    return report


def figures(report: dict[str, Any]) -> list[str]:
    load, server, latency = report["load"], report["server"], report["latency_us"]["latency"]
    return [
        f"{report['messages']['per_s']:,.0f}", f"{latency['p50']:,.0f}", f"{latency['p99']:,.0f}",
        f"{server['busiest_core']:.2f}", f"{load['cores']:.2f}", f"{load['cores'] / server['busiest_core']:.2f}",
        load["limit"] if report["ok"] else "NOT OK",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
