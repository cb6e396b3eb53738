"""Holds N echo connections with heartbeats on, and says what they cost.

    python -m tests.capacity --connections 100000 --workers 8       (or: make capacity ARGS="--connections 100000 --workers 8")

Starts the server with enough workers for its limit of open files and `unlimitedws bench --mode idle` against it. The memory is the
PSS of all of the server's processes: supervisor, template and workers, Python included. Both ends of each connection are on this machine:
a million of them need some 10 GB of kernel memory.

Exit status: 0 when every goal was reached, 1 when one was not, 2 when it cannot be tried here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.capacity import namespace
from tests.capacity.goals import rows, table
from tests.supervisor.running import Running

EACH_WORKER = 18_000  # of 20,000 open files: the kernel's choice of a worker is not quite even
WARM_S = 8.0  # what a server does once in its first seconds is no cost of a connection
BENCH = [sys.executable, "-c", "import sys; from unlimitedws.cli import main; sys.exit(main())", "bench"]
ECHO = """
from unlimitedws import Handlers
handlers = Handlers()
@handlers.on_message
def echo(conn, message):
    conn.send(message)
"""


def main() -> int:
    options = parse()
    if options.hash_entries:
        try:
            namespace.enter(options.hash_entries)
        except OSError as error:
            print(f"--hash-entries: {error}; it needs root and Linux 6.1", file=sys.stderr)
            return 2
    workers = options.workers or math.ceil(options.connections / EACH_WORKER)
    settings = {"workers": workers, "ping_interval_s": options.ping_interval_s, "engine": options.engine, "log_level": "info"}
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder), source=ECHO, hang_timeout_s=30, **settings)
        try:
            running.ready()
            time.sleep(options.settle_s)
            report = load(running, options, Path(folder) / "report.json")
            running.stop()
        finally:
            running.destroy()
    if report is None:
        return 2
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    found = rows(report)
    print(f"\n{options.connections:,} connections, {workers} workers ({options.engine} engine), pings every {options.ping_interval_s:g} s;")
    print(machine() + "\n")
    print(table(found), flush=True)
    return 1 if any(row.reached is False for row in found) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.capacity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=20_000, metavar="N")
    parser.add_argument("--workers", type=int, default=0, metavar="W", help=f"default: one for each {EACH_WORKER:,} connections")
    parser.add_argument("--engine", default="native", choices=("native", "portable"))
    parser.add_argument("--ping-interval-s", type=float, default=25.0, metavar="S")
    parser.add_argument("--settle-s", type=float, default=WARM_S, metavar="S", help="between the server's start and the first connection")
    parser.add_argument("--rest-s", type=float, default=50.0, metavar="S", help="at rest: two rounds of pings by default")
    parser.add_argument("--sample", type=int, default=2000, metavar="K", help="connections that are asked for an echo while all are held")
    parser.add_argument("--measure-s", type=float, default=10.0, metavar="S", help="time over which these are spread")
    parser.add_argument("--after-s", type=float, default=30.0, metavar="S", help="after all have left")
    parser.add_argument(
        "--connect-rate", type=float, default=0.0, metavar="N", help="connections a second; 0: as fast as they are accepted"
    )
    parser.add_argument(
        "--hash-entries", type=int, default=0, metavar="N",
        help="in a network namespace of its own, whose hash of established connections has so many chains (needs root)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="the whole report of unlimitedws bench")
    return parser.parse_args()


def load(running: Running, options: argparse.Namespace, file: Path) -> dict[str, object] | None:
    """The report of the load; None, and its complaint shown, when there is none."""
    given = {name: getattr(options, name) for name in ("connections", "sample", "rest_s", "measure_s", "after_s", "connect_rate")}
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    ramp_s = max(300, options.connections / 2000)
    command = [*BENCH, f"ws://127.0.0.1:{running.port}/", "--mode", "idle", "--pid", str(running.pid), "--json", str(file)]
    subprocess.run([*command, *flags, "--ramp-timeout-s", str(ramp_s), "--timeout-s", "60"])
    return json.loads(file.read_text()) if file.exists() else None


def machine() -> str:
    with open("/proc/cpuinfo") as info:
        cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    here = f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores ({cpu}), {time.strftime('%Y-%m-%d')}"
    return here if (chains := namespace.chains()) is None else f"{here}, {chains:,} chains in the kernel's hash of connections"


if __name__ == "__main__":
    sys.exit(main())
