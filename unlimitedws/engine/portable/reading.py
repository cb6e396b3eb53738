"""From readiness to bytes: new connections, requests, frames, ends of streams."""

from __future__ import annotations

import os
import select
from errno import ECONNRESET

from unlimitedws.engine.contract import LINGER_BYTES, Refusal, Upgrade
from unlimitedws.engine.portable.handling import Handling
from unlimitedws.engine.portable.sockets import at_end, socket_error
from unlimitedws.engine.portable.table import (
    CLOSING,
    HALF_CLOSED,
    HANDSHAKE,
    OPEN,
    PARTIAL,
    PAUSED,
)
from unlimitedws.wire.frames import Event
from unlimitedws.wire.handshake import too_large
from unlimitedws.wire.head import END

FAILED = select.EPOLLHUP | select.EPOLLERR


class Reading(Handling):
    """Reads what has come, one receive buffer at a time."""

    def admit(self, fd: int, address: object) -> None:
        """Takes in an accepted connection, already in the epoll set."""
        table = self.table
        table.reach(fd)
        self._next_id += 1
        table.ids[fd] = self._next_id
        table.phases[fd] = HANDSHAKE
        table.interest[fd] = select.EPOLLIN
        table.seen[fd] = table.since[fd] = self.now
        table.set_address(fd, address)
        table.used += 1
        self._pending += 1

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
        if what & select.EPOLLOUT and fd in self.output.unsent:
            self.output.flush(fd)
            if table.ids[fd] != id:
                return
        if what & (select.EPOLLIN | select.EPOLLRDHUP | FAILED):
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
        if what & select.EPOLLRDHUP:
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
