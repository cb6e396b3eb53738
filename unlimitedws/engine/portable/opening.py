"""How a connection begins: a proxy's preface, the request, and what comes of it."""

from __future__ import annotations

import select
import time

from unlimitedws.engine.contract import Refusal, Stream, Upgrade
from unlimitedws.engine.portable.accepting import Listener
from unlimitedws.engine.portable.handling import Handling
from unlimitedws.engine.portable.meters import Meter
from unlimitedws.engine.portable.pipe import Pipe
from unlimitedws.engine.portable.table import (
    ANSWERED,
    CLOSING,
    DEFLATE,
    EXTRA,
    HALF_CLOSED,
    HANDSHAKE,
    HELD,
    OPEN,
    OVER,
    PAUSED,
    STREAM,
)
from unlimitedws.engine.tls import Tls
from unlimitedws.wire.address import Address
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import Context
from unlimitedws.wire.handshake import no_request, too_large
from unlimitedws.wire.head import END, may_begin

MOST_PREFACE = 4096
"""Bytes of a proxy's preface, more than any has."""


class Opening(Handling):
    """Answers requests: a WebSocket, a refusal, or a Stream that takes the connection over until it knows."""

    def admit(self, fd: int, listener: Listener) -> None:
        """Takes in an accepted connection: it is in the epoll set, and its row has its address."""
        table = self.table
        self._next_id += 1
        table.ids[fd] = self._next_id
        table.phases[fd] = HANDSHAKE
        table.interest[fd] = select.EPOLLIN
        table.seen[fd] = table.since[fd] = self.now
        table.used += 1
        self._pending += 1
        if listener.proxied:
            self._prefaces[fd] = b""
            table.flags[fd] |= EXTRA
        if listener.tls is not None:
            self.tls[fd] = Tls(listener.tls)
            table.flags[fd] |= EXTRA

    def read_preface(self, fd: int, data: bytes) -> bytes:
        """What a proxy says before anything else; gives what follows it."""
        data = self._prefaces[fd] + data
        try:
            found = self.front.preface(data, self.table.address(fd))
        except ValueError:
            self.lose(fd, Cause.HANDSHAKE_REFUSED)
            return b""
        if found is None:
            self._prefaces[fd] = data
            if len(data) > MOST_PREFACE:
                self.lose(fd, Cause.HANDSHAKE_REFUSED)
            return b""
        del self._prefaces[fd]
        size, address = found
        if address is not None and not self.move(fd, address):
            self.lose(fd, Cause.LIMIT)
            return b""
        return data[size:]

    def move(self, fd: int, address: Address) -> bool:
        """Takes the address that a proxy told of. False: the gate refuses it."""
        if self.gate is not None and not self.gate.move(self.table.address(fd), address):
            return False
        self.table.set_address(fd, address)
        return True

    # ---- the request

    def read_head(self, fd: int, data: bytes) -> None:
        """The request, as far as it has come."""
        kept = self._heads.get(fd)
        searched = 0
        head: bytes | bytearray = data
        if kept is not None:
            searched = max(0, len(kept) - len(END) + 1)
            kept += data
            head = kept
        elif self.table.flags[fd] & ANSWERED:
            self.table.since[fd] = self.now  # the silence was its own, and so is the time for the next head
        end = head.find(END, searched) + len(END)
        limit = self.config.head_bytes
        if end < len(END) and len(head) < limit:
            if kept is None and not may_begin(data):
                self.refuse(fd, no_request())
            elif kept is None:
                self._heads[fd] = bytearray(data)
            return
        self._heads.pop(fd, None)
        if end < len(END) or end > limit:
            self.refuse(fd, too_large(limit))
            return
        pipe = Pipe(self, fd)
        verdict = self.front.answer(bytes(head[:end]), pipe)
        if isinstance(verdict, Upgrade):
            self.open(fd, verdict, bytes(head[end:]))
        elif isinstance(verdict, Refusal):
            self.refuse(fd, verdict)
        else:
            self.begin(fd, pipe, verdict, bytes(head[end:]))

    def refuse(self, fd: int, refusal: Refusal) -> None:
        self.handshake_over(refusal.cause)
        self.table.flags[fd] |= ANSWERED
        self.current = fd
        self.output.put(fd, refusal.response)
        self.linger(fd)
        self.finish(fd)

    def open(self, fd: int, upgrade: Upgrade, rest: bytes) -> None:
        """From here on it is a WebSocket; `rest` came with the request."""
        table = self.table
        if upgrade.remote_address is not None and not self.move(fd, upgrade.remote_address):
            self.lose(fd, Cause.LIMIT)
            return
        table.routes[fd] = self.routes.take(upgrade.path, upgrade.endpoint, upgrade.subprotocol, upgrade.deflate)
        table.phases[fd] = OPEN
        table.flags[fd] &= ~(ANSWERED | HELD | HALF_CLOSED)
        table.since[fd] = self.now
        if self.hand.ping_s:
            table.seen[fd] = self.hand.first_seen(self.now)
        self._pending -= 1
        self._opened += 1
        self._open += 1
        self.equip(fd, upgrade, len(rest))
        id = table.ids[fd]
        self.current = fd
        self.output.put(fd, upgrade.response)
        self.greet(fd, upgrade)
        if table.ids[fd] == id and table.phases[fd] in (OPEN, CLOSING):
            self.consume(fd, self.parse(fd, rest) if rest else [])
            if table.ids[fd] == id:
                self.watch(fd)
        elif table.ids[fd] == id:
            self.finish(fd)

    def equip(self, fd: int, upgrade: Upgrade, received: int) -> None:
        """What a connection has besides its row, where a setting or its terms ask for it."""
        flags = self.table.flags
        if upgrade.deflate is not None:
            flags[fd] |= EXTRA | DEFLATE
            if upgrade.deflate.server_takeover or upgrade.deflate.client_takeover:
                self.deflating.contexts[fd] = Context(upgrade.deflate, self.deflating.level)
        if self.config.access_log:
            flags[fd] |= EXTRA
            self.meters[fd] = Meter(self.now, received, -len(upgrade.response))
        if self.rates is not None:
            flags[fd] |= EXTRA
            self.rates.charge(fd, received, self.now)

    def greet(self, fd: int, upgrade: Upgrade) -> None:
        """Tells the floor above of a new WebSocket."""
        hook = self._connect_hooks[upgrade.endpoint]
        if hook is None and upgrade.state is None and upgrade.expires_at is None:
            return
        connection = self.connection(fd)
        if upgrade.state is not None:
            connection.state = upgrade.state
        if upgrade.expires_at is not None:
            self.front.expires(connection, upgrade.expires_at)
        if hook is not None:
            self.call(connection, "on_connect", hook)

    def resume(self, fd: int) -> None:
        phase = self.table.phases[fd]
        if phase == STREAM:
            self.feed_kept(self.streams[fd])
        elif phase == HANDSHAKE:
            self.resume_handshake(fd)
        else:
            super().resume(fd)

    def resume_handshake(self, fd: int) -> None:
        """The next request has come with the last one, or there is room again for its answer."""
        if self.table.flags[fd] & PAUSED:
            return
        id = self.table.ids[fd]
        head = self._heads.pop(fd, None)
        if head:
            self.read_head(fd, bytes(head))
        if self.table.ids[fd] == id:
            self.watch(fd)

    # ---- streams

    def begin(self, fd: int, pipe: Pipe, stream: Stream, rest: bytes) -> None:
        """The connection belongs to `stream` from here on; `rest` came behind the head."""
        self.table.phases[fd] = STREAM
        pipe.stream = stream
        pipe.kept = rest
        self.streams[fd] = pipe
        self.tell(pipe, lambda: stream.begin(pipe))
        self.feed_kept(pipe)

    def feed_kept(self, pipe: Pipe) -> None:
        """Gives the stream what came behind the head, unless it paused; then what the kernel has."""
        if pipe.stream is not None and pipe.kept and not self.table.flags[pipe.fd] & PAUSED:
            kept, pipe.kept = pipe.kept, b""
            self.feed(pipe, kept)
        if pipe.stream is not None:
            self.watch(pipe.fd)

    def feed(self, pipe: Pipe, data: bytes) -> None:
        stream = pipe.stream
        if stream is not None:
            self.tell(pipe, lambda: stream.received(data))

    # ---- what a Pipe asks for

    def pipe_write(self, pipe: Pipe, data: bytes) -> bool:
        output, fd = self.output, pipe.fd
        if data:
            output.put(fd, data)
        if self.table.queued[fd] <= output.high_water:
            return True
        output.offer(fd)
        return self.table.queued[fd] <= output.high_water

    def pipe_pause(self, pipe: Pipe) -> None:
        self.table.flags[pipe.fd] |= HELD
        self.watch(pipe.fd)

    def pipe_resume(self, pipe: Pipe) -> None:
        if self.table.flags[pipe.fd] & HELD:
            self.table.flags[pipe.fd] &= ~HELD
            self.make_ready(pipe.fd)

    def pipe_answer(self, pipe: Pipe, verdict: Upgrade | Refusal, data: bytes) -> None:
        fd, rest = pipe.fd, data + pipe.kept
        self.part(pipe)
        began = self.begin_turn()
        try:
            if isinstance(verdict, Refusal):
                self.refuse(fd, verdict)
            else:
                self.open(fd, verdict, rest)
        finally:
            if began:
                self.end_turn()

    def pipe_restart(self, pipe: Pipe, data: bytes) -> None:
        fd, rest = pipe.fd, data + pipe.kept
        self.part(pipe)
        self._http += 1
        self.table.flags[fd] |= ANSWERED
        self.table.since[fd] = time.monotonic()
        if pipe.has_ended and not rest:
            self.answered_over(fd)
            return
        if self.table.queued[fd] > self.output.high_water:
            self.table.flags[fd] |= OVER  # nobody asks for more than he reads
        if rest:
            self._heads[fd] = bytearray(rest)
            self.make_ready(fd)
        self.watch(fd)

    def pipe_close(self, pipe: Pipe) -> None:
        fd = pipe.fd
        self.part(pipe)
        self.table.flags[fd] |= ANSWERED
        self.handshake_over(Cause.HTTP_ANSWERED)
        self.linger(fd)
        self.finish(fd)
        self.settle()

    def pipe_abort(self, pipe: Pipe) -> None:
        self.lose(pipe.fd, Cause.HANDSHAKE_REFUSED)
        self.settle()
