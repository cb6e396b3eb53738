"""Workers that come and go under load, counted by clients that check every message."""

from __future__ import annotations

import random
import re
import time

from tests.chaos.tools import Footprint, Newcomers, load, report, server
from tests.supervisor.running import until

CONNECTIONS = 10_000
RATE = 10_000  # messages a second, of all of them
MOST_WORKERS = 6
SECONDS_EACH = 2.5  # a listener that goes is open for a second more, so that nobody is refused
MOST_PAUSE_MS = 250.0


def scalings(engine: str, count: int, chance: random.Random) -> bool:
    """Another number of workers again and again, while newcomers come all the time: nobody may be closed or refused, nothing lost."""
    arguments = f"--conns {CONNECTIONS} --size 32 --msg-rate {RATE} --warm 2 --connect-limit 120 --timeout 30"
    with server(workers=2, engine=engine) as running:
        process = load(running, f"echo {arguments} --secs {10 + count * SECONDS_EACH:.0f}")
        until(lambda: running.stats["total"]["connections_open"] == CONNECTIONS, 120)
        time.sleep(2.5)
        before, began, workers = Footprint(running), time.monotonic(), 2
        newcomers = Newcomers(running.port, at_once=2, pause_s=0.01)
        uneven = 0
        try:
            for number in range(count):
                workers = 2 if number == count - 1 else chance.choice([each for each in range(1, MOST_WORKERS + 1) if each != workers])
                done = running.ctl("workers", str(workers))
                if done.returncode:
                    raise SystemExit(f"{done.stderr}\n{running.log[-3000:]}")
                shares = [worker["connections_open"] for worker in running.stats["workers"]]
                uneven = max(uneven, max(shares) - min(shares))
        finally:
            newcomers.end()
        took_s = time.monotonic() - began
        in_time = process.poll() is None
        found = report(process)
        after = Footprint(running)
        moved = sum(int(number.replace(",", "")) for number in re.findall(r"workers; ([\d,]+) connections moved", running.log))
        closed = sum(int(number.replace(",", "")) for number in re.findall(r"([\d,]+) closed with 1012", running.log))
    latency = found["latency_us"]
    late = "" if in_time else " (the load ended before the last)"
    print(f"{count} times another number of workers in {took_s:.1f} s under {CONNECTIONS:,} connections: {moved:,} moved{late}")
    print(f"  closed, lost, doubled, altered: {found['errors'] or 'none'}; still up: {found['up_at_end']:,}; closed with 1012: {closed}")
    print("  answers, ms: " + ", ".join(f"{name} {latency[name] / 1000:.1f}" for name in ("p50", "p90", "p99", "p99_9", "max")))
    print(
        f"  {newcomers.served:,} new clients served, {newcomers.refused} refused, {newcomers.dropped} dropped; longest wait of one "
        f"{newcomers.longest_s:.2f} s; no worker had over {uneven} connections more than another"
    )
    print(f"  before: {before}\n  after:  {after}", flush=True)
    nothing_lost = bool(found["ok"]) and found["up_at_end"] == CONNECTIONS and newcomers.refused == newcomers.dropped == closed == 0
    return nothing_lost and after.is_like(before) and in_time and latency["max"] / 1000 <= MOST_PAUSE_MS
