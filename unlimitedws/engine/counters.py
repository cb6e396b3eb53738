"""What a worker counts, declared once: the columns of the shared stats table.

A row is an array of native 64-bit signed integers, one for each of `FIELDS`. The engine writes the
first ones (`ENGINE_FIELDS`; the native engine holds them as a C struct in this order), the worker the
rest; the supervisor reads, and writes the last three (its advice: `pressure.py`). One writer for each item:
aligned 8-byte stores need no lock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unlimitedws.wire.closing import Cause

Kind = Literal["counter", "gauge", "identity"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column: a `counter` only grows, a `gauge` is the value now, an `identity` says whose row it is."""

    name: str
    kind: Kind
    unit: str
    help: str


ENGINE = (
    Field("connections_open", "gauge", "connections", "WebSocket connections open now"),
    Field("handshakes_pending", "gauge", "connections", "TCP connections that have not finished their request"),
    Field("connections_accepted", "counter", "connections", "TCP connections accepted"),
    Field("connections_opened", "counter", "connections", "WebSocket handshakes completed"),
    Field("connections_refused", "counter", "connections", "TCP connections closed at once: the worker is full"),
    Field("handshake_failures", "counter", "connections", "requests that did not become a WebSocket: refused, late or cut off"),
    Field("http_requests", "counter", "requests", "plain HTTP requests answered by a route, a file or health"),
    Field("messages_in", "counter", "messages", "whole messages received"),
    Field("messages_out", "counter", "messages", "messages queued to peers"),
    Field("bytes_in", "counter", "bytes", "bytes read from peers, framing included"),
    Field("bytes_out", "counter", "bytes", "bytes written to peers, framing included"),
    Field("messages_dropped", "counter", "messages", "messages dropped by the queue policy"),
    Field("queued_bytes", "gauge", "bytes", "output waiting in user space for slow peers"),
    Field("handler_errors", "counter", "errors", "handlers that raised"),
    Field("accept_pauses", "counter", "pauses", "times accepting stopped because descriptors ran out"),
    Field("buffers_held", "gauge", "buffers", "buffers of the pool in use by connections"),
    *(Field(f"closes_{cause}", "counter", "connections", f"connections ended: {cause.replace('_', ' ')}") for cause in Cause),
)

WORKER = (
    Field("pid", "identity", "", "process id of the worker; 0: the row is free"),
    Field("slot", "identity", "", "the listener slot it serves"),
    Field("serial", "identity", "", "number of this worker process in the server's life"),
    Field("state", "identity", "", "0 starting, 1 ready, 2 draining"),
    Field("native", "identity", "", "1: the native engine, 0: the portable one"),
    Field("started_ns", "identity", "nanoseconds", "when it started (CLOCK_MONOTONIC)"),
    Field("beat_ns", "gauge", "nanoseconds", "when its loop last turned (CLOCK_MONOTONIC)"),
    Field("loop_lag_us", "gauge", "microseconds", "how late the last clock tick ran"),
    Field("loop_lag_max_us", "gauge", "microseconds", "the latest clock tick since the start"),
    Field("threads_busy", "gauge", "calls", "blocking handlers running or queued"),
    Field("connections_counted", "gauge", "connections", "TCP connections that the limits of the server count (0: it has none)"),
    Field("connections_share", "gauge", "connections", "TCP connections it may hold of max_connections_total, as it was advised"),
    Field("shedding", "gauge", "", "1: memory is short, new handshakes get 503"),
    Field("advised_ns", "gauge", "nanoseconds", "when it was last advised of the two before (CLOCK_MONOTONIC)"),
)

FIELDS = ENGINE + WORKER
ENGINE_FIELDS = tuple(field.name for field in ENGINE)
INDEX = {field.name: i for i, field in enumerate(FIELDS)}
ROW_BYTES = 8 * len(FIELDS)
