"""What /metrics has: the columns of the stats table and what the supervisor knows (exposition.py writes it).

Names, kinds and help come from `counters`, in base units (seconds, bytes). What a worker counts has the label `slot`:
a slot outlives its processes, so that there is no series for a process, and a counter never goes back. There is
no series for a connection either.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from unlimitedws.engine import counters
from unlimitedws.engine.counters import INDEX, Field, Histogram

PREFIX = "unlimitedws_"

UNITS = {"microseconds": ("seconds", 1_000_000), "nanoseconds": ("seconds", 1_000_000_000), "bytes": ("bytes", 1)}
"""Unit of a column to the base unit of its metric, and how many make one of that."""
SHORT = {"microseconds": "_us", "nanoseconds": "_ns", "bytes": "_bytes"}

Row = Sequence[int]
Labels = Mapping[str, str | int]


class Family(NamedTuple):
    """One metric: name without prefix, type of OpenMetrics, unit ("" for numbers of things), help."""

    name: str
    kind: str
    unit: str
    help: str


class Sample(NamedTuple):
    """One line. suffix: what its name has behind that of its family."""

    suffix: str
    labels: Labels
    value: int | float


def family_of(field: Field) -> Family:
    """The metric of a column that stands for itself."""
    unit = UNITS.get(field.unit, ("", 1))[0]
    name = field.metric or field.name.removesuffix(SHORT.get(field.unit, "")) + (f"_{unit}" if unit else "")
    return Family(name, field.kind, unit, field.help)


def value_of(field: Field, number: int) -> int | float:
    divisor = UNITS.get(field.unit, ("", 1))[1]
    return number if divisor == 1 else number / divisor


def of_histogram(histogram: Histogram) -> Family:
    return Family(histogram.metric, "histogram", UNITS[histogram.unit][0], histogram.help)


SINGLE = tuple(field for field in counters.FIELDS if field.kind in ("counter", "gauge") and not field.family)
CLOSES = Family("closes", "counter", "", "connections ended, by cause; see docs/reference/closing.md")

BUILD = Family("build", "info", "", "what runs")
READY = Family("ready", "gauge", "", "1: at least one worker serves, and the server is not stopping")
STARTED = Family("start_time_seconds", "gauge", "seconds", "when the supervisor started, since the epoch")
RELOADS = Family("reloads", "counter", "", "times the code was reloaded")
UPGRADES = Family("upgrades", "counter", "", "times the supervisor was replaced by a new one")
SUPERVISOR_CPU = Family("supervisor_cpu_seconds", "counter", "seconds", "CPU time that the supervisor has used")
ROOM = Family("connections_room", "gauge", "", "estimate: room for so many more idle connections")
KERNEL = Family("kernel_memory_bytes", "gauge", "bytes", "estimate: memory of the kernel for the sockets of open connections")
MEMORY_USED = Family("memory_used_ratio", "gauge", "ratio", "part of the memory (of the machine, or its cgroup's limit) in use")
MEMORY_STALLED = Family("memory_stalled_ratio", "gauge", "ratio", "part of the last 10 s that some process waited for memory")
WORKER_READY = Family("worker_ready", "gauge", "", "1: the slot has a worker that serves")
RESTARTS = Family("worker_restarts", "counter", "", "dead workers of the slot that were replaced; a reload does not count")
RESIDENT = Family("resident_memory_bytes", "gauge", "bytes", "resident memory (RSS) of the processes of a role")
PROPORTIONAL = Family("proportional_memory_bytes", "gauge", "bytes", "memory with shared pages divided among their users (PSS)")
DESCRIPTORS = Family("open_descriptors", "gauge", "", "descriptors that the processes of a role have open")

OF_SERVER = (BUILD, READY, STARTED, RELOADS, UPGRADES, SUPERVISOR_CPU, ROOM, KERNEL, MEMORY_USED, MEMORY_STALLED)
OF_SLOTS = (WORKER_READY, RESTARTS)
OF_ROLES = (RESIDENT, PROPORTIONAL, DESCRIPTORS)


def families() -> list[Family]:
    """Every metric that /metrics has, in its order."""
    return [*OF_SERVER, *OF_SLOTS, *OF_ROLES, *map(family_of, SINGLE), CLOSES, *map(of_histogram, counters.HISTOGRAMS)]


def sample_names(family: Family) -> list[str]:
    """The names that its lines have."""
    suffixes = {"counter": ["_total"], "info": ["_info"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.kind, [""])
    return [PREFIX + family.name + suffix for suffix in suffixes]


def of_rows(rows: Mapping[int, Row], gone: Collection[int] = ()) -> Iterator[tuple[Family, list[Sample]]]:
    """The metrics of what workers count. rows: slot to the sum of its rows, those of dead processes included.

    gone: slots that were removed. Their counters stay, as those of every slot; their gauges do not."""
    for field in SINGLE:
        family, index = family_of(field), INDEX[field.name]
        suffix = "_total" if family.kind == "counter" else ""
        shown = [slot for slot in rows if family.kind == "counter" or slot not in gone]
        yield family, [Sample(suffix, {"slot": slot}, value_of(field, rows[slot][index])) for slot in shown]
    causes = [(field.label, INDEX[field.name]) for field in counters.FAMILIES[CLOSES.name]]
    yield CLOSES, [Sample("_total", {"slot": slot, "cause": cause}, row[index]) for slot, row in rows.items() for cause, index in causes]
    for histogram in counters.HISTOGRAMS:
        yield of_histogram(histogram), [sample for slot, row in rows.items() for sample in of_buckets(histogram, slot, row)]


def of_buckets(histogram: Histogram, slot: int, row: Row) -> Iterator[Sample]:
    """The lines of one histogram of one slot; its buckets count up, as the format wants them."""
    first, divisor = INDEX[histogram.fields[0].name], UNITS[histogram.unit][1]
    count = 0
    for place, bound in enumerate(histogram.bounds):
        count += row[first + place]
        yield Sample("_bucket", {"slot": slot, "le": repr(bound / divisor)}, count)
    count += row[first + len(histogram.bounds)]
    yield Sample("_bucket", {"slot": slot, "le": "+Inf"}, count)
    yield Sample("_sum", {"slot": slot}, row[first + len(histogram.bounds) + 1] / divisor)
    yield Sample("_count", {"slot": slot}, count)
