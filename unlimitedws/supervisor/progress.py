"""What the server is doing, in one line: for systemd's status, and in the log while it stops."""

from __future__ import annotations

import asyncio
import logging

from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.notify import Notifier

log = logging.getLogger("unlimitedws.supervisor")

EVERY_S = 2.0


class Progress:
    """Counts connections of all workers, and says how many there are, or are left."""

    def __init__(self, fleet: Fleet, notifier: Notifier) -> None:
        self.fleet, self.notifier = fleet, notifier
        self.most = 0
        self.stop_by: float | None = None

    async def go_on_telling(self) -> None:
        """For as long as the server lives; at once when it stops, so that the first line has them all."""
        while True:
            self.tell()
            if self.fleet.stopping.is_set():
                await asyncio.sleep(EVERY_S)
            else:
                await self.fleet.stopping.pause(EVERY_S)

    def tell(self) -> None:
        line = self.line()
        self.notifier.status(line)
        if self.fleet.stopping.is_set() and self.open:
            log.info("%s", line)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        table = self.fleet.table
        return sum(table.row(child.order.row)[INDEX["connections_open"]] for child in self.fleet.children.values())

    def line(self) -> str:
        """The state of the server."""
        fleet = self.fleet
        if fleet.stopping.is_set():
            return self.stopping()
        if fleet.leaving:
            return f"about to stop: accepting, but not ready, with {counted(self.open, 'connection')}"
        workers = sum(slot.is_served for slot in fleet.slots)
        if not workers:
            return "no worker is ready"
        return f"serving {counted(self.open, 'connection')} with {counted(workers, 'worker')}"

    def stopping(self) -> str:
        now = self.fleet.loop.time()
        if self.stop_by is None:
            self.stop_by = now + self.fleet.config.stop_timeout_s
        self.most = max(self.most, self.open)
        left_s = max(0.0, self.stop_by - now)
        return f"stopping: {self.open:,} of {counted(self.most, 'connection')} left, cut in {left_s:.0f} s at the latest"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
