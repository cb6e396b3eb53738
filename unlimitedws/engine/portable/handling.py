"""What has been read: events to handlers, as long as the connection may go on."""

from __future__ import annotations

import sys

from unlimitedws.engine.contract import MESSAGES_PER_TURN
from unlimitedws.engine.portable.connection import Connection
from unlimitedws.engine.portable.core import Hook
from unlimitedws.engine.portable.ending import Ending
from unlimitedws.engine.portable.table import (
    BLOCKED,
    HELD,
    LINGER,
    OPEN,
    OVER,
    PAUSED,
    STALLED,
)
from unlimitedws.wire.frames import Event


def references_of_ours() -> int:
    """What sys.getrefcount says of an object that one local variable refers to; it differs between versions."""
    mine = object()
    return sys.getrefcount(mine)


OURS = references_of_ours()


class Handling(Ending):
    """Calls the handlers, in order."""

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
            if (
                phases[fd] == OPEN
                and (flags[fd] & (HELD | OVER) or handled or self._stalled[endpoint])
                and self.must_wait(fd, endpoint, handled)
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

    def call(self, connection: Connection, name: str, hook: Hook) -> None:
        try:
            hook(connection)
        except BaseException as error:
            self.handler_error(connection, name, error)
