"""The document behind /stats: every worker, every slot, and the whole server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from unlimitedws.engine import counters
from unlimitedws.engine.counters import INDEX
from unlimitedws.pressure import Pressure
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.sampler import Sample, Sampler
from unlimitedws.supervisor.slot import Slot
from unlimitedws.supervisor.stats_table import COUNTERS

Document = dict[str, Any]

CLOSES = "closes_"
SUMMED_GAUGES = frozenset(
    {"connections_open", "handshakes_pending", "queued_bytes", "buffers_held", "threads_busy", "connections_counted", "connections_share"}
)
LARGEST_GAUGES = frozenset({"loop_lag_us", "loop_lag_max_us", "shedding"})


def columns(row: memoryview[int] | list[int]) -> Document:
    """What a row says under the names of `counters`; the closes as an object of their own, by cause."""
    plain: Document = {}
    closes: Document = {}
    for i, field in enumerate(counters.FIELDS):
        if field.name.startswith(CLOSES):
            closes[field.name.removeprefix(CLOSES)] = row[i]
        elif field.kind == "counter" or field.name in SUMMED_GAUGES or field.name in LARGEST_GAUGES:
            plain[field.name] = row[i]
    return {**plain, "closes": closes}


def add(rows: Iterable[memoryview[int]]) -> list[int]:
    """One row for several: counters and most gauges summed, of lags the largest."""
    total = [0] * len(counters.FIELDS)
    for row in rows:
        for i, field in enumerate(counters.FIELDS):
            if field.name in LARGEST_GAUGES:
                total[i] = max(total[i], row[i])
            elif i in COUNTERS or field.name in SUMMED_GAUGES:
                total[i] += row[i]
    return total


def pressure(pressure: Pressure) -> Document:
    """How short memory is, 0 to 1, as last read; 0 where no setting asks for it."""
    used, stalled = pressure.reading
    return {"memory_used": round(used, 4), "memory_stalled": round(stalled, 4), "shedding": pressure.is_shedding}


def resources(samples: Iterable[Sample]) -> Document:
    """Memory, CPU and descriptors of some processes together; null where the kernel does not tell, or nobody is left."""
    samples = tuple(samples)
    return {
        "memory": {
            "rss_bytes": total(sample.rss_bytes for sample in samples),
            "pss_bytes": total(sample.pss_bytes for sample in samples),
        },
        "cpu": {
            "percent": round(sum(sample.cpu_percent for sample in samples), 1),
            "seconds": round(sum(sample.cpu_seconds for sample in samples), 2),
        },
        "descriptors": total(sample.descriptors for sample in samples),
    }


def total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


class Report:
    """Makes the document, from the fleet, its table and a sampler."""

    def __init__(self, fleet: Fleet, sampler: Sampler, *, version: str) -> None:
        self.fleet, self.sampler, self.version = fleet, sampler, version
        self.started_at = time.monotonic()

    @property
    def is_ready(self) -> bool:
        """Whether at least one worker serves, and will go on doing so."""
        return not self.fleet.leaving and self.fleet.is_served

    def pids(self) -> dict[int, str]:
        """Every process of the server by pid, and what it is."""
        workers = {child.pid: "worker" for child in self.fleet.children.values()}
        templates = {generation.pid: "template" for generation in self.fleet.generations if generation.pid}
        return {os.getpid(): "supervisor", **templates, **workers}

    def sample(self) -> dict[int, Sample]:
        return self.sampler.sample(self.pids())

    def document(self) -> Document:
        samples = self.sample()
        fleet, generation = self.fleet, self.fleet.generation
        children = sorted(fleet.children.values(), key=lambda child: (child.order.slot, child.order.serial))
        totals = [fleet.table.totals(slot.number) for slot in fleet.slots]
        rows = [fleet.table.row(child.order.row) for child in children]
        return {
            "version": self.version,
            "pid": os.getpid(),
            "listening": self.fleet.listeners.names,
            "uptime_s": round(time.monotonic() - self.started_at, 3),
            "engine": generation.engine if generation else None,
            "ready": self.is_ready,
            "restarts": sum(slot.restarts for slot in fleet.slots),
            "reloads": fleet.reloader.count,
            "pressure": pressure(fleet.pressure),
            "total": {**columns(add([*totals, *rows])), **resources(samples.values())},
            "workers": [self.worker(child, samples) for child in children],
            "slots": [self.slot(slot, children) for slot in fleet.slots],
            "processes": [{"pid": pid, "role": role, **resources([samples[pid]])} for pid, role in self.pids().items() if pid in samples],
        }

    def worker(self, child: Child, samples: dict[int, Sample]) -> Document:
        """One process: what it has counted itself."""
        row = self.fleet.table.row(child.order.row)
        sample = samples.get(child.pid)
        return {
            "slot": child.order.slot,
            "pid": child.pid,
            "serial": child.order.serial,
            "state": child.state,
            "engine": child.engine or None,
            "uptime_s": self.uptime_s(row),
            "restarts": self.fleet.slots[child.order.slot].restarts,
            **columns(row),
            **resources([sample] if sample else []),
        }

    def uptime_s(self, row: memoryview[int]) -> float:
        started_ns = row[INDEX["started_ns"]]
        return round((time.monotonic_ns() - started_ns) / 1e9, 3) if started_ns else 0.0

    def slot(self, slot: Slot, children: list[Child]) -> Document:
        """One slot: what all its processes have counted, the dead ones too."""
        mine = [child for child in children if child.order.slot == slot.number]
        rows = [self.fleet.table.row(child.order.row) for child in mine]
        return {
            "slot": slot.number,
            "restarts": slot.restarts,
            "pids": [child.pid for child in mine],
            **columns(add([self.fleet.table.totals(slot.number), *rows])),
        }
