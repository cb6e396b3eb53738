"""What has been read: events to handlers, as long as the connection may go on."""

from __future__ import annotations

import sys

from unlimitedws.engine.contract import CONTROLS_PER_S, MESSAGES_PER_TURN
from unlimitedws.engine.portable.connection import Connection
from unlimitedws.engine.portable.core import Hook
from unlimitedws.engine.portable.ending import Ending
from unlimitedws.engine.portable.pipe import Pipe
from unlimitedws.engine.portable.table import (
    BLOCKED,
    DEFLATE,
    FLOODING,
    HANDSHAKE,
    HELD,
    LINGER,
    OPEN,
    OVER,
    PARTIAL,
    RATED,
    STALLED,
    STREAM,
    WAITING,
)
from unlimitedws.wire.closing import POLICY_VIOLATION, Cause, Close, pack_close
from unlimitedws.wire.frames import Event

MESSAGES = ("text", "binary", "compressed")
TOO_FAST = Close(POLICY_VIOLATION, "too fast", Cause.RATE, False)


def references_of_ours() -> int:
    """What sys.getrefcount says of an object that one local variable refers to; it differs between versions."""
    mine = object()
    return sys.getrefcount(mine)


OURS = references_of_ours()


class Handling(Ending):
    """Calls the handlers, in order."""

    def parse(self, fd: int, data: bytes) -> list[Event]:
        """The events of `data`; only a connection in the middle of something has a reader of its own."""
        flags = self.table.flags[fd]
        if not flags & PARTIAL:
            self.reader.deflate = bool(flags & DEFLATE)
            events = self.reader.feed(data)
            if self.reader.is_clean:
                self.reader.deflate = False
            else:
                self.lend_reader(fd)
            return events
        reader = self._readers[fd]
        events = reader.feed(data)
        if reader.is_clean:
            self.return_reader(fd)
        return events

    def consume(self, fd: int, events: list[Event]) -> None:
        """Handles events in their order, until they are used up or the connection must wait."""
        table = self.table
        phases, flags = table.phases, table.flags
        id = table.ids[fd]
        endpoint = self.routes.endpoints[table.routes[fd]]
        hook = self._message_hooks[endpoint]
        rated = self.rates is not None
        connection: Connection | None = None
        handled = 0
        self.current = fd
        following = iter(events)
        for event in following:
            if (
                phases[fd] == OPEN
                and (flags[fd] & (HELD | OVER) or handled or self._stalled[endpoint] or rated)
                and self.must_wait(fd, endpoint, handled, event)
            ):
                self._waiting[fd] = [event, *following]
                break
            if event[0] == "compressed":
                if phases[fd] != OPEN:
                    self._messages_in += 1
                    continue
                event = self.deflating.unpacked(fd, self.terms(fd), event[1], event[2])
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
            elif event[0] == "ping" or event[0] == "pong":
                self.count_control(fd)
                if phases[fd] == OPEN and event[0] == "ping":
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

    def must_wait(self, fd: int, endpoint: int, handled: int, event: Event) -> bool:
        """Before an event: whether it and the rest have to wait."""
        if self.table.flags[fd] & (HELD | OVER):
            return True
        if self._stalled[endpoint]:
            self.wait_for_room(fd)
            return True
        if handled >= MESSAGES_PER_TURN:
            self.make_ready(fd)
            return True
        return self.rates is not None and event[0] in MESSAGES and not self.rates.take(fd, self.now) and self.is_delayed(fd)

    def count_control(self, fd: int) -> None:
        """Of a Ping or Pong. Too many of them: what was read is still handled, so that nothing of a flood is kept in memory."""
        count = self.controls[fd] = self.controls.get(fd, 0) + 1
        if count > CONTROLS_PER_S:
            self.table.flags[fd] |= FLOODING

    def is_delayed(self, fd: int) -> bool:
        """A connection sent more than its rate allows. Whether it has to wait for that: else it is closed."""
        assert self.rates is not None
        if self.rates.closes:
            self.close_politely(fd, pack_close(TOO_FAST.code, TOO_FAST.reason), TOO_FAST)
            return False
        self.table.flags[fd] |= RATED
        self.rates.waiting.add(fd)
        return True

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
        if is_open and table.flags[fd] & WAITING:
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

    def drained(self, fd: int) -> None:
        """Its output fell through low water: reads go on."""
        phase = self.table.phases[fd]
        if phase == OPEN:
            hook = self._drain_hooks[self.endpoint(fd)]
            if hook is not None:
                self._deferred.append(("on_drain", hook, self.connection(fd), ()))
        elif phase == STREAM:
            pipe = self.streams[fd]
            self._deferred.append(("drained", self.tell_drained, pipe, ()))
        elif phase != HANDSHAKE:
            return
        self.make_ready(fd)
        self.wake()

    def tell_drained(self, pipe: Pipe) -> None:
        if pipe.stream is not None:
            self.tell(pipe, pipe.stream.drained)

    def call(self, connection: Connection, name: str, hook: Hook) -> None:
        try:
            hook(connection)
        except BaseException as error:
            self.handler_error(connection, name, error)
