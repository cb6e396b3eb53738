"""Finds workers whose loop does not turn: dumps their stacks and kills them, so that they are replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.process import DUMP_SIGNAL

log = logging.getLogger("unlimitedws.supervisor")

LOOK_EVERY_S = 1.0
DUMP_S = 0.5
"""Between the dump and the kill: writing the stacks of 128 threads takes a few milliseconds."""
LATE_S = 1.0
"""When we look so much later than we wanted to, we were stopped ourselves (a suspended machine, Ctrl-Z,
no CPU): the workers then get their whole time again, from now."""


class Watchdog:
    """Compares each worker's last turn, which it writes into its row, with the clock."""

    def __init__(self, fleet: Fleet, hang_timeout_s: float) -> None:
        self.fleet, self.hang_timeout_s = fleet, hang_timeout_s
        self.look_every_s = max(DUMP_S, min(LOOK_EVERY_S, hang_timeout_s / 4))
        self.looked_ns = self.awake_since_ns = time.monotonic_ns()
        self.dumped: set[Child] = set()

    def start(self) -> None:
        if self.hang_timeout_s > 0:
            self.fleet.loop.call_later(self.look_every_s, self.look)

    def look(self) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self.looked_ns > (self.look_every_s + LATE_S) * 1e9:
            self.awake_since_ns = now_ns
        self.looked_ns = now_ns
        for child in self.hung(now_ns, tuple(self.fleet.children.values())):
            self.dump(child)
        self.dumped &= set(self.fleet.children.values())
        self.start()

    def hung(self, now_ns: int, children: Iterable[Child]) -> list[Child]:
        return [child for child in children if child not in self.dumped and self.silence_s(child, now_ns) > self.hang_timeout_s]

    def silence_s(self, child: Child, now_ns: int) -> float:
        """Seconds since the loop of a worker that serves last turned; 0 while it starts."""
        beat_ns = self.fleet.table.row(child.order.row)[INDEX["beat_ns"]]
        if child.state == "starting" or not beat_ns:
            return 0.0
        return (now_ns - max(beat_ns, self.awake_since_ns)) / 1e9

    def dump(self, child: Child) -> None:
        log.error(
            "the loop of worker %d of slot %d has not turned for %g s: its stacks follow, then it is replaced",
            child.pid, child.order.slot, self.hang_timeout_s,
        )  # fmt: skip
        self.dumped.add(child)
        child.signal(DUMP_SIGNAL)
        self.fleet.loop.call_later(DUMP_S, child.kill, "its loop hung")
