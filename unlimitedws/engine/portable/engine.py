"""The portable engine: the turn of the loop, and what the floor above asks for."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable
from ssl import SSLContext
from threading import get_ident
from typing import Any

from unlimitedws.engine import give_back_free
from unlimitedws.engine.contract import EVENTS_PER_BATCH, Front
from unlimitedws.engine.counters import MESSAGE_HANDLING
from unlimitedws.engine.portable.accepting import Acceptor
from unlimitedws.engine.portable.connection import Connection, Message, pack_message, said_of
from unlimitedws.engine.portable.core import Hook
from unlimitedws.engine.portable.hand import Hand
from unlimitedws.engine.portable.moving import Moving
from unlimitedws.engine.portable.output import Output
from unlimitedws.engine.portable.posting import Posting
from unlimitedws.engine.portable.table import (
    HANDSHAKE,
    HELD,
    OPEN,
    PAUSED,
    READY,
    STALLED,
)
from unlimitedws.wire.closing import POLICY_VIOLATION, Cause, Close, pack_close

EXPIRED = Close(POLICY_VIOLATION, "expired", Cause.EXPIRED, False)

MAX_BATCHES = 8
MAX_TURN_S = 0.005
"""No further batch is begun in a turn after so long: timers and coroutines of the app want theirs."""


class Engine(Moving):
    """See `contract.Engine`."""

    name = "portable"

    def __init__(
        self, config: Any, front: Front, row: memoryview, serial: int, call_soon: Hook, call_soon_threadsafe: Hook
    ) -> None:  # fmt: skip
        super().__init__(config, front, row, serial, call_soon, call_soon_threadsafe)
        self.output = Output(self)
        self.acceptor = Acceptor(self)
        self.hand = Hand(self)
        self.posting = Posting(self)

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
        handled = self._messages_in
        try:
            for _ in range(MAX_BATCHES):
                if not self._run_batch():
                    break
                self.now = time.monotonic()
                if self.now - began >= MAX_TURN_S:
                    break
        finally:
            self._note_handling(began, self._messages_in - handled)
            self._end_turn()

    def _note_handling(self, began: float, handled: int) -> None:
        """Counts the messages of a turn in `MESSAGE_HANDLING`, each with an equal part of its time."""
        if handled:
            MESSAGE_HANDLING.note(self.row, int((time.monotonic() - began) * 1e9) // handled, handled)

    def _run_batch(self) -> bool:
        if self._ready or self._unstalled:
            self._run_ready()
        events = self.epoll.poll(0, EVENTS_PER_BATCH)
        phases, flags, handle, readable = self.table.phases, self.table.flags, self.handle, select.EPOLLIN
        for fd, what in events:
            # One call less for nearly every event.
            if what == readable and fd < len(phases) and phases[fd] == OPEN and not flags[fd] & PAUSED:
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

    def begin_turn(self) -> bool:
        """For a call from outside; whether `end_turn` must follow: no turn was under way."""
        if self._running:
            return False
        self._running = True
        self.now = time.monotonic()
        return True

    def end_turn(self) -> None:
        try:
            if self.output.dirty:
                self.output.flush_dirty()
        finally:
            self._end_turn()

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

    def _run_deferred(self) -> None:
        """Calls on_close and on_drain, now that no handler is on the stack."""
        while self._deferred:
            name, hook, connection, arguments = self._deferred.popleft()
            try:
                hook(connection, *arguments)
            except BaseException as error:
                self.handler_error(connection, name, error)

    def tick(self) -> None:
        if self.epoll.closed:
            return
        self.now = time.monotonic()
        self._running = True
        try:
            self.hand.tick(self.now)
            self.acceptor.tick(self.now)
        finally:
            self.end_turn()

    def give_back(self) -> None:
        """After a sweep: rows that are not used any more, objects that nobody holds, and the room of empty dicts."""
        for fd in [fd for fd, kept in self._kept.items() if kept() is None]:
            del self._kept[fd]
        has_shrunk = self.table.trim()
        if self.rates is not None:
            self.rates.trim(self.now)
        for empty in (
            self._kept, self._pinned, self._heads, self._readers, self._waiting, self._closing, self._thrown_away, self.controls,
            self.output.unsent, self.output.pongs, self.output.moved, self.hand.pinged,
            self._prefaces, self.streams, self.tls, self.meters, self.deflating.contexts, self.table.names,
        ):  # fmt: skip
            if not empty:
                empty.clear()  # a dict keeps the room of its largest size until then
        if has_shrunk:
            give_back_free()

    # ---- what the floor above asks for

    def listen(self, fd: int, *, proxied: bool = False, tls: Callable[[], SSLContext] | None = None) -> None:
        self.thread = get_ident()
        self.acceptor.listen(fd, proxied, tls)

    def unlisten(self, fd: int) -> None:
        self.acceptor.unlisten(fd)

    def stop_listening(self) -> None:
        self.acceptor.stop()

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
        if not self.begin_turn():
            self.make_ready(fd)
            return
        try:
            self.resume(fd)
        finally:
            self.end_turn()

    def fail(self, connection: Connection, hook: str, error: BaseException) -> None:
        self.handler_error(connection, hook, error)
        self.publish()

    def expire(self, connection: Connection) -> None:
        if connection.fd >= 0 and not self.say_later(connection.fd, ("expire",)):
            self.close_politely(connection.fd, pack_close(EXPIRED.code, EXPIRED.reason), EXPIRED)

    def stall(self, endpoint: int) -> None:
        self._stalled[endpoint] = True

    def unstall(self, endpoint: int) -> None:
        self._stalled[endpoint] = False
        self._unstalled.add(endpoint)
        self.wake()

    def broadcast(
        self, message: Message, connections: Iterable[Connection] | None = None, *, text: bool | None = None, departing: bool = True
    ) -> int:  # fmt: skip
        if get_ident() != self.thread:
            raise RuntimeError("broadcast belongs to the worker's own thread; use loop.call_soon_threadsafe")
        frame = pack_message(message, text)
        output = self.output
        before = output.messages_out
        output.packed = {}
        said = said_of(message, text)
        later = 0
        for fd in self._open_rows() if connections is None else self._rows_of(connections):
            if self.table.phases[fd] == OPEN:
                output.send(fd, frame)
            elif departing:
                later += self.say_later(fd, said)
        output.packed = None
        return output.messages_out - before + later

    def _open_rows(self) -> list[int]:
        phases = self.table.phases
        return sorted([fd for fd, phase in enumerate(phases) if phase == OPEN] + [fd for fd in self.departing if self.serves(fd)])

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

    def page(self, start: int, at_most: int) -> tuple[list[Connection], int | None]:
        rows = [fd for fd in self._open_rows() if fd >= start]
        return [self.connection(fd) for fd in rows[:at_most]], rows[at_most] if len(rows) > at_most else None

    def find(self, id: int) -> Connection | None:
        return next((self.connection(fd) for fd in self._open_rows() if self.table.ids[fd] == id), None)

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
        self.stay(list(self.departing))
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
