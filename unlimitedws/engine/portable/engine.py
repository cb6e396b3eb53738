"""The turn of the loop, reading, handling, and the ends of connections."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import ECONNRESET, EPIPE
from threading import get_ident
from typing import Any

from unlimitedws.engine.contract import EVENTS_PER_BATCH, LINGER_BYTES, MESSAGES_PER_TURN, Front, Refusal, Upgrade
from unlimitedws.engine.counters import INDEX
from unlimitedws.engine.portable.accepting import Acceptor
from unlimitedws.engine.portable.connection import Connection, Message, pack_message
from unlimitedws.engine.portable.hand import Hand
from unlimitedws.engine.portable.output import Output
from unlimitedws.engine.portable.posting import Posting
from unlimitedws.engine.portable.routes import Routes
from unlimitedws.engine.portable.table import (
    BLOCKED,
    BROKEN,
    CLOSING,
    HALF_CLOSED,
    HANDSHAKE,
    HELD,
    LINGER,
    OPEN,
    OVER,
    PARTIAL,
    PAUSED,
    READY,
    SHUT,
    STALLED,
    Table,
)  # fmt: skip
from unlimitedws.wire.closing import ABNORMAL, INTERNAL_ERROR, NO_STATUS, Cause, Close, pack_close
from unlimitedws.wire.frames import CLOSE, Event, Reader, pack_frame
from unlimitedws.wire.handshake import too_large
from unlimitedws.wire.head import END

EPOLLIN, EPOLLOUT, EPOLLRDHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLRDHUP
FAILED = select.EPOLLHUP | select.EPOLLERR

MAX_BATCHES = 8
MAX_TURN_S = 0.005
"""No further batch is begun in a turn after so long: timers and coroutines of the app want theirs."""

READERS_KEPT = 64

Hook = Callable[..., object]
Deferred = tuple[str, Hook, Connection, tuple[Any, ...]]


def references_of_ours() -> int:
    """What sys.getrefcount says of an object that one local variable refers to; it differs between versions."""
    mine = object()
    return sys.getrefcount(mine)


OURS = references_of_ours()


class Engine:
    """See `contract.Engine`."""

    name = "portable"

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
        self._receive_bytes: int = config.receive_bytes
        self.output = Output(self)
        self.acceptor = Acceptor(self)
        self.hand = Hand(self)
        self.posting = Posting(self)

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
        self._thrown_away: dict[int, int] = {}
        self._ready: deque[tuple[int, int]] = deque()
        self._deferred: deque[Deferred] = deque()
        self._bytes_in = self._messages_in = self._opened = self._open = self._pending = self._failures = 0
        self._http = self._errors = 0
        self._drain_hand = 0

    def _take_hooks(self) -> None:
        endpoints = self.front.endpoints
        self._connect_hooks = [endpoint.on_connect for endpoint in endpoints]
        self._message_hooks = [endpoint.on_message for endpoint in endpoints]
        self._close_hooks = [endpoint.on_close for endpoint in endpoints]
        self._drain_hooks = [endpoint.on_drain for endpoint in endpoints]
        self._stalled = [False] * len(endpoints)
        self._lines: list[deque[tuple[int, int]]] = [deque() for _ in endpoints]  # stalled ones, the first first
        self._unstalled: set[int] = set()  # endpoints whose lines may move on

    # ---- the turn

    def fileno(self) -> int:
        return self.epoll.fileno()

    def run(self) -> None:
        if self._running or self.epoll.closed:
            return
        self.thread = get_ident()
        self._running = True
        self._scheduled = False
        began = self.now = time.monotonic()
        try:
            for _ in range(MAX_BATCHES):
                if not self._run_batch():
                    break
                self.now = time.monotonic()
                if self.now - began >= MAX_TURN_S:
                    break
        finally:
            self._end_turn()

    def _run_batch(self) -> bool:
        if self._ready or self._unstalled:
            self._run_ready()
        events = self.epoll.poll(0, EVENTS_PER_BATCH)
        phases, flags, handle = self.table.phases, self.table.flags, self.handle
        for fd, what in events:
            # One call less for nearly every event.
            if what == EPOLLIN and fd < len(phases) and phases[fd] == OPEN and not flags[fd] & PAUSED:
                self.read_frames(fd)
            else:
                handle(fd, what)
        if self._deferred:
            self._run_deferred()
        if self.output.dirty:
            self.output.flush_dirty()
        return bool(events)

    def _end_turn(self) -> None:
        try:
            if self._deferred:
                self._run_deferred()
        finally:
            self._running = False
            self.publish()
            self.wake()
        if self._interrupt is not None:
            error, self._interrupt = self._interrupt, None
            raise error

    def wake(self) -> None:
        """Asks the loop for a turn when something waits that epoll does not know of."""
        if not self._running and not self._scheduled and (self.output.dirty or self._ready or self._unstalled or self._deferred) and not self.epoll.closed:
            self._scheduled = True
            self.call_soon(self.run)

    def settle(self) -> None:
        """After a call from outside: calls what was deferred, unless a turn is under way, which will."""
        if not self._running:
            self._running = True
            self._end_turn()

    def _run_ready(self) -> None:
        """Goes on with connections that were stalled, had more input than one turn allows, or were released."""
        for endpoint in list(self._unstalled):
            self._move_line(endpoint)
        for _ in range(len(self._ready)):
            fd, id = self._ready.popleft()
            if self.has(fd, id, READY):
                self.table.flags[fd] &= ~READY
                self.resume(fd)

    def _move_line(self, endpoint: int) -> None:
        """Goes on with the stalled connections, in their order, until stalled again."""
        line = self._lines[endpoint]
        while line and not self._stalled[endpoint]:
            fd, id = line.popleft()
            if self.has(fd, id, STALLED):
                self.table.flags[fd] &= ~STALLED
                self.resume(fd)
                if self.table.ids[fd] == id and self.table.phases[fd] == OPEN and not self.table.flags[fd] & PAUSED:
                    self.read_frames(fd)  # at once: it was before the others
        self._unstalled.discard(endpoint)

    def has(self, fd: int, id: int, flag: int) -> bool:
        """Whether row `fd` is still the connection `id`, with `flag` set."""
        table = self.table
        return fd < len(table) and table.ids[fd] == id and bool(table.flags[fd] & flag)

    def make_ready(self, fd: int) -> None:
        if not self.table.flags[fd] & READY:
            self.table.flags[fd] |= READY
            self._ready.append((fd, self.table.ids[fd]))
            self.wake()

    def _run_deferred(self) -> None:
        """Calls on_close and on_drain, now that no handler is on the stack."""
        while self._deferred:
            name, hook, connection, arguments = self._deferred.popleft()
            try:
                hook(connection, *arguments)
            except BaseException as error:
                self.handler_error(connection, name, error)

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

    # ---- listening

    def listen(self, fd: int) -> None:
        self.thread = get_ident()
        self.acceptor.listen(fd)

    def stop_listening(self) -> None:
        self.acceptor.stop()

    def admit(self, fd: int, address: object) -> None:
        """Takes in an accepted connection, already in the epoll set."""
        table = self.table
        table.reach(fd)
        self._next_id += 1
        table.ids[fd] = self._next_id
        table.phases[fd] = HANDSHAKE
        table.interest[fd] = EPOLLIN
        table.seen[fd] = table.since[fd] = self.now
        table.set_address(fd, address)
        table.used += 1
        self._pending += 1

    # ---- reading

    def watch(self, fd: int) -> None:
        """Asks epoll for what this connection waits for now."""
        table = self.table
        flags = table.flags[fd]
        paused = table.phases[fd] == OPEN and flags & PAUSED
        wanted = EPOLLIN if not paused else 0 if flags & HALF_CLOSED else EPOLLRDHUP
        wanted |= EPOLLOUT if flags & BLOCKED else 0
        if wanted != table.interest[fd]:
            table.interest[fd] = wanted
            self.epoll.modify(fd, wanted)

    def handle(self, fd: int, what: int) -> None:
        """One readiness event. Its descriptor may have ended in this batch, and even serve another: nothing
        here relies on the event alone."""
        if fd in self.acceptor.listeners:
            self.acceptor.accept(fd)
            return
        table = self.table
        if fd >= len(table) or not table.phases[fd]:
            return
        id = table.ids[fd]
        if what & EPOLLOUT and fd in self.output.unsent:
            self.output.flush(fd)
            if table.ids[fd] != id:
                return
        if what & (EPOLLIN | EPOLLRDHUP | FAILED):
            if table.phases[fd] == OPEN and table.flags[fd] & PAUSED:
                self.readable_while_paused(fd, what)
            else:
                self.readable(fd)

    def readable(self, fd: int) -> None:
        phase = self.table.phases[fd]
        if phase in (OPEN, CLOSING):
            if fd in self._waiting:
                self.resume(fd)
            elif phase == OPEN and self._stalled[self.endpoint(fd)]:
                self.wait_for_room(fd)
            else:
                self.read_frames(fd)
            return
        data = self.read(fd)
        if data and phase == HANDSHAKE:
            self.table.seen[fd] = self.now
            self.read_head(fd, data)
        elif data:
            self._thrown_away[fd] += len(data)
            if self._thrown_away[fd] > LINGER_BYTES:
                self.end(fd)

    def readable_while_paused(self, fd: int, what: int) -> None:
        """Input for a connection that must wait: leaves it in the kernel, but notices the end."""
        if what & FAILED:
            self.stream_ended(fd, socket_error(fd) or ECONNRESET)
            return
        if what & EPOLLRDHUP:
            self.table.flags[fd] |= HALF_CLOSED
            if fd not in self._waiting and at_end(fd):
                self.stream_ended(fd, 0)
                return
        self.watch(fd)

    def read(self, fd: int) -> bytes:
        """What has come, at most one receive buffer; b"" where nothing did, the end included, which is dealt with."""
        try:
            data = os.read(fd, self._receive_bytes)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.stream_ended(fd, error.errno or ECONNRESET)
            return b""
        if not data:
            self.stream_ended(fd, 0)
        self._bytes_in += len(data)
        return data

    def read_frames(self, fd: int) -> None:
        """Reads one receive buffer and handles it. The hottest lines of this engine: little is called here."""
        table = self.table
        if self._stalled[self.routes.endpoints[table.routes[fd]]] and table.phases[fd] == OPEN:
            self.wait_for_room(fd)
            return
        try:
            data = os.read(fd, self._receive_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self.stream_ended(fd, error.errno or ECONNRESET)
            return
        if not data:
            self.stream_ended(fd, 0)
            return
        self._bytes_in += len(data)
        table.seen[fd] = self.now
        if table.flags[fd] & PARTIAL:
            self.consume(fd, self.parse(fd, data))
            return
        events = self.reader.feed(data)
        if not self.reader.is_clean:
            self.lend_reader(fd)
        self.consume(fd, events)

    def parse(self, fd: int, data: bytes) -> list[Event]:
        """The events of `data`; only a connection in the middle of something has a reader of its own."""
        if not self.table.flags[fd] & PARTIAL:
            events = self.reader.feed(data)
            if not self.reader.is_clean:
                self.lend_reader(fd)
            return events
        reader = self._readers[fd]
        events = reader.feed(data)
        if reader.is_clean:
            self.return_reader(fd)
        return events

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

    def stream_ended(self, fd: int, failed: int) -> None:
        """Nothing more comes. failed: an errno, or 0 for the end of the stream."""
        if self.table.phases[fd] == LINGER:
            self.end(fd)
        elif failed in (ECONNRESET, EPIPE) or (failed == 0 and self.table.flags[fd] & BROKEN):
            self.lose(fd, Cause.PEER_RESET)
        else:
            self.lose(fd, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

    # ---- the handshake

    def read_head(self, fd: int, data: bytes) -> None:
        """The request, as far as it has come."""
        kept = self._heads.get(fd)
        searched = 0
        head: bytes | bytearray = data
        if kept is not None:
            searched = max(0, len(kept) - len(END) + 1)
            kept += data
            head = kept
        end = head.find(END, searched) + len(END)
        limit = self.config.head_bytes
        if end < len(END) and len(head) < limit:
            if kept is None:
                self._heads[fd] = bytearray(data)
            return
        self._heads.pop(fd, None)
        if end < len(END) or end > limit:
            self.refuse(fd, too_large(limit))
            return
        answer = self.front.answer(bytes(head[:end]))
        if isinstance(answer, Refusal):
            self.refuse(fd, answer)
        else:
            self.open(fd, answer, bytes(head[end:]))

    def refuse(self, fd: int, refusal: Refusal) -> None:
        self.handshake_over(refusal.cause)
        self.current = fd
        self.output.put(fd, refusal.response)
        self.linger(fd)
        self.finish(fd)

    def handshake_over(self, cause: Cause) -> None:
        """A request that became no WebSocket, for whatever reason."""
        self._pending -= 1
        if cause == Cause.HTTP_ANSWERED:
            self._http += 1
        else:
            self._failures += 1
        self.count(cause)

    def count(self, cause: Cause) -> None:
        self.row[INDEX[f"closes_{cause}"]] += 1

    def open(self, fd: int, upgrade: Upgrade, rest: bytes) -> None:
        """From here on it is a WebSocket; `rest` came with the request."""
        table = self.table
        table.routes[fd] = self.routes.take(upgrade.path, upgrade.endpoint, upgrade.subprotocol)
        table.phases[fd] = OPEN
        table.since[fd] = self.now
        if self.hand.ping_s:
            table.seen[fd] = self.hand.first_seen(self.now)
        self._pending -= 1
        self._opened += 1
        self._open += 1
        id = table.ids[fd]
        self.current = fd
        self.output.put(fd, upgrade.response)
        hook = self._connect_hooks[upgrade.endpoint]
        if hook is not None:
            self.call(self.connection(fd), "on_connect", hook)
        if table.ids[fd] == id and table.phases[fd] in (OPEN, CLOSING):
            self.consume(fd, self.parse(fd, rest) if rest else [])
        elif table.ids[fd] == id:
            self.finish(fd)

    # ---- frames

    def consume(self, fd: int, events: list[Event]) -> None:
        """Handles events in their order, until they are used up or the connection must wait."""
        table = self.table
        phases, flags = table.phases, table.flags
        id = table.ids[fd]
        endpoint = self.routes.endpoints[table.routes[fd]]
        hook = self._message_hooks[endpoint]
        connection: Connection | None = None
        handled = 0
        self.current = fd
        following = iter(events)
        for event in following:
            if phases[fd] == OPEN and (flags[fd] & (HELD | OVER) or handled or self._stalled[endpoint]) and self.must_wait(
                fd, endpoint, handled
            ):
                self._waiting[fd] = [event, *following]
                break
            if event[0] == "text" or event[0] == "binary":
                self._messages_in += 1
                if phases[fd] != OPEN:
                    continue
                handled += 1
                if hook is None:
                    continue
                if connection is None:
                    connection = (self.existing(fd) if fd in self._kept else None) or Connection(self, fd, id)
                    self._current_connection = connection
                try:
                    hook(connection, event[1])
                except BaseException as error:
                    self.handler_error(connection, "on_message", error)
                if phases[fd] == OPEN:
                    continue
                if table.ids[fd] != id:
                    self.current, self._current_connection = -1, None
                    return
                if phases[fd] == LINGER:
                    break
            elif event[0] == "ping":
                if phases[fd] == OPEN:
                    self.output.pong(fd, event[1])
            elif event[0] == "close":
                self.peer_closed(fd, event[1], event[2])
                break
            elif event[0] == "violation":
                self.fail_connection(fd, event[2], event[1])
                break
        if handled and phases[fd] == OPEN:
            table.since[fd] = self.now
        self._current_connection = None
        self.current = -1
        if connection is not None and sys.getrefcount(connection) > OURS and connection.fd == fd and fd not in self._kept:
            self.keep(fd, connection)
        if fd in self.output.unsent and not flags[fd] & BLOCKED:
            self.output.flush(fd)
        if phases[fd] == LINGER:
            self.finish(fd)

    def must_wait(self, fd: int, endpoint: int, handled: int) -> bool:
        """Before an event: whether it and the rest have to wait."""
        if self.table.flags[fd] & (HELD | OVER):
            return True
        if self._stalled[endpoint]:
            self.wait_for_room(fd)
            return True
        if handled >= MESSAGES_PER_TURN:
            self.make_ready(fd)
            return True
        return False

    def wait_for_room(self, fd: int) -> None:
        """Its endpoint's thread queue is full: waits in line."""
        if not self.table.flags[fd] & STALLED:
            self.table.flags[fd] |= STALLED
            self._lines[self.endpoint(fd)].append((fd, self.table.ids[fd]))
        self.watch(fd)

    def resume(self, fd: int) -> None:
        """Goes on with a connection that waited: first with what was read, then with the kernel's."""
        table = self.table
        is_open = table.phases[fd] == OPEN
        if is_open and table.flags[fd] & PAUSED:
            return
        if is_open and self._stalled[self.endpoint(fd)]:
            self.wait_for_room(fd)
            return
        id = table.ids[fd]
        events = self._waiting.pop(fd, None)
        if events is not None:
            self.consume(fd, events)
        if table.ids[fd] == id:
            self.watch(fd)

    def finish(self, fd: int) -> None:
        """The end of a connection's input: its answers leave."""
        self.current = -1
        self.output.offer(fd)
        if self.table.phases[fd] == LINGER and fd not in self.output.unsent:
            self.output_gone(fd)

    def drained(self, fd: int) -> None:
        """Its output fell through low water: reads go on."""
        if self.table.phases[fd] != OPEN:
            return
        hook = self._drain_hooks[self.endpoint(fd)]
        if hook is not None:
            self._deferred.append(("on_drain", hook, self.connection(fd), ()))
        self.make_ready(fd)
        self.wake()

    def output_gone(self, fd: int) -> None:
        """In LINGER: all is said."""
        flags = self.table.flags
        if flags[fd] & BROKEN:
            self.end(fd)
        elif not flags[fd] & SHUT:
            flags[fd] |= SHUT
            self.table.since[fd] = self.now
            shut(fd, socket.SHUT_WR)

    def call(self, connection: Connection, name: str, hook: Hook) -> None:
        try:
            hook(connection)
        except BaseException as error:
            self.handler_error(connection, name, error)

    # ---- closing

    def close_politely(self, fd: int, payload: bytes, close: Close) -> None:
        """Sends a Close and waits for theirs (RFC 6455, section 7.1.2)."""
        table = self.table
        if table.phases[fd] != OPEN:
            return
        self.output.put(fd, pack_frame(CLOSE, payload))
        self._closing[fd] = close
        table.phases[fd] = CLOSING
        table.since[fd] = time.monotonic()
        if fd in self._waiting:  # their Close may lie behind messages that waited: these are thrown away now
            table.flags[fd] &= ~READY
            self.make_ready(fd)
        self.watch(fd)

    def peer_closed(self, fd: int, code: int, reason: str) -> None:
        """Their Close came: answers it (section 5.5.1) or, if ours went first, is done."""
        if self.table.phases[fd] == OPEN:
            self.output.put(fd, pack_frame(CLOSE, b"" if code == NO_STATUS else pack_close(code)))
            self.detach(fd, Close(code, reason, Cause.PEER_CLOSED, True))
        else:
            ours = self._closing[fd]
            self.detach(fd, Close(ours.code, ours.reason, ours.cause, True))
        self.linger(fd)

    def fail_connection(self, fd: int, code: int, cause: Cause) -> None:
        """They broke the protocol, or a handler raised: says so, and reads on only to throw away."""
        phase = self.table.phases[fd]
        if phase == OPEN:
            self.output.put(fd, pack_frame(CLOSE, pack_close(code)))
            self.detach(fd, Close(code, "", cause, False))
        elif phase == CLOSING:
            self.detach(fd, self._closing[fd])
        else:
            return
        self.linger(fd)

    def handler_error(self, connection: Connection, hook: str, error: BaseException) -> None:
        self._errors += 1
        if isinstance(error, KeyboardInterrupt):
            self._interrupt = error
        self.front.handler_failed(connection, hook, error)
        fd = connection.fd
        if fd >= 0:
            self.fail_connection(fd, INTERNAL_ERROR, Cause.HANDLER_ERROR)
            if fd != self.current:  # its output leaves with that of the others
                self.output.dirty.add(fd)
                self.wake()

    def linger(self, fd: int) -> None:
        """Nothing more to say: what waits is sent, what comes is thrown away."""
        table = self.table
        table.phases[fd] = LINGER
        table.since[fd] = self.now
        table.flags[fd] &= ~PAUSED
        self._waiting.pop(fd, None)
        self.return_reader(fd)
        self._thrown_away[fd] = 0
        self.watch(fd)

    def lose(self, fd: int, cause: Cause) -> None:
        """The end without ceremony."""
        phase = self.table.phases[fd]
        if phase == HANDSHAKE:
            self.handshake_over(cause)
        elif phase == OPEN:
            self.detach(fd, Close(ABNORMAL, "", cause, False))
        elif phase == CLOSING:
            self.detach(fd, self._closing[fd])
        self.end(fd)

    def detach(self, fd: int, close: Close) -> None:
        """Parts the Connection from its row; on_close follows when no handler runs."""
        hook = self._close_hooks[self.endpoint(fd)]
        self._open -= 1
        self.count(close.cause)
        self._closing.pop(fd, None)
        connection = self.existing(fd)
        if connection is None and hook is not None:
            connection = Connection(self, fd, self.table.ids[fd])
        if connection is not None:
            connection.more.facts = self.facts(fd)
            connection.fd = -1
            self._kept.pop(fd, None)
            self._pinned.pop(fd, None)
            self._current_connection = None if connection is self._current_connection else self._current_connection
        self.routes.release(self.table.routes[fd])
        if connection is None or hook is None:
            return
        if connection.holds and not self._ending:
            connection.more.ending = close
            connection.more.hook = hook
            self._parted.add(connection)
        else:
            self._deferred.append(("on_close", hook, connection, (close,)))
            self.wake()

    def end(self, fd: int) -> None:
        """Frees the row and the descriptor. A child of the app may hold a duplicate of the socket, so that close(2)
        alone would leave the peer waiting: shutdown(2) ends the connection itself."""
        with suppress(OSError):
            self.epoll.unregister(fd)
        self.output.forget(fd)
        self.return_reader(fd)
        self._heads.pop(fd, None)
        self._waiting.pop(fd, None)
        self._thrown_away.pop(fd, None)
        self.hand.pinged.pop(fd, None)
        self.table.clear(fd)
        if self.current == fd:
            self.current = -1
        shut(fd, socket.SHUT_RDWR)
        os.close(fd)
        if self.acceptor.paused:
            self.acceptor.resume()

    # ---- Connection objects

    def existing(self, fd: int) -> Connection | None:
        """The object of a connection, if anybody holds it."""
        if fd == self.current and self._current_connection is not None:
            return self._current_connection
        kept = self._kept.get(fd)
        if kept is None:
            return None
        connection = kept()
        if connection is None:
            del self._kept[fd]
        return connection

    def connection(self, fd: int) -> Connection:
        """The object of a connection."""
        connection = self.existing(fd)
        if connection is None:
            connection = Connection(self, fd, self.table.ids[fd])
            self.keep(fd, connection)
        return connection

    def keep(self, fd: int, connection: Connection) -> None:
        self._kept[fd] = weakref.ref(connection)

    def pin(self, connection: Connection, pinned: bool) -> None:
        """Keeps an object alive until the close: its state is set."""
        fd = connection.fd
        if fd < 0:
            return
        if pinned:
            self._pinned[fd] = connection
        else:
            self._pinned.pop(fd, None)

    def endpoint(self, fd: int) -> int:
        return self.routes.endpoints[self.table.routes[fd]]

    def facts(self, fd: int) -> tuple[str, str | None, tuple[str, int] | str]:
        path, _, subprotocol = self.routes.route(self.table.routes[fd])
        return path, subprotocol, self.table.address(fd)

    # ---- what the floor above asks for

    def hold(self, connection: Connection) -> None:
        connection.more.holds += 1
        if connection.fd >= 0:
            self.table.flags[connection.fd] |= HELD

    def release(self, connection: Connection) -> None:
        more = connection.more
        if more.holds == 0:
            raise RuntimeError("release without hold")
        more.holds -= 1
        if more.holds:
            return
        fd = connection.fd
        if fd < 0:
            if more.ending is not None and more.hook is not None:
                self._deferred.append(("on_close", more.hook, connection, (more.ending,)))
                more.ending = None
                self._parted.discard(connection)
                self.settle()
            return
        self.table.flags[fd] &= ~HELD
        if self.table.phases[fd] != OPEN:
            return
        if self._running:
            self.make_ready(fd)
            return
        self._running = True
        self.now = time.monotonic()
        try:
            self.resume(fd)
            if self.output.dirty:
                self.output.flush_dirty()
        finally:
            self._end_turn()

    def fail(self, connection: Connection, hook: str, error: BaseException) -> None:
        self.handler_error(connection, hook, error)
        self.publish()

    def stall(self, endpoint: int) -> None:
        self._stalled[endpoint] = True

    def unstall(self, endpoint: int) -> None:
        self._stalled[endpoint] = False
        self._unstalled.add(endpoint)
        self.wake()

    def broadcast(self, message: Message, connections: Iterable[Connection] | None = None, *, text: bool | None = None) -> int:
        if get_ident() != self.thread:
            raise RuntimeError("broadcast belongs to the worker's own thread; use loop.call_soon_threadsafe")
        frame = pack_message(message, text)
        output = self.output
        before = output.messages_out
        for fd in self._open_rows() if connections is None else self._rows_of(connections):
            output.send(fd, frame)
        return output.messages_out - before

    def _open_rows(self) -> list[int]:
        return [fd for fd, phase in enumerate(self.table.phases) if phase == OPEN]

    def _rows_of(self, connections: Iterable[Connection]) -> list[int]:
        rows = []
        for connection in connections:
            if not isinstance(connection, Connection):
                raise TypeError(f"broadcast needs connections of this worker, not {type(connection).__name__}")
            if connection.engine is not self:
                raise ValueError("broadcast needs connections of this worker; this one is another's")
            if connection.is_open:
                rows.append(connection.fd)
        return rows

    def connections(self) -> list[Connection]:
        return [self.connection(fd) for fd in self._open_rows()]

    def drain(self, code: int, reason: str, at_most: int) -> int:
        payload = pack_close(code, reason)
        close = Close(code, reason, Cause.DRAIN, False)
        phases = self.table.phases
        self.now = time.monotonic()
        for fd in range(self._drain_hand, len(phases)):
            if phases[fd] == HANDSHAKE:
                self.lose(fd, Cause.DRAIN)
            elif phases[fd] == OPEN:
                if at_most <= 0:
                    self._drain_hand = fd
                    break
                at_most -= 1
                self.close_politely(fd, payload, close)
        else:
            self._drain_hand = 0
        self.settle()
        return self.table.used

    def close(self) -> None:
        if self.epoll.closed:
            return
        self.stop_listening()
        self._ending = True
        for connection in self._parted:
            if connection.more.ending is not None and connection.more.hook is not None:
                self._deferred.append(("on_close", connection.more.hook, connection, (connection.more.ending,)))
                connection.more.ending = None
        self._parted.clear()
        for fd, phase in enumerate(self.table.phases):
            if phase:
                self.lose(fd, Cause.DRAIN)
        self._running = True
        self._ready.clear()
        self._end_turn()
        self.epoll.close()

    # ---- the clock

    def tick(self) -> None:
        if self.epoll.closed:
            return
        self.now = time.monotonic()
        self._running = True
        try:
            self.hand.tick(self.now)
            self.acceptor.tick(self.now)
            if self.output.dirty:
                self.output.flush_dirty()
        finally:
            self._end_turn()

    def give_back(self) -> None:
        """After a sweep: rows that are not used any more, objects that nobody holds, and the room of empty dicts."""
        for fd in [fd for fd, kept in self._kept.items() if kept() is None]:
            del self._kept[fd]
        self.table.trim()
        for empty in (
            self._kept, self._pinned, self._heads, self._readers, self._waiting, self._closing, self._thrown_away,
            self.output.unsent, self.output.pongs, self.hand.pinged,
        ):  # fmt: skip
            if not empty:
                empty.clear()  # a dict keeps the room of its largest size until then


def shut(fd: int, how: int) -> None:
    """shutdown(2). The family does not matter to it."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    with suppress(OSError):  # the peer reset it, or it was shut before
        end.shutdown(how)
    end.detach()


def socket_error(fd: int) -> int:
    """SO_ERROR, which this takes away."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        return end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        end.detach()


def at_end(fd: int) -> bool:
    """Whether the peer's stream has ended and nothing lies unread before its end."""
    end = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        return end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except OSError:
        return False
    finally:
        end.detach()
