"""Reloads and kills under load, counted by clients that check every message.

    python -m tests.chaos                        (or: make chaos)
    python -m tests.chaos --reloads 100 --kills 100 --seed 7 --engine portable

1. 10,000 connections echo on 2 workers, paced, while the server is reloaded again and again: nothing may be closed, lost,
   doubled or altered. The longest answer is the longest pause that a client saw.
2. 15,000 idle connections of one worker move: how long that took, in its own words.
3. Workers are killed (-9) at random moments while new clients come all the time: none may be refused, and the slot has to be
   back within a second.

Exit status: 0 when all that was reached, 1 when not. Needs a hard limit of 20,000 open files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.tools import BUILD, compile_tools
from tests.peer import request
from tests.supervisor.running import Running

CONNECTIONS, IDLE = 10_000, 15_000
RATE = 10_000  # messages a second, of all of them
SECONDS_EACH = 0.75  # for a reload, on two cores that also make the load
MOST_PAUSE_MS, MOST_MOVE_MS, MOST_GAP_S = 250.0, 200.0, 1.0


@contextmanager
def server(**settings: Any) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder), hang_timeout_s=0, **settings)
        try:
            yield running.ready()
            running.stop()
        finally:
            running.destroy()


def load(running: Running, arguments: str) -> subprocess.Popen[str]:
    command = [str(BUILD / "wsload"), *shlex.split(arguments), "--port", str(running.port), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, complaint = process.communicate(timeout=900)
    if not output.strip():
        raise SystemExit(f"the load ended without a report: {complaint[-300:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


class Footprint:
    """What a server takes: descriptors of the supervisor, processes, PSS of all of them."""

    def __init__(self, running: Running) -> None:
        processes = running.stats["processes"]
        self.descriptors = len(os.listdir(f"/proc/{running.pid}/fd"))
        self.processes = len(processes)
        self.pss_mb = sum(process["memory"]["pss_bytes"] or 0 for process in processes) / 1e6

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors of the supervisor, {self.processes} processes, {self.pss_mb:.1f} MB of PSS"


def reloads(engine: str, count: int, chance: random.Random) -> bool:
    arguments = f"--conns {CONNECTIONS} --size 32 --msg-rate {RATE} --warm 2 --connect-limit 120 --timeout 30"
    with server(workers=2, engine=engine) as running:
        process = load(running, f"echo {arguments} --secs {6 + count * SECONDS_EACH:.0f}")
        while running.stats["total"]["connections_open"] < CONNECTIONS:
            time.sleep(0.1)
        time.sleep(2.5)
        before, began = Footprint(running), time.monotonic()
        for number in range(1, count + 1):
            running.signal(signal.SIGHUP)
            while running.stats["reloads"] < number:
                time.sleep(0.02)
            time.sleep(chance.uniform(0, 0.1))
        took_s = time.monotonic() - began
        in_time = process.poll() is None
        found = report(process)
        after = Footprint(running)
        moves = sorted(float(ms) for ms in re.findall(r"handed over in (\d+) ms", running.log))
    latency = found["latency_us"]
    late = "" if in_time else " (the load ended before the last)"
    print(f"{count} reloads in {took_s:.1f} s under {CONNECTIONS:,} connections, {found['msgs_per_s']:,.0f} echoes/s{late}")
    print(f"  closed, lost, doubled, altered: {found['errors'] or 'none'}; still up: {found['up_at_end']:,}")
    print("  answers, ms: " + ", ".join(f"{name} {latency[name] / 1000:.1f}" for name in ("p50", "p90", "p99", "p99_9", "max")))
    print(f"  a worker's handover, ms: median {moves[len(moves) // 2]:.0f}, longest {moves[-1]:.0f}")
    print(f"  before: {before}\n  after:  {after}", flush=True)
    nothing_lost = bool(found["ok"]) and found["up_at_end"] == CONNECTIONS
    nothing_kept = after.descriptors <= before.descriptors + 1 and after.pss_mb <= before.pss_mb * 1.05 + 5  # one: who asks for the stats
    return nothing_lost and nothing_kept and in_time and latency["max"] / 1000 <= MOST_PAUSE_MS


def idle(engine: str) -> bool:
    with server(workers=1, engine=engine) as running:
        process = load(running, f"idle --conns {IDLE} --connect-limit 120 --settle 0.5 --hold 6")
        while running.stats["total"]["connections_open"] < IDLE:
            time.sleep(0.1)
        running.signal(signal.SIGHUP)
        took_ms = float(running.says(r"15000 connections handed over in (\d+) ms", 30)[1])
        found = report(process)
    print(f"{IDLE:,} idle connections of one worker handed over in {took_ms:.0f} ms; still up: {found['up_at_end']:,}")
    return took_ms <= MOST_MOVE_MS and found["up_at_end"] == IDLE


class Newcomers:
    """Clients that come one after the other, each with a handshake, for as long as it runs; several at a time."""

    def __init__(self, port: int, at_once: int = 4) -> None:
        self.port, self.going = port, True
        self.served = self.refused = self.dropped = 0
        self.longest_s = 0.0
        self.threads = [threading.Thread(target=self.come) for _ in range(at_once)]
        for thread in self.threads:
            thread.start()

    def come(self) -> None:
        while self.going:
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
                    client.sendall(request())
                    answered = client.recv(1024).startswith(b"HTTP/1.1 101 ")
            except ConnectionRefusedError:
                self.refused += 1
                continue
            except OSError:
                answered = False
            self.served += answered
            self.dropped += not answered  # by the worker that was killed while it had them
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def end(self) -> None:
        self.going = False
        for thread in self.threads:
            thread.join()


def kills(engine: str, count: int, chance: random.Random) -> bool:
    longest_s = 0.0
    with server(workers=2, engine=engine, restart_backoff_s=0) as running:
        running.expected = "Traceback (most recent call last)"
        newcomers = Newcomers(running.port)
        try:
            for _ in range(count):
                time.sleep(chance.uniform(0.05, 0.4))
                pids = running.successors(workers=2)
                victim = chance.choice(pids)
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                running.successors(victim, workers=2)
                longest_s = max(longest_s, time.monotonic() - killed)
        finally:
            newcomers.end()
    print(
        f"{count} workers killed: {newcomers.served:,} new clients served, {newcomers.refused} refused, {newcomers.dropped} dropped "
        f"with their worker; slot back after {longest_s:.2f} s at the latest, longest wait of a client {newcomers.longest_s:.2f} s"
    )
    return newcomers.refused == 0 and longest_s <= MOST_GAP_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--engine", default="native", choices=("native", "portable"))
    options = parser.parse_args()
    compile_tools()
    print(f"seed {options.seed}, engine {options.engine}", flush=True)
    chance = random.Random(options.seed)
    reached = [
        *([reloads(options.engine, options.reloads, chance)] if options.reloads else []),
        idle(options.engine),
        *([kills(options.engine, options.kills, chance)] if options.kills else []),
    ]  # fmt: skip
    print("reached" if all(reached) else "NOT reached")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
