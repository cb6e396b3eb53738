"""What the server says of itself: every worker, every slot and the whole, for /stats, /metrics and /closes.

docs/reference/stats.md says what each field of /stats means; it is made from `fields.py`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from unlimitedws.cost import KERNEL_BYTES
from unlimitedws.engine import closes, counters
from unlimitedws.engine.counters import INDEX
from unlimitedws.pressure import Pressure
from unlimitedws.supervisor import metrics
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.metrics import Family
from unlimitedws.supervisor.room import Held, Room, room
from unlimitedws.supervisor.sampler import Sample, Sampler
from unlimitedws.supervisor.slot import Slot
from unlimitedws.supervisor.stats_table import COUNTERS

Document = dict[str, Any]

SUMMED_GAUGES = frozenset(
    {"connections_open", "handshakes_pending", "queued_bytes", "buffers_held", "threads_busy", "connections_counted", "connections_share"}
)
LARGEST_GAUGES = frozenset({"loop_lag_us", "loop_lag_max_us", "shedding"})


PLAIN = tuple((field.name, INDEX[field.name]) for field in counters.FIELDS if field.kind in ("counter", "gauge") and not field.family)
GROUPS = {name: tuple((field.label, INDEX[field.name]) for field in fields) for name, fields in counters.FAMILIES.items()}
SUMMED = (*COUNTERS, *(INDEX[name] for name in SUMMED_GAUGES))
LARGEST = tuple(INDEX[name] for name in LARGEST_GAUGES)


def columns(row: Sequence[int]) -> Document:
    """What a row says under the names of `counters`; closes and histograms as objects of their own."""
    groups = {name: {label: row[i] for label, i in labels} for name, labels in GROUPS.items()}
    return {**{name: row[i] for name, i in PLAIN}, **groups}


def add(rows: Iterable[Sequence[int]]) -> list[int]:
    """One row for several: counters and most gauges summed, of lags the largest."""
    total = [0] * len(counters.FIELDS)
    for row in rows:
        for i in SUMMED:
            total[i] += row[i]
        for i in LARGEST:
            total[i] = max(total[i], row[i])
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
    """Asks the fleet, its table and a sampler."""

    def __init__(self, fleet: Fleet, sampler: Sampler, *, version: str) -> None:
        self.fleet, self.sampler, self.version = fleet, sampler, version
        self.started_at = time.monotonic()
        self.started = time.time()

    def pack(self) -> Document:
        """What the supervisor after an upgrade goes on counting from."""
        return {"started_at": self.started_at, "started": self.started}

    def resume(self, packed: Document) -> None:
        self.started_at, self.started = packed["started_at"], packed["started"]

    @property
    def is_ready(self) -> bool:
        """Whether at least one worker serves, and will go on doing so."""
        return not self.fleet.leaving and self.fleet.is_served

    @property
    def engine(self) -> str | None:
        return self.fleet.generations.current.engine if self.fleet.generations.current else None

    @property
    def uptime_s(self) -> float:
        return round(time.monotonic() - self.started_at, 3)

    def pids(self) -> dict[int, str]:
        """Every process of the server by pid, and what it is."""
        workers = {child.pid: "worker" for child in self.fleet.children.values()}
        templates = {generation.pid: "template" for generation in self.fleet.generations.all if generation.pid}
        return {os.getpid(): "supervisor", **templates, **workers}

    def sample(self) -> dict[int, Sample]:
        return self.sampler.sample(self.pids())

    def children(self) -> list[Child]:
        return sorted(self.fleet.children.values(), key=lambda child: (child.order.slot, child.order.serial))

    def row(self, child: Child) -> memoryview[int]:
        return self.fleet.table.row(child.order.row)

    def sums(self, children: Iterable[Child]) -> dict[int, list[int]]:
        """Slot to the sum of what all its processes have counted, the dead ones too."""
        table = self.fleet.table
        rows: dict[int, list[memoryview[int]]] = {slot.number: [table.totals(slot.number)] for slot in self.fleet.ever}
        for child in children:  # its slot may be about to be added
            rows.setdefault(child.order.slot, [table.totals(child.order.slot)]).append(self.row(child))
        return {slot: add(mine) for slot, mine in rows.items()}

    # ---- /stats

    def document(self) -> Document:
        samples, children, fleet = self.sample(), self.children(), self.fleet
        sums = self.sums(children)
        return {
            "version": self.version,
            "pid": os.getpid(),
            "listening": fleet.listeners.names,
            "time": round(time.time(), 3),
            "uptime_s": self.uptime_s,
            "engine": self.engine,
            "ready": self.is_ready,
            "restarts": fleet.restarts,
            "reloads": fleet.reloader.count,
            "upgrades": fleet.upgrades,
            "pressure": pressure(fleet.pressure),
            "room": self.room(samples)._asdict(),
            "kernel_memory_bytes": KERNEL_BYTES * sum(held.connections for held in self.held(samples)),
            "total": {**columns(add(sums.values())), **resources(samples.values())},
            "workers": [self.worker(child, samples) for child in children],
            "slots": [self.slot(slot, sums[slot.number], children) for slot in fleet.slots],
            "processes": [{"pid": pid, "role": role, **resources([samples[pid]])} for pid, role in self.pids().items() if pid in samples],
        }

    def worker(self, child: Child, samples: dict[int, Sample]) -> Document:
        """One process: what it has counted itself."""
        row, slots = self.row(child), self.fleet.ever
        sample = samples.get(child.pid)
        return {
            "slot": child.order.slot,
            "pid": child.pid,
            "serial": child.order.serial,
            "state": child.state,
            "engine": child.engine or None,
            "uptime_s": uptime_s(row),
            "restarts": slots[child.order.slot].restarts if child.order.slot < len(slots) else 0,
            **columns(row),
            **resources([sample] if sample else []),
        }

    def slot(self, slot: Slot, total: list[int], children: list[Child]) -> Document:
        """One slot: what all its processes have counted, the dead ones too."""
        return {
            "slot": slot.number,
            "restarts": slot.restarts,
            "pids": [child.pid for child in children if child.order.slot == slot.number],
            **columns(total),
        }

    def held(self, samples: dict[int, Sample]) -> list[Held]:
        """What each worker that serves holds."""
        held = []
        for child in (slot.current for slot in self.fleet.slots if slot.current is not None):
            row, sample = self.row(child), samples.get(child.pid)
            connections = row[INDEX["connections_open"]] + row[INDEX["handshakes_pending"]]
            held.append(Held(connections, sample.descriptors if sample else None))
        return held

    def room(self, samples: dict[int, Sample]) -> Room:
        return room(self.held(samples), self.fleet.config, self.fleet.pressure.memory)

    # ---- /metrics

    def measured(self) -> Iterator[tuple[Family, list[metrics.Sample]]]:
        """Every metric with its lines, in the order of `metrics.families()`."""
        samples, fleet = self.sample(), self.fleet
        used, stalled = fleet.pressure.reading
        about = {"version": self.version, "engine": self.engine or "", "python": platform.python_version()}
        kernel_bytes = KERNEL_BYTES * sum(held.connections for held in self.held(samples))
        yield metrics.BUILD, [metrics.Sample("_info", about, 1)]
        yield single(metrics.READY, int(self.is_ready))
        yield single(metrics.STARTED, round(self.started, 3))
        yield single(metrics.RELOADS, fleet.reloader.count)
        yield single(metrics.UPGRADES, fleet.upgrades)
        yield single(metrics.SUPERVISOR_CPU, time.process_time())
        yield single(metrics.ROOM, self.room(samples).connections)
        yield single(metrics.KERNEL, kernel_bytes)
        yield single(metrics.MEMORY_USED, round(used, 4))
        yield single(metrics.MEMORY_STALLED, round(stalled, 4))
        yield metrics.WORKER_READY, [metrics.Sample("", {"slot": slot.number}, int(slot.is_served)) for slot in fleet.slots]
        yield metrics.RESTARTS, [metrics.Sample("_total", {"slot": slot.number}, slot.restarts) for slot in fleet.ever]
        yield from self.of_roles(samples)
        yield from metrics.of_rows(self.sums(self.children()), gone={slot.number for slot in fleet.former})

    def of_roles(self, samples: dict[int, Sample]) -> Iterator[tuple[Family, list[metrics.Sample]]]:
        """Memory and descriptors of the processes of each role, of workers for each slot; left out where unknown."""
        slots = {child.pid: {"slot": child.order.slot} for child in self.fleet.children.values()}
        together: dict[tuple[tuple[str, str | int], ...], list[Sample]] = {}
        for pid, role in self.pids().items():
            if pid in samples:
                together.setdefault((("role", role), *slots.get(pid, {}).items()), []).append(samples[pid])
        for family, what in ((metrics.RESIDENT, "rss_bytes"), (metrics.PROPORTIONAL, "pss_bytes"), (metrics.DESCRIPTORS, "descriptors")):
            sums = {labels: total(getattr(sample, what) for sample in mine) for labels, mine in together.items()}
            yield family, [metrics.Sample("", dict(labels), value) for labels, value in sums.items() if value is not None]

    # ---- /closes

    def closes(self) -> Document:
        """The last ends of WebSockets, the latest first. Ids are text: a number in JavaScript or jq holds 53 bits of their 64."""
        table = self.fleet.table
        rows = [(slot.number, table.totals(slot.number)) for slot in self.fleet.ever]
        rows += [(child.order.slot, self.row(child)) for child in self.children()]
        now_ms, now = time.monotonic_ns() // 1_000_000, time.time()
        found = []
        for slot, row in rows:
            for id, at_ms, code, cause in closes.last(row):
                ago_s = (now_ms - at_ms) % closes.WRAP_MS / 1000
                found.append(
                    {"time": round(now - ago_s, 3), "ago_s": ago_s, "slot": slot, "connection": str(id), "code": code, "cause": cause}
                )
        return {"closes": sorted(found, key=lambda close: close["ago_s"])}


def uptime_s(row: memoryview[int]) -> float:
    """Of the process that writes this row."""
    started_ns = row[INDEX["started_ns"]]
    return round((time.monotonic_ns() - started_ns) / 1e9, 3) if started_ns else 0.0


def single(family: Family, value: int | float) -> tuple[Family, list[metrics.Sample]]:
    """A metric of the whole server."""
    return family, [metrics.Sample("_total" if family.kind == "counter" else "", {}, value)]
