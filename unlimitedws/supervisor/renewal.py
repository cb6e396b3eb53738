"""Replaces workers that are old or large, one at a time, by fresh ones of the same code."""

from __future__ import annotations

import asyncio
import logging
import random

from unlimitedws.config import Config
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.report import Report
from unlimitedws.supervisor.sampler import Sample
from unlimitedws.supervisor.slot import Slot

log = logging.getLogger("unlimitedws.supervisor")

LOOK_EVERY_S = 5.0
JITTER = 0.1
"""Workers of one start shall not grow old in one moment, and those of many machines neither."""

GROWTH_S = 60.0
"""A worker younger than this is not replaced for its size: its successor would have it again as soon, and nobody
would be served for longer than that."""

MIB = 1024 * 1024


class Renewal:
    """Looks at the workers now and then, and asks the fleet for the successor of one that is beyond a limit."""

    def __init__(self, fleet: Fleet, report: Report, config: Config, *, growth_s: float = GROWTH_S) -> None:
        self.fleet, self.report, self.config, self.growth_s = fleet, report, config, growth_s
        self.parts: dict[int, float] = {}  # serial -> its part of max_worker_age_s
        self.warned = False

    @property
    def is_needed(self) -> bool:
        return bool(self.config.max_worker_age_s or self.config.max_worker_memory_bytes)

    @property
    def look_every_s(self) -> float:
        age_s = self.config.max_worker_age_s
        return min(LOOK_EVERY_S, max(0.05, age_s / 10)) if age_s else LOOK_EVERY_S

    async def go_on_looking(self) -> None:
        """Until the server stops."""
        while not self.fleet.leaving:
            await self.fleet.stopping.pause(self.look_every_s)
            if not self.fleet.leaving and (due := self.first_due()):
                await self.renew(*due)

    async def renew(self, slot: Slot, why: str) -> None:
        """Returns when the one before is gone, so that at most one worker drains for our sake."""
        before = slot.current
        if before is None:
            return
        log.info("replacing worker %d of slot %d: %s", before.pid, slot.number, why)
        if await self.fleet.reloader.renew(slot):
            await self.fleet.stopping.either(asyncio.shield(before.ended))
        else:
            await self.fleet.stopping.pause(max(LOOK_EVERY_S, slot.backoff.after_failure()))  # the old one goes on; why is in the log

    def first_due(self) -> tuple[Slot, str] | None:
        """The slot whose worker is to be replaced, the oldest first, and why; None: all is well."""
        samples = self.report.sample() if self.config.max_worker_memory_bytes else {}
        serving = [(slot, slot.current) for slot in self.fleet.slots if slot.current is not None]
        self.parts = {child.order.serial: self.part(child) for _, child in serving}
        for slot, child in sorted(serving, key=lambda each: -each[1].served_s):
            if why := self.too_old(child) or self.too_large(child, samples.get(child.pid)):
                return slot, why
        return None

    def part(self, child: Child) -> float:
        return self.parts.get(child.order.serial) or random.uniform(1 - JITTER, 1 + JITTER)

    def too_old(self, child: Child) -> str:
        limit_s = self.config.max_worker_age_s * self.parts[child.order.serial]
        return f"it has served for {child.served_s:.0f} s" if 0 < limit_s <= child.served_s else ""

    def too_large(self, child: Child, sample: Sample | None) -> str:
        limit = self.config.max_worker_memory_bytes
        size = memory_of(sample)
        if not limit or size <= limit:
            return ""
        if child.served_s >= self.growth_s:
            return f"it takes {size // MIB} MiB of memory"
        if not self.warned:
            log.warning(
                "worker %d takes %d MiB of memory after %.0f s; max_worker_memory_bytes (%d MiB) is too low for this app",
                child.pid, size // MIB, child.served_s, limit // MIB,
            )  # fmt: skip
            self.warned = True
        return ""


def memory_of(sample: Sample | None) -> int:
    """PSS where the kernel tells it: workers share what they were forked with, and RSS counts that once for each."""
    if sample is None:
        return 0
    return sample.pss_bytes or sample.rss_bytes or 0
