"""Connections that outlive this engine: their rows given to another, and rows taken over from one.

A connection on its way out is frozen: epoll does not tell of it, what is said to it is kept, its row and what it has besides
stay as they are, until the other side has it (`departed`) or will not have it (`stay`).
"""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Sequence

from unlimitedws.engine.moved import Meter, Moved, Tokens
from unlimitedws.engine.portable import meters
from unlimitedws.engine.portable.connection import Connection
from unlimitedws.engine.portable.rates import Bucket
from unlimitedws.engine.portable.reading import Reading
from unlimitedws.engine.portable.table import (
    ANSWERED,
    BROKEN,
    DEFLATE,
    DEPARTING,
    EXTRA,
    HANDSHAKE,
    HELD,
    OPEN,
    OVER,
    RATED,
    READY,
    RESUMED,
    STALLED,
    STREAM,
)
from unlimitedws.engine.said import Said, say_again
from unlimitedws.wire.closing import SERVICE_RESTART, Cause, Close, pack_close
from unlimitedws.wire.frames import PONG, pack_frame
from unlimitedws.wire.replay import frame_of, replay

NOT_RESUMED = Close(SERVICE_RESTART, "state was lost", Cause.NOT_RESUMED, False)


class Moving(Reading):
    """See `contract.Engine`."""

    def _take_state(self) -> None:
        super()._take_state()
        self._departing_hand = 0

    # ---- out

    def depart(
        self, at_most: int, *, objects: bool = False, but: Collection[int] = ()
    ) -> list[tuple[int, Moved, Connection | None]]:  # fmt: skip
        self.now = time.monotonic()
        self.output.flush_dirty()
        self.settle()  # an on_drain that was due: it may send more, or hold its connection
        phases = self.table.phases
        found: list[tuple[int, Moved, Connection | None]] = []
        for fd in range(self._departing_hand, len(phases)):
            if not self._may_depart(fd) or fd in but:
                continue
            if len(found) >= at_most:
                self._departing_hand = fd
                break
            connection = (self.connection(fd) if objects else self.existing(fd)) if phases[fd] == OPEN else None
            found.append((fd, self._moved(fd), connection))
            self.departing[fd] = phases[fd]
            phases[fd] = DEPARTING
            self.table.flags[fd] &= ~(READY | STALLED)
            self.epoll.unregister(fd)
        else:
            self._departing_hand = 0
        return found

    def held(self) -> int:
        table = self.table
        return sum(
            phase == STREAM or (phase == OPEN and bool(table.flags[fd] & HELD or fd in self.output.dirty) and fd not in self.tls)
            for fd, phase in enumerate(table.phases)
        )

    def _may_depart(self, fd: int) -> bool:
        phase, flags = self.table.phases[fd], self.table.flags[fd]
        if phase not in (OPEN, HANDSHAKE) or flags & (HELD | BROKEN) or fd in self.tls or fd in self._prefaces or fd in self.output.dirty:
            return False
        if phase == HANDSHAKE:
            return not flags & ANSWERED and fd not in self.output.unsent
        if fd in self.deflating.contexts:
            return False
        return not any(event[0] == "violation" for event in self._waiting.get(fd, ()))

    def _moved(self, fd: int) -> Moved:
        table = self.table
        seen_s, active_s, address = self.now - table.seen[fd], self.now - table.since[fd], table.address(fd)
        if table.phases[fd] == HANDSHAKE:
            return Moved(table.ids[fd], None, None, None, address, seen_s, active_s, None, bytes(self._heads.get(fd, b"")))
        path, _, subprotocol, deflate = self.routes.route(table.routes[fd])
        pinged = self.hand.pinged.get(fd)
        pinged_s = self.now - pinged if pinged is not None and table.seen[fd] <= pinged else None
        return Moved(
            table.ids[fd], path, subprotocol, deflate, address, seen_s, active_s, pinged_s, self._unread(fd), self._unsent(fd),
            bool(table.flags[fd] & OVER), self._meter(fd), self._tokens(fd),
        )  # fmt: skip

    def _unread(self, fd: int) -> bytes:
        """What was read and not handled, from the beginning of the message it belongs to."""
        waiting = b"".join(map(frame_of, self._waiting.get(fd, ())))
        reader = self._readers.get(fd)
        return waiting if reader is None else waiting + replay(*reader.state)

    def _unsent(self, fd: int) -> bytes:
        """What waits to be written; a Pong that waited for its turn behind it."""
        pong = self.output.pongs.get(fd)
        last = pack_frame(PONG, pong.waiting) if pong is not None and pong.waiting is not None else b""
        return b"".join((*self.output.unsent.get(fd, ()), last))

    def _meter(self, fd: int) -> Meter | None:
        meter = self.meters.get(fd)
        return None if meter is None else Meter(meter.bytes_in, meter.bytes_out, self.now - meter.opened)

    def _tokens(self, fd: int) -> Tokens | None:
        if self.rates is None:
            return None
        bucket = self.rates.bucket(fd, self.now)
        return Tokens(-1.0 if self.table.flags[fd] & RATED else bucket.messages, bucket.bytes)

    def departed(self, fds: Sequence[int]) -> dict[int, list[Said]]:
        said = {self.table.ids[fd]: self.said.pop(fd) for fd in fds if fd in self.said}
        for fd in fds:
            if self.departing.pop(fd) == HANDSHAKE:
                self._pending -= 1
            else:
                self.leave(fd)
            self.free(fd)
        self.publish()
        return said

    def stay(self, fds: Sequence[int], *, resumed: Collection[int] = ()) -> None:
        table = self.table
        for fd in fds:
            if fd in resumed:
                table.flags[fd] |= RESUMED
            table.phases[fd] = self.departing.pop(fd)
            self.epoll.register(fd, select.EPOLLIN)
            table.interest[fd] = select.EPOLLIN
            self.watch(fd)
            self.make_ready(fd)
            if said := self.said.pop(fd, None):
                say_again(self, self.connection(fd), said)

    # ---- in

    def adopt(self, fd: int, moved: Moved, endpoint: int) -> None:
        table = self.table
        self.now = time.monotonic()
        self.epoll.register(fd, select.EPOLLIN)
        table.reach(fd)
        table.ids[fd] = moved.id
        table.interest[fd] = select.EPOLLIN
        table.set_address(fd, moved.address)
        table.used += 1
        if self.gate is not None:
            self.gate.take_over(moved.address)
        table.seen[fd], table.since[fd] = self.now - moved.seen_s, self.now - moved.active_s
        if moved.path is None:
            table.phases[fd] = HANDSHAKE
            self._pending += 1
            if moved.input:
                self._heads[fd] = bytearray(moved.input)
        else:
            table.routes[fd] = self.routes.take(moved.path, endpoint, moved.subprotocol, moved.deflate)
            table.phases[fd] = OPEN
            table.flags[fd] |= RESUMED
            self._open += 1
            self._settle_in(fd, moved)
        self.make_ready(fd)
        self.publish()

    def _settle_in(self, fd: int, moved: Moved) -> None:
        """What it brings that is unfinished."""
        flags = self.table.flags
        if moved.deflate is not None:
            flags[fd] |= EXTRA | DEFLATE
        if self.config.access_log:
            flags[fd] |= EXTRA
            bytes_in, bytes_out, opened_s = moved.meter or Meter(0, 0, 0.0)
            self.meters[fd] = meters.Meter(self.now - opened_s, bytes_in, bytes_out)
        if self.rates is not None:
            flags[fd] |= EXTRA
            if moved.tokens is not None:
                self.rates.buckets[fd] = Bucket(*moved.tokens, self.now)
                if min(moved.tokens) < 0:
                    flags[fd] |= RATED
                    self.rates.waiting.add(fd)
        if moved.pinged_s is not None:
            self.hand.pinged[fd] = self.now - moved.pinged_s
        if moved.input and (events := self.parse(fd, moved.input)):
            self._waiting[fd] = events
        if moved.output:
            self.output.put(fd, moved.output)
            if moved.is_over:
                flags[fd] |= OVER

    def connection_at(self, fd: int) -> Connection | None:
        return self.connection(fd) if self.serves(fd) else None

    def part_with(self, connection: Connection) -> None:
        if connection.fd >= 0:
            self.close_politely(connection.fd, pack_close(NOT_RESUMED.code, NOT_RESUMED.reason), NOT_RESUMED)
