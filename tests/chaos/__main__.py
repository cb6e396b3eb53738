"""Reloads and kills under load, counted by clients that check every message.

    python -m tests.chaos                        (or: make chaos)
    python -m tests.chaos --reloads 100 --kills 100 --seed 7 --engine portable
    python -m tests.chaos --reloads 0 --idle 0 --kills 0 --moves 0 --killed-moves 500 --scalings 0

1. 10,000 connections echo on 2 workers, paced, while the server is reloaded again and again: nothing may be closed, lost,
   doubled or altered. The longest answer is the longest pause that a client saw.
2. 15,000 idle connections of one worker move: how long that took, in its own words.
3. Workers are killed (-9) at random moments while new clients come all the time: none may be refused, and the slot has to be
   back within a second.
4. Workers that serve give each other parts of those 10,000, and rebalance: nothing may be closed, lost, doubled or altered.
5. Workers are killed while they give or take connections, in reloads and between workers that serve: they may cost those clients
   that they had, and nobody else anything.
6. The number of workers changes again and again under those 10,000, while new clients come: nobody may be closed or refused.
7. The supervisor is replaced again and again under those 10,000, while new clients come: as 1, and none may be refused.
8. The same with something else at a random moment of it (a worker or the template killed, a reload, another upgrade, another
   number of workers): nobody may be refused, and the server has to be whole afterwards.

Exit status: 0 when all that was reached, 1 when not. Needs a hard limit of 20,000 open files.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import time

from tests.bench.tools import compile_tools
from tests.chaos.moves import killed_moves, moves
from tests.chaos.scalings import scalings
from tests.chaos.tools import Footprint, Newcomers, load, report, server
from tests.chaos.upgrades import disturbed_upgrades, upgrades

CONNECTIONS, IDLE = 10_000, 15_000
RATE = 10_000  # messages a second, of all of them
SECONDS_EACH = 0.75  # for a reload, on two cores that also make the load
MOST_PAUSE_MS, MOST_MOVE_MS, MOST_GAP_S = 250.0, 200.0, 1.0


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
    return nothing_lost and after.is_like(before) and in_time and latency["max"] / 1000 <= MOST_PAUSE_MS


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
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--killed-moves", type=int, default=100)
    parser.add_argument("--scalings", type=int, default=20)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--disturbed-upgrades", type=int, default=50)
    parser.add_argument("--idle", type=int, default=1, choices=(0, 1))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--engine", default="native", choices=("native", "portable"))
    options = parser.parse_args()
    compile_tools()
    print(f"seed {options.seed}, engine {options.engine}", flush=True)
    chance = random.Random(options.seed)
    reached = [
        *([reloads(options.engine, options.reloads, chance)] if options.reloads else []),
        *([idle(options.engine)] if options.idle else []),
        *([kills(options.engine, options.kills, chance)] if options.kills else []),
        *([moves(options.engine, options.moves, chance)] if options.moves else []),
        *([killed_moves(options.engine, options.killed_moves, chance)] if options.killed_moves else []),
        *([scalings(options.engine, options.scalings, chance)] if options.scalings else []),
        *([upgrades(options.engine, options.upgrades, chance)] if options.upgrades else []),
        *([disturbed_upgrades(options.engine, options.disturbed_upgrades, chance)] if options.disturbed_upgrades else []),
    ]  # fmt: skip
    print("reached" if all(reached) else "NOT reached")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
