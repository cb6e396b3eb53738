"""What an engine holds, and the small questions about it.

The classes of this package that make up the engine stand on each other, and call downwards only:

    Core < Ending < Handling < Opening < Reading < Moving < Engine
"""

from __future__ import annotations

import select
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from unlimitedws.engine.contract import Front
from unlimitedws.engine.counters import INDEX
from unlimitedws.engine.portable.deflating import Deflating
from unlimitedws.engine.portable.rates import Rates
from unlimitedws.engine.portable.routes import Routes
from unlimitedws.engine.portable.table import (
    BLOCKED,
    HALF_CLOSED,
    HANDSHAKE,
    LINGER,
    OPEN,
    PARTIAL,
    PAUSED,
    READY,
    STREAM,
    Table,
)
from unlimitedws.engine.said import Said
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.deflate import Terms
from unlimitedws.wire.frames import Event, Reader

if TYPE_CHECKING:
    from unlimitedws.engine.portable.accepting import Acceptor
    from unlimitedws.engine.portable.connection import Connection
    from unlimitedws.engine.portable.hand import Hand
    from unlimitedws.engine.portable.meters import Meter
    from unlimitedws.engine.portable.output import Output
    from unlimitedws.engine.portable.pipe import Pipe
    from unlimitedws.engine.portable.posting import Posting
    from unlimitedws.engine.tls import Tls

READERS_KEPT = 64

Hook = Callable[..., object]
Deferred = tuple[str, Hook, Any, tuple[Any, ...]]
"""Hook's name, hook, the Connection or Pipe that it is called with, and what else."""


class Core(ABC):
    """The state of an engine."""

    acceptor: Acceptor
    hand: Hand
    output: Output
    posting: Posting

    def __init__(
        self, config: Any, front: Front, row: memoryview, serial: int, call_soon: Hook, call_soon_threadsafe: Hook
    ) -> None:  # fmt: skip
        self.config = config
        self.front = front
        self.row = row
        self.call_soon = call_soon
        self.call_soon_threadsafe = call_soon_threadsafe
        self.thread = get_ident()
        self.epoll = select.epoll()
        self.now = time.monotonic()
        self._next_id = serial << 40
        self._take_state()
        self._take_hooks()
        self.reader = Reader(config.message_bytes)
        self.gate = front.gate
        self.deflating = Deflating(config)
        self.rates = Rates(config) if config.messages_per_s or config.bytes_per_s else None
        self._receive_bytes: int = config.receive_bytes

    def _take_state(self) -> None:
        self.table = Table()
        self.routes = Routes()
        self.current = -1  #: the descriptor whose input is being handled
        self._current_connection: Connection | None = None
        self._running = False
        self._ending = False  # nobody is waited for any more
        self._scheduled = False
        self._interrupt: BaseException | None = None
        self._kept: dict[int, weakref.ref[Connection]] = {}  # connections that somebody may hold
        self._pinned: dict[int, Connection] = {}  # those whose state is set
        self._parted: set[Connection] = set()  # held, and ended meanwhile: on_close waits
        self._heads: dict[int, bytearray] = {}
        self._readers: dict[int, Reader] = {}
        self._spare_readers: list[Reader] = []
        self._waiting: dict[int, list[Event]] = {}  # events that cannot be handled yet
        self._closing: dict[int, Close] = {}
        self._prefaces: dict[int, bytes] = {}  # what has come of them
        self.streams: dict[int, Pipe] = {}
        self.tls: dict[int, Tls] = {}
        self.meters: dict[int, Meter] = {}
        self._thrown_away: dict[int, int] = {}
        self.controls: dict[int, int] = {}  # Pings and Pongs since the clock hand came by
        self._ready: deque[tuple[int, int]] = deque()
        self._deferred: deque[Deferred] = deque()
        self._bytes_in = self._messages_in = self._opened = self._open = self._pending = self._failures = 0
        self._http = self._errors = 0
        self._drain_hand = 0
        self.departing: dict[int, int] = {}  # descriptor to the phase it is to come back to
        self.said: dict[int, list[Said]] = {}  # what was said to those that depart

    def _take_hooks(self) -> None:
        endpoints = self.front.endpoints
        self._connect_hooks = [endpoint.on_connect for endpoint in endpoints]
        self._message_hooks = [endpoint.on_message for endpoint in endpoints]
        self._close_hooks = [endpoint.on_close for endpoint in endpoints]
        self._drain_hooks = [endpoint.on_drain for endpoint in endpoints]
        self._stalled = [False] * len(endpoints)
        self._lines: list[deque[tuple[int, int]]] = [deque() for _ in endpoints]  # stalled ones, the first first
        self._unstalled: set[int] = set()  # endpoints whose lines may move on

    @abstractmethod
    def run(self) -> None: ...

    @abstractmethod
    def begin_turn(self) -> bool: ...

    @abstractmethod
    def end_turn(self) -> None: ...

    @abstractmethod
    def settle(self) -> None: ...

    def serves(self, fd: int) -> bool:
        """Whether the connection is the app's. One that departs still is."""
        return (0 <= fd < len(self.table) and self.table.phases[fd] == OPEN) or self.departing.get(fd) == OPEN

    def say_later(self, fd: int, said: Said) -> bool:
        """Keeps what is said to one that is on its way to another engine. False: it is not."""
        if self.departing.get(fd) != OPEN:
            return False
        self.said.setdefault(fd, []).append(said)
        return True

    def wake(self) -> None:
        """Asks the loop for a turn when something waits that epoll does not know of."""
        if self._running or self._scheduled or self.epoll.closed:
            return
        if self.output.dirty or self._ready or self._unstalled or self._deferred:
            self._scheduled = True
            self.call_soon(self.run)

    def make_ready(self, fd: int) -> None:
        if not self.table.flags[fd] & READY:
            self.table.flags[fd] |= READY
            self._ready.append((fd, self.table.ids[fd]))
            self.wake()

    def has(self, fd: int, id: int, flag: int) -> bool:
        """Whether row `fd` is still the connection `id`, with `flag` set."""
        table = self.table
        return fd < len(table) and table.ids[fd] == id and bool(table.flags[fd] & flag)

    def watch(self, fd: int) -> None:
        """Asks epoll for what this connection waits for now."""
        table = self.table
        flags = table.flags[fd]
        wanted = self.wanted_input(fd, table.phases[fd], flags) | (select.EPOLLOUT if flags & BLOCKED else 0)
        if wanted != table.interest[fd]:
            table.interest[fd] = wanted
            self.epoll.modify(fd, wanted)

    def wanted_input(self, fd: int, phase: int, flags: int) -> int:
        if (phase == STREAM and self.streams[fd].has_ended) or (phase == LINGER and flags & HALF_CLOSED):
            return 0  # they said all; epoll would tell of their end again and again
        if flags & PAUSED and phase in (OPEN, STREAM, HANDSHAKE):
            return 0 if flags & HALF_CLOSED else select.EPOLLRDHUP
        return select.EPOLLIN

    def endpoint(self, fd: int) -> int:
        return self.routes.endpoints[self.table.routes[fd]]

    def facts(self, fd: int) -> tuple[str, str | None, tuple[str, int] | str]:
        path, _, subprotocol, _ = self.routes.route(self.table.routes[fd])
        return path, subprotocol, self.table.address(fd)

    def terms(self, fd: int) -> Terms:
        """Of a connection with permessage-deflate."""
        terms = self.routes.route(self.table.routes[fd])[3]
        assert terms is not None
        return terms

    def count(self, cause: Cause) -> None:
        self.row[INDEX[f"closes_{cause}"]] += 1

    def lend_reader(self, fd: int) -> None:
        """The reader has begun something of this connection: it stays with it until that is finished."""
        self._readers[fd] = self.reader
        self.table.flags[fd] |= PARTIAL
        self.reader = self._spare_readers.pop() if self._spare_readers else Reader(self.config.message_bytes)

    def return_reader(self, fd: int) -> None:
        reader = self._readers.pop(fd, None)
        self.table.flags[fd] &= ~PARTIAL
        if reader is not None and len(self._spare_readers) < READERS_KEPT:
            reader.clear()
            self._spare_readers.append(reader)

    def publish(self) -> None:
        """Writes the counters into the row."""
        row, output, acceptor = self.row, self.output, self.acceptor
        row[INDEX["connections_open"]] = self._open
        row[INDEX["handshakes_pending"]] = self._pending
        row[INDEX["connections_accepted"]] = acceptor.accepted
        row[INDEX["connections_opened"]] = self._opened
        row[INDEX["connections_refused"]] = acceptor.refused
        row[INDEX["handshake_failures"]] = self._failures
        row[INDEX["http_requests"]] = self._http
        row[INDEX["messages_in"]] = self._messages_in
        row[INDEX["messages_out"]] = output.messages_out
        row[INDEX["bytes_in"]] = self._bytes_in
        row[INDEX["bytes_out"]] = output.bytes_out
        row[INDEX["messages_dropped"]] = output.dropped
        row[INDEX["queued_bytes"]] = output.queued_bytes
        row[INDEX["handler_errors"]] = self._errors
        row[INDEX["accept_pauses"]] = acceptor.pauses
        row[INDEX["buffers_held"]] = len(output.unsent) + len(self._heads) + len(self._readers) + len(self._waiting)
