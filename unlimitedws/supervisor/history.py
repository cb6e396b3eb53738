"""What the whole server counted in the last half hour, so that a page that is opened now can show it.

One short array for each look, ~0.6 KB; of each worker only what a page draws is kept (worker_history.py).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from unlimitedws.cost import KERNEL_BYTES
from unlimitedws.engine import counters
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.report import Document, Report, add, columns, resources
from unlimitedws.supervisor.sampler import Sample
from unlimitedws.supervisor.stats_table import COLUMNS
from unlimitedws.supervisor.worker_history import Now, WorkerHistory

KEEP_S = 1800.0


class Look(NamedTuple):
    """The server at one time. row: the sum of all its workers', those before them included, without the ring of closes."""

    time: float
    uptime_s: float
    restarts: int
    resources: Document
    row: tuple[int, ...]


class History:
    """every_s: how often `look` is called; it decides how many are kept."""

    def __init__(self, report: Report, every_s: float) -> None:
        self.report = report
        self.looks: deque[Look] = deque(maxlen=int(KEEP_S / every_s))
        self.workers = WorkerHistory(KEEP_S, every_s)

    def look(self) -> None:
        """Keeps how things are now."""
        report = self.report
        now, samples, children = time.time(), report.sample(), report.children()
        sums = report.sums(children)
        row = add(sums.values())[: -len(counters.RING)]
        self.looks.append(Look(now, report.uptime_s, report.fleet.restarts, resources(samples.values()), tuple(row)))
        memory = memory_of(children, samples)
        self.workers.look(now, {slot.number: Now(sums[slot.number], memory.get(slot.number), slot.restarts) for slot in report.fleet.slots})

    def pack(self) -> Document:
        """The looks, for the supervisor after an upgrade."""
        return {"columns": COLUMNS, "looks": list(self.looks), "workers": self.workers.pack()}

    def resume(self, packed: Document) -> None:
        """Goes on with them, unless a release in between counts other things."""
        if packed["columns"] == COLUMNS:
            self.looks.extend(Look(time, uptime_s, restarts, used, tuple(row)) for time, uptime_s, restarts, used, row in packed["looks"])
        self.workers.resume(packed.get("workers", {}))

    def document(self) -> Document:
        """The looks, the earliest first, in the words of /stats."""
        return {"history": [self.told(look) for look in self.looks]}

    def told(self, look: Look) -> Document:
        total = {**columns(look.row), **look.resources}
        return {
            "time": round(look.time, 3),
            "uptime_s": look.uptime_s,
            "pid": os.getpid(),
            "restarts": look.restarts,
            "kernel_memory_bytes": KERNEL_BYTES * (total["connections_open"] + total["handshakes_pending"]),
            "total": total,
        }


def memory_of(children: Iterable[Child], samples: Mapping[int, Sample]) -> dict[int, int]:
    """Slot to the memory of its processes, as far as it is known."""
    found: dict[int, int] = {}
    for child in children:
        sample = samples.get(child.pid)
        size = (sample.pss_bytes or sample.rss_bytes) if sample else None
        if size is not None:
            found[child.order.slot] = found.get(child.order.slot, 0) + size
    return found
