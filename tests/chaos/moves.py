"""Connections that move all the time, and workers that are killed while they do."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.tools import Footprint, Newcomers, Talkers, load, report, server
from tests.supervisor.running import Running, until
from unlimitedws.handover.link import BATCH

SCRIPT = """
# The operator's hands, as signals: some connections from anybody to anybody, and a rebalance.
import asyncio, random, signal
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.rebalance import held, rebalance, settled

chance = random.Random(SEED)
start = Fleet.start

async def give(fleet):
    async with fleet.reloader.turn:
        await settled(fleet)
        workers = held(fleet)
        if len(workers) < 2:
            print("chaos: nobody to give to", flush=True)
            return
        (giver, count), (taker, _) = chance.sample(workers, 2)
        count = chance.choice([None, chance.randint(0, count)])
        print(f"chaos: {giver.pid} gives {count} to {taker.pid}", flush=True)
        print(f"chaos: {await giver.give(taker, count)} were given", flush=True)

async def start_and_listen(fleet):
    loop = asyncio.get_running_loop()
    for number, story in ((signal.SIGUSR1, give), (signal.SIGRTMIN, rebalance)):
        loop.add_signal_handler(number, lambda story=story: fleet.tasks.start(story(fleet)))
    await start(fleet)

Fleet.start = start_and_listen

from unlimitedws import Supervisor

Supervisor("app:handlers", **SETTINGS).run()
"""
GIVE, REBALANCE = signal.SIGUSR1, signal.SIGRTMIN

CONNECTIONS = 10_000
RATE = 10_000  # messages a second, of all of them
SECONDS_EACH = 0.5
TALKERS, INTERVAL_S = 6_000, 2.0
IN_THE_MIDDLE_S = 0.06  # about what the handover of half the talkers takes
MOST_PAUSE_MS, MOST_GAP_S = 250.0, 1.0


def script(seed: int, **settings: Any) -> str:
    settings = {"port": 0, "admin_port": 0, "workers": 2, "hang_timeout_s": 0, **settings}
    return SCRIPT.replace("SEED", str(seed)).replace("SETTINGS", repr(settings))


def said(running: Running, pattern: str) -> int:
    return len(re.findall(pattern, running.log))


def after(running: Running, number: signal.Signals, pattern: str, timeout_s: float = 30.0) -> None:
    """Sends a signal, and returns when the log has one more line of this kind."""
    before = said(running, pattern)
    running.signal(number)
    until(lambda: said(running, pattern) > before, timeout_s, every_s=0.002, but=lambda: running.log[-3000:])


def moves(engine: str, count: int, chance: random.Random) -> bool:
    """Parts of the connections go to and fro, then evenly again, under load that is compared byte by byte."""
    arguments = f"--conns {CONNECTIONS} --size 32 --msg-rate {RATE} --warm 2 --connect-limit 120 --timeout 30"
    with server(script=script(chance.randrange(1 << 32), engine=engine)) as running:
        process = load(running, f"echo {arguments} --secs {6 + count * SECONDS_EACH:.0f}")
        until(lambda: running.stats["total"]["connections_open"] == CONNECTIONS, 120)
        time.sleep(2.5)
        before, began = Footprint(running), time.monotonic()
        uneven = 0
        for _ in range(count):
            after(running, GIVE, r"were given|nobody to give")
            after(running, REBALANCE, r"rebalanced: ")
            shares = [worker["connections_open"] for worker in running.stats["workers"]]
            uneven = max(uneven, max(shares) - min(shares))
            time.sleep(chance.uniform(0, 0.1))
        took_s = time.monotonic() - began
        in_time = process.poll() is None
        found = report(process)
        footprint = Footprint(running)
        moved = sum(map(int, re.findall(r"(\d+) (?:connections moved|were given)", running.log)))
    latency = found["latency_us"]
    late = "" if in_time else " (the load ended before the last)"
    print(f"{count} gifts and {count} rebalances in {took_s:.1f} s under {CONNECTIONS:,} connections: {moved:,} moves{late}")
    print(f"  closed, lost, doubled, altered: {found['errors'] or 'none'}; still up: {found['up_at_end']:,}")
    print("  answers, ms: " + ", ".join(f"{name} {latency[name] / 1000:.1f}" for name in ("p50", "p90", "p99", "p99_9", "max")))
    print(f"  after a rebalance no worker had over {uneven} connections more than another")
    print(f"  before: {before}\n  after:  {footprint}", flush=True)
    nothing_lost = bool(found["ok"]) and found["up_at_end"] == CONNECTIONS
    return nothing_lost and footprint.is_like(before) and in_time and latency["max"] / 1000 <= MOST_PAUSE_MS and uneven <= 1


class Kill:
    """A worker killed while connections move, and what it had at that moment."""

    def __init__(self, running: Running, giver: int, taker: int, chance: random.Random) -> None:
        self.role, self.pid = chance.choice([("giver", giver), ("taker", taker)])
        time.sleep(chance.uniform(0, IN_THE_MIDDLE_S))
        try:
            rows = self.kill(running)
        except ProcessLookupError:  # the giver was through, and has ended
            self.role, self.pid = "taker", taker
            rows = self.kill(running)
        self.at = time.monotonic()
        self.held = rows.get(self.pid, 0)
        self.is_in_the_middle = min(rows.get(giver, 0), rows.get(taker, 0)) > 0

    def kill(self, running: Running) -> dict[int, int]:
        """Kills it; how many connections each worker had when it was stopped. What it has then is all that it may cost."""
        os.kill(self.pid, signal.SIGSTOP)
        workers = running.stats["workers"]
        os.kill(self.pid, signal.SIGKILL)
        return {worker["pid"]: worker["connections_open"] + worker["handshakes_pending"] for worker in workers}


def in_a_reload(running: Running) -> tuple[int, int]:
    """Has the server reload; the pids of the first worker that gives its connections, and of its successor."""
    running.signal(signal.SIGHUP)

    def both() -> tuple[int, int] | None:
        workers = running.stats["workers"]
        for giver in workers:
            if giver["state"] == "draining":
                for taker in workers:
                    if taker["slot"] == giver["slot"] and taker["state"] == "ready":
                        return giver["pid"], taker["pid"]
        return None

    return until(both, 30, every_s=0.001, but=lambda: running.log[-3000:])  # type: ignore[return-value]


def in_a_gift(running: Running) -> tuple[int, int]:
    """Has one worker give some to another; their pids."""
    after(running, GIVE, r"chaos: \d+ gives")
    giver, taker = re.findall(r"chaos: (\d+) gives \S+ to (\d+)", running.log)[-1]
    return int(giver), int(taker)


def at_rest(running: Running) -> bool:
    """Whether both slots are served, and nobody else is left."""
    stats = running.stats
    return [worker["state"] for worker in stats["workers"]] == ["ready", "ready"]


def killed_moves(engine: str, count: int, chance: random.Random) -> bool:
    """Givers and takers die in the middle. What they had is lost with them, and nothing else."""
    begin: list[Callable[[Running], tuple[int, int]]] = [in_a_reload, in_a_gift]
    # Without heartbeats: these clients are too simple to answer a Ping.
    settings = {"engine": engine, "restart_backoff_s": 0, "ping_interval_s": 0}
    kills: list[Kill] = []
    longest_s, excess = 0.0, 0
    with server(script=script(chance.randrange(1 << 32), **settings)) as running:
        running.expected = "Traceback (most recent call last)"
        talkers = Talkers(running.port, TALKERS, INTERVAL_S)
        newcomers = Newcomers(running.port, at_once=2, pause_s=0.01)
        try:
            talkers.all_there()
            time.sleep(1)
            before = Footprint(running)
            for _ in range(count):
                time.sleep(chance.uniform(0, 0.3))
                cut = talkers.count("cut")
                giver, taker = chance.choice(begin)(running)
                kills.append(Kill(running, giver, taker, chance))
                running.successors(kills[-1].pid, workers=2)
                longest_s = max(longest_s, time.monotonic() - kills[-1].at)
                until(lambda: at_rest(running), 60, every_s=0.05, but=lambda: running.log[-3000:])
                talkers.all_there()
                excess = max(excess, talkers.count("cut") - cut - kills[-1].held)
            time.sleep(2 * INTERVAL_S)
            last = talkers.look()
            footprint = Footprint(running)
        finally:
            newcomers.end()
            talkers.end()
    amiss = {
        name: talkers.count(name) for name in ("closed", "lost", "doubled", "altered", "refused", "turned_away") if talkers.count(name)
    }
    middle = [kill for kill in kills if kill.is_in_the_middle]
    by_role = ", ".join(f"{sum(kill.role == role for kill in middle)} {role}s" for role in ("giver", "taker"))
    print(f"{count} workers killed while connections moved, {len(middle)} of them in the middle ({by_role}), under {TALKERS:,} clients")
    print(f"  {talkers.count('answered'):,} answers; closed, lost, doubled, altered, refused: {json.dumps(amiss) if amiss else 'none'}")
    print(
        f"  cut: {talkers.count('cut'):,}; the workers had {sum(kill.held for kill in kills):,} when they were killed; "
        f"at no kill more than that and a batch that was acknowledged at that moment ({BATCH}): {excess <= BATCH}"
    )
    print(
        f"  {newcomers.served:,} new clients served, {newcomers.refused} refused, {newcomers.dropped} dropped with their worker; slots "
        f"back after {longest_s:.2f} s at the latest; longest wait for an answer that came: {talkers.longest_s:.2f} s"
    )
    print(f"  before: {before}\n  after:  {footprint}", flush=True)
    if amiss:
        print(f"  first: {talkers.first}")
    everything_back = last["unanswered"] < TALKERS and footprint.is_like(before)
    return not amiss and excess <= BATCH and newcomers.refused == 0 and longest_s <= MOST_GAP_S and everything_back
