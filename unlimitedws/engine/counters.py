"""What a worker counts, declared once: the columns of the shared stats table.

A row is an array of native 64-bit signed integers, one for each of `FIELDS`. The engine writes the
first ones (`ENGINE_FIELDS`; the native engine holds them as a C struct in this order), the histogram
`MESSAGE_HANDLING` and the ring of closes (`closes.py`), the worker the rest; the supervisor reads, and
writes its advice (the last four of `WORKER`: `pressure.py`). One writer for each item: aligned 8-byte
stores need no lock.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from unlimitedws.wire.closing import Cause

Kind = Literal["counter", "gauge", "identity", "clock", "ring"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column: a `counter` only grows, a `gauge` is the value now, an `identity` says whose row it is, a `clock` when
    something happened last, and a `ring` column is a part of the last closes. Shown are the first two.

    metric: its name in /metrics, where the conventions there ask for another one.
    family, label: of a column that is one of several of a kind (`closes`, a histogram), what they are
    together and which of them this is."""

    name: str
    kind: Kind
    unit: str
    help: str
    metric: str = ""
    family: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a value was up to each of some bounds: a column for each, one for what was beyond the last, and the sum.

    unit: of the bounds and of the sum.  metric: its name in /metrics."""

    name: str
    unit: str
    help: str
    bounds: tuple[int, ...]
    metric: str

    @property
    def fields(self) -> tuple[Field, ...]:
        buckets = [self._field(str(bound), f"up to {bound} {self.unit}, beyond the bound before") for bound in self.bounds]
        return (*buckets, self._field("more", "beyond the last bound"), self._field("sum", "all of them together"))

    def _field(self, label: str, help: str) -> Field:
        return Field(
            f"{self.name}_{label}", "counter", self.unit if label == "sum" else "", f"{self.name}: {help}", family=self.name, label=label
        )

    def note(self, row: memoryview[int], value: int, times: int = 1) -> None:
        """Counts a value, `times` over."""
        first = INDEX[f"{self.name}_{self.bounds[0]}"]
        row[first + bisect_left(self.bounds, value)] += times
        row[first + len(self.bounds) + 1] += value * times


ENGINE = (
    Field("connections_open", "gauge", "connections", "WebSocket connections open now"),
    Field("handshakes_pending", "gauge", "connections", "TCP connections that have not finished their request"),
    Field("connections_accepted", "counter", "connections", "TCP connections accepted"),
    Field("connections_opened", "counter", "connections", "WebSocket handshakes completed"),
    Field("connections_refused", "counter", "connections", "TCP connections closed at once: the worker is full"),
    Field("handshake_failures", "counter", "connections", "requests that did not become a WebSocket: refused, late or cut off"),
    Field("http_requests", "counter", "requests", "plain HTTP requests answered by a route, a file or health"),
    Field("messages_in", "counter", "messages", "whole messages received", "messages_received"),
    Field("messages_out", "counter", "messages", "messages queued to peers", "messages_sent"),
    Field("bytes_in", "counter", "bytes", "bytes read from peers, framing included", "received_bytes"),
    Field("bytes_out", "counter", "bytes", "bytes written to peers, framing included", "sent_bytes"),
    Field("messages_dropped", "counter", "messages", "messages dropped by the queue policy"),
    Field("queued_bytes", "gauge", "bytes", "output waiting in user space for slow peers"),
    Field("handler_errors", "counter", "errors", "handlers that raised"),
    Field("accept_pauses", "counter", "pauses", "times accepting stopped because descriptors ran out"),
    Field("buffers_held", "gauge", "buffers", "buffers of the pool in use by connections"),
    *(
        Field(f"closes_{cause}", "counter", "connections", f"connections ended: {cause.replace('_', ' ')}", family="closes", label=cause)
        for cause in Cause
    ),
)

WORKER = (
    Field("pid", "identity", "", "process id of the worker; 0: the row is free"),
    Field("slot", "identity", "", "the listener slot it serves"),
    Field("serial", "identity", "", "number of this worker process in the server's life"),
    Field("state", "identity", "", "0 starting, 1 ready, 2 draining"),
    Field("native", "identity", "", "1: the native engine, 0: the portable one"),
    Field("started_ns", "identity", "nanoseconds", "when it started (CLOCK_MONOTONIC)"),
    Field("beat_ns", "clock", "nanoseconds", "when its loop last turned (CLOCK_MONOTONIC)"),
    Field("loop_lag_us", "gauge", "microseconds", "how late the last clock tick ran", "loop_lag_last_seconds"),
    Field("loop_lag_max_us", "gauge", "microseconds", "the latest clock tick since the start"),
    Field("cpu_us", "counter", "microseconds", "CPU time that the process has used"),
    Field("threads_busy", "gauge", "calls", "blocking handlers running or queued"),
    Field("connections_counted", "gauge", "connections", "TCP connections that the limits of the server count (0: it has none)"),
    Field("connections_share", "gauge", "connections", "TCP connections it may hold of max_connections_total, as it was advised"),
    Field("shedding", "gauge", "", "1: memory is short, new handshakes get 503"),
    Field("advised_ns", "clock", "nanoseconds", "when it was last advised of the two before (CLOCK_MONOTONIC)"),
)

LOOP_LAG = Histogram(
    "loop_lag", "microseconds", "how late each clock tick of the event loop ran (8 a second); a handler that blocks makes it late",
    (1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000), "loop_lag_seconds",
)  # fmt: skip
MESSAGE_HANDLING = Histogram(
    "message_handling", "nanoseconds",
    "time for each message: a turn of the engine (reading, plain handlers, sending) divided by the messages it handled; of async and "
    "blocking handlers only the start; what waited for such a handler is not counted",
    (
        2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000, 25_000_000, 50_000_000, 100_000_000, 250_000_000, 1_000_000_000,
    ), "message_handling_seconds",
)  # fmt: skip
HISTOGRAMS = (LOOP_LAG, MESSAGE_HANDLING)

RING_CLOSES = 64
"""The last closes of a worker that its row keeps; a reader sees all but the oldest, which may be giving way."""
RING = (
    Field("ring_noted", "ring", "closes", "closes noted in the ring so far; the next goes to the place of this number, modulo its size"),
    *(
        Field(f"ring_{number}_{part}", "ring", "", f"close {number} of the ring, {help}")
        for number in range(RING_CLOSES)
        for part, help in (("id", "its connection"), ("how", "when, with which code, why"))
    ),
)

FIELDS = ENGINE + WORKER + tuple(field for histogram in HISTOGRAMS for field in histogram.fields) + RING
ENGINE_FIELDS = tuple(field.name for field in ENGINE)
INDEX = {field.name: i for i, field in enumerate(FIELDS)}
FAMILIES = {field.family: [other for other in FIELDS if other.family == field.family] for field in FIELDS if field.family}
ROW_BYTES = 8 * len(FIELDS)
