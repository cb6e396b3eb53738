"""The supervisor replaced again and again, under load; and with something else in the middle of it."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from tests.chaos.tools import Footprint, Newcomers, load, report, server
from tests.supervisor.running import Running, is_alive, until

CONNECTIONS = 10_000
RATE = 10_000  # messages a second, of all of them
SECONDS_EACH = 3.0
MOST_PAUSE_MS = 250.0
UPGRADE_S = 1.5
"""About what one takes, check and reload included: something happens at a random moment of it."""


def stats(running: Running) -> dict[str, Any]:
    """Nothing at the moment in which the program is replaced."""
    try:
        return running.stats
    except (OSError, ValueError):
        return {}


def upgrades(engine: str, count: int, chance: random.Random) -> bool:
    arguments = f"--conns {CONNECTIONS} --size 32 --msg-rate {RATE} --warm 2 --connect-limit 120 --timeout 30"
    with server(workers=2, engine=engine) as running:
        process = load(running, f"echo {arguments} --secs {6 + count * SECONDS_EACH:.0f}")
        until(lambda: running.stats["total"]["connections_open"] >= CONNECTIONS, 120)
        newcomers = Newcomers(running.port, at_once=1, pause_s=0.01)
        try:
            time.sleep(2.5)
            before, began = Footprint(running), time.monotonic()
            for number in range(1, count + 1):
                running.signal(signal.SIGUSR2)
                until(lambda number=number: stats(running).get("reloads", 0) >= number, 120, but=lambda: running.log)  # type: ignore[misc]
                time.sleep(chance.uniform(0, 0.1))
            took_s = time.monotonic() - began
            in_time = process.poll() is None
        finally:
            newcomers.end()
        found = report(process)
        after = Footprint(running)
        made = running.stats["upgrades"]
    latency = found["latency_us"]
    late = "" if in_time else " (the load ended before the last)"
    print(f"{made} upgrades in {took_s:.1f} s under {CONNECTIONS:,} connections, {found['msgs_per_s']:,.0f} echoes/s{late}")
    print(f"  closed, lost, doubled, altered: {found['errors'] or 'none'}; still up: {found['up_at_end']:,}")
    print("  answers, ms: " + ", ".join(f"{name} {latency[name] / 1000:.1f}" for name in ("p50", "p90", "p99", "p99_9", "max")))
    print(f"  meanwhile {newcomers.served:,} new clients served, {newcomers.refused} refused, {newcomers.dropped} dropped")
    print(f"  before: {before}\n  after:  {after}", flush=True)
    nothing_lost = bool(found["ok"]) and found["up_at_end"] == CONNECTIONS and not (newcomers.refused or newcomers.dropped)
    return nothing_lost and after.is_like(before) and in_time and made == count and latency["max"] / 1000 <= MOST_PAUSE_MS


def kill_a_worker(running: Running, chance: random.Random, pids: list[int], template: int) -> None:
    kill(chance.choice(pids))


def kill_the_template(running: Running, chance: random.Random, pids: list[int], template: int) -> None:
    kill(template)


def reload(running: Running, chance: random.Random, pids: list[int], template: int) -> None:
    running.signal(signal.SIGHUP)


def upgrade_again(running: Running, chance: random.Random, pids: list[int], template: int) -> None:
    running.signal(signal.SIGUSR2)


def scale(running: Running, chance: random.Random, pids: list[int], template: int) -> None:
    running.signal(signal.SIGTTIN if len(pids) < 4 else signal.SIGTTOU)


DISTURBANCES = (kill_a_worker, kill_the_template, reload, upgrade_again, scale)


def kill(pid: int) -> None:
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def disturbed_upgrades(engine: str, count: int, chance: random.Random) -> bool:
    """An upgrade, and something else at a random moment of it: nobody is refused, and the server is whole again afterwards."""
    happened = dict.fromkeys((each.__name__ for each in DISTURBANCES), 0)
    with server(workers=2, engine=engine, restart_backoff_s=0) as running:
        running.expected = "Traceback (most recent call last)"
        newcomers = Newcomers(running.port, at_once=2, pause_s=0.002)
        try:
            for _ in range(count):
                pids, template = running.workers(), running.template()
                disturbance, moment_s = chance.choice(DISTURBANCES), chance.uniform(0, UPGRADE_S)
                running.signal(signal.SIGUSR2)
                time.sleep(moment_s)
                disturbance(running, chance, pids, template)
                happened[disturbance.__name__] += 1
                until(lambda: is_whole(running), 60, but=lambda: running.log)
        finally:
            newcomers.end()
        made = running.stats["upgrades"]
        is_well = running.echoes()
    print(f"{count} disturbed upgrades, {made} made: " + ", ".join(f"{name.replace('_', ' ')} {times}" for name, times in happened.items()))
    print(
        f"  {newcomers.served:,} new clients served, {newcomers.refused} refused, {newcomers.dropped} dropped with their worker", flush=True
    )
    return newcomers.refused == 0 and is_well and made >= count * 0.9


def is_whole(running: Running) -> bool:
    """Whether nothing is under way, and each slot has one worker, of one template."""
    done = running.ctl("status", "--json")
    if done.returncode or '"state": "serving"' not in done.stdout:
        return False
    now = stats(running)
    roles = [process["role"] for process in now.get("processes", ())]
    states = [worker["state"] for worker in now.get("workers", ())]
    return states == ["ready"] * len(now.get("slots", ())) and roles.count("template") == 1
