"""From readiness to bytes, and what they go through: TLS, rates, the reader of frames; ends of streams."""

from __future__ import annotations

import os
import select
import socket
from errno import ECONNRESET, EPIPE

from unlimitedws.engine.contract import LINGER_BYTES
from unlimitedws.engine.portable.opening import Opening
from unlimitedws.engine.portable.sockets import at_end, shut, socket_error
from unlimitedws.engine.portable.table import (
    BROKEN,
    CLOSING,
    EXTRA,
    HALF_CLOSED,
    HANDSHAKE,
    LINGER,
    OPEN,
    PARTIAL,
    PAUSED,
    STREAM,
)
from unlimitedws.wire.closing import Cause

FAILED = select.EPOLLHUP | select.EPOLLERR


class Reading(Opening):
    """Reads what has come, one receive buffer at a time."""

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
            phase, flags = table.phases[fd], table.flags[fd]
            if flags & PAUSED and phase in (OPEN, STREAM, HANDSHAKE):
                self.readable_while_paused(fd, what)
            elif what & FAILED and (self.streams[fd].has_ended if phase == STREAM else phase == LINGER and flags & HALF_CLOSED):
                self.gone(fd)  # reading would only give the end of the stream once more
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
        if not data:
            return
        phase = self.table.phases[fd]  # reading may have ended what there was
        if phase == HANDSHAKE:
            self.read_head(fd, data)
        elif phase == STREAM:
            self.feed(self.streams[fd], data)
        elif phase == LINGER:
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
            if not self.has_unhandled(fd) and at_end(fd):
                self.stream_ended(fd, 0)
                return
        self.watch(fd)

    def has_unhandled(self, fd: int) -> bool:
        """Whether something was read that is still to be handled."""
        return fd in self._waiting or fd in self._heads or (fd in self.streams and bool(self.streams[fd].kept))

    def gone(self, fd: int) -> None:
        """They ended their side before, and now the connection is over."""
        failed = socket_error(fd)
        if failed in (ECONNRESET, EPIPE) or self.table.flags[fd] & BROKEN:
            self.lose(fd, Cause.PEER_RESET)
        else:
            self.lose(fd, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

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
            return b""
        self._bytes_in += len(data)
        return self.intake(fd, data) if self.table.flags[fd] & EXTRA else data

    def intake(self, fd: int, data: bytes) -> bytes:
        """What is left of received bytes behind a preface and inside of TLS."""
        if fd in self._prefaces:
            data = self.read_preface(fd, data)
        if data and fd in self.tls and self.table.phases[fd] != LINGER:
            data = self.unseal(fd, data)
        if data and fd in self.meters:
            self.meters[fd].bytes_in += len(data)
        return data

    def unseal(self, fd: int, data: bytes) -> bytes:
        """The plaintext in what has come through TLS."""
        tls = self.tls[fd]
        if tls.object is None and self.gate is not None and not self.gate.secure(self.table.address(fd)):
            self.lose(fd, Cause.SHED)
            return b""
        self.table.seen[fd] = self.now  # also of a record that is not whole yet
        try:
            data = tls.open(data)
        except OSError:  # ssl.SSLError is one; the context's files may have another
            self.tls_failed(fd)
            return b""
        self.output.say(fd, tls.take())
        if tls.has_ended:
            shut(fd, socket.SHUT_RD)  # so that it ends here like any other stream, when its turn comes
        return data

    def read_frames(self, fd: int) -> None:
        """Reads one receive buffer and handles it. The hottest lines of this engine: little is called here."""
        table = self.table
        if self._stalled[self.routes.endpoints[table.routes[fd]]] and table.phases[fd] == OPEN:
            self.wait_for_room(fd)
            return
        if table.flags[fd] & EXTRA:
            self.read_extra(fd)
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

    def read_extra(self, fd: int) -> None:
        """The same where the bytes pass more than the reader."""
        data = self.read(fd)
        if not data:
            return
        self.table.seen[fd] = self.now
        if self.rates is not None and not self.rates.charge(fd, len(data), self.now) and self.is_open(fd) and self.is_delayed(fd):
            self.watch(fd)
        self.consume(fd, self.parse(fd, data))

    def is_open(self, fd: int) -> bool:
        return self.table.phases[fd] == OPEN
