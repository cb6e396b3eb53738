"""What each worker did in the last half hour, for pages that are opened now: rates and gauges, no counters.

One array of 4-byte floats for each look. All of them together are bounded (`MOST_BYTES`), so with many workers looks are
taken less often: every five seconds up to 36 workers, every 20 with 128.
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, nan
from typing import NamedTuple

from unlimitedws.engine.counters import FAMILIES, INDEX, LOOP_LAG, MESSAGE_HANDLING, RING, Histogram
from unlimitedws.supervisor.report import Document

MOST_BYTES = 2 << 20

GAUGES = {name: INDEX[name] for name in ("connections_open", "handshakes_pending", "queued_bytes", "loop_lag_us")}
RATES = {
    f"{name}_per_s": INDEX[name]
    for name in (
        "connections_opened", "handshake_failures", "messages_in", "messages_out", "bytes_in", "bytes_out",
        "handler_errors", "messages_dropped", "cpu_us", *(field.name for field in FAMILIES["closes"]),
    )
}  # fmt: skip
AVERAGES = {"loop_lag_average_us": LOOP_LAG, "message_handling_average_ns": MESSAGE_HANDLING}
SERIES = ("memory_bytes", "restarts", *GAUGES, *RATES, *AVERAGES)
"""The values of a worker at one time, in their order: of a slot, that is, whichever process serves it."""

Row = Sequence[int]


class Now(NamedTuple):
    """A slot at this moment. row: what all its processes have counted (`Report.sums`).  memory_bytes: None where it is unknown."""

    row: Row
    memory_bytes: int | None
    restarts: int


class Look(NamedTuple):
    """time: unix time.  slots: their numbers.  values: of each slot one for each of SERIES; NaN where there is none."""

    time: float
    slots: tuple[int, ...]
    values: array[float]

    @property
    def bytes(self) -> int:
        return len(self.values) * self.values.itemsize


class WorkerHistory:
    """keep_s: how far back it goes.  every_s: how often `look` is called."""

    def __init__(self, keep_s: float, every_s: float) -> None:
        self.keep_s = keep_s
        self.most_looks = int(keep_s / every_s)
        self.looks: deque[Look] = deque()
        self.bytes = 0
        self.skipped = 0
        self.before: tuple[float, dict[int, Row]] = (0.0, {})

    def look(self, time: float, slots: Mapping[int, Now]) -> None:
        """Keeps how things are now, or not: see `pace`."""
        self.skipped += 1
        if not slots or (self.looks and self.skipped < self.pace(len(slots))):
            return
        self.skipped = 0
        then, rows = self.before
        self.before = time, {number: array("q", now.row[: -len(RING)]) for number, now in slots.items()}  # a tenth of a list
        values = array("f", (value for number, now in slots.items() for value in measured(now, rows.get(number), time - then)))
        self.keep(Look(time, tuple(slots), values))

    def pace(self, slots: int) -> int:
        """Each how manyth look is kept."""
        return ceil(slots * len(SERIES) * array("f").itemsize * self.most_looks / MOST_BYTES)

    def keep(self, look: Look) -> None:
        self.looks.append(look)
        self.bytes += look.bytes
        while self.bytes > MOST_BYTES or self.looks[0].time < look.time - self.keep_s:
            self.bytes -= self.looks.popleft().bytes

    def pack(self) -> Document:
        """The looks, for the supervisor after an upgrade, on the same machine."""
        looks = [(look.time, look.slots, base64.b64encode(look.values.tobytes()).decode()) for look in self.looks]
        return {"series": SERIES, "looks": looks}

    def resume(self, packed: Document) -> None:
        """Goes on with them, unless a release in between measures other things."""
        if tuple(packed.get("series", ())) == SERIES:
            for time, slots, values in packed["looks"]:
                self.keep(Look(time, tuple(slots), array("f", base64.b64decode(values))))

    def document(self) -> Document:
        """The looks, the earliest first. values: those of all looks in a row, of each look slot by slot, of each slot in the
        order of `series`, as 4-byte little-endian floats in base64."""
        slots = sorted({slot for look in self.looks for slot in look.slots})
        return {
            "series": SERIES,
            "slots": slots,
            "times": [round(look.time, 3) for look in self.looks],
            "values": base64.b64encode(b"".join(packed(look, slots) for look in self.looks)).decode(),
        }


def measured(now: Now, before: Row | None, dt: float) -> Iterable[float]:
    """The values of SERIES. before: the row `dt` seconds earlier; None: there was none, so that rates are unknown."""
    row = now.row
    yield nan if now.memory_bytes is None else now.memory_bytes
    yield now.restarts
    yield from (row[i] for i in GAUGES.values())
    yield from (nan if before is None or dt <= 0 else (row[i] - before[i]) / dt for i in RATES.values())
    yield from (nan if before is None else average(histogram, row, before) for histogram in AVERAGES.values())


def average(histogram: Histogram, now: Row, before: Row) -> float:
    first = INDEX[f"{histogram.name}_{histogram.bounds[0]}"]
    last = INDEX[f"{histogram.name}_sum"]
    times = sum(now[first:last]) - sum(before[first:last])
    return (now[last] - before[last]) / times if times > 0 else nan


def packed(look: Look, slots: Sequence[int]) -> bytes:
    """The values of these slots; NaN for one that the look does not have."""
    width = len(SERIES)
    values = look.values
    if list(look.slots) != list(slots):
        places = {slot: place * width for place, slot in enumerate(look.slots)}
        nothing = array("f", [nan] * width)
        values = array("f")
        for slot in slots:
            values += look.values[places[slot] : places[slot] + width] if slot in places else nothing
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
