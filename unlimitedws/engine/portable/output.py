"""What waits to be written: frames of this turn, and what the kernel did not take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unlimitedws.engine.portable.table import BLOCKED, BROKEN, LINGER, OPEN, OVER
from unlimitedws.wire.closing import TRY_AGAIN_LATER, Cause, Close, pack_close
from unlimitedws.wire.frames import PONG, pack_frame

if TYPE_CHECKING:
    from unlimitedws.engine.portable.handling import Handling

JOIN_BYTES = 64 * 1024
"""Up to here, joining the pieces and one write() costs less than handing their list to writev()."""

PIECES_AT_ONCE = 256  # of 1024 (IOV_MAX)

Piece = bytes | memoryview


class Pong:
    """While a Pong waits for a slow peer, only the latest follows it (RFC 6455, section 5.5.3)."""

    __slots__ = ("left", "waiting")

    def __init__(self, left: int) -> None:
        self.left = left  #: bytes to be written until the queued Pong is out
        self.waiting: bytes | None = None


class Output:
    """The queues of all connections, by descriptor; a connection with nothing to write has none."""

    def __init__(self, engine: Handling) -> None:
        config = engine.config
        self.engine = engine
        self.table = engine.table
        self.unsent: dict[int, list[Piece]] = {}
        self.dirty: set[int] = set()
        self.pongs: dict[int, Pong] = {}
        self.high_water: int = config.high_water_bytes
        self.low_water: int = config.low_water_bytes
        self.queue_limit: int = config.queue_bytes
        self.drops: bool = config.queue_policy == "drop"
        self.bytes_out = 0
        self.messages_out = 0
        self.dropped = 0

    def send(self, fd: int, frame: bytes) -> bool:
        """Queues a message for an open connection, by its policy; True: queued, and under high water."""
        size = len(frame)
        if fd == self.engine.current and fd not in self.unsent and size <= self.high_water and not self.table.flags[fd] & BROKEN:
            # The usual case, an answer: `put` without its questions.
            self.unsent[fd] = [frame]
            self.table.queued[fd] = size
            self.messages_out += 1
            return True
        queued = self.table.queued[fd]
        if queued + size > self.high_water and not self.makes_room(fd, size):
            return False
        self.messages_out += 1
        self.put(fd, frame)
        if queued + size <= self.high_water:
            return True
        self.offer(fd)
        return self.table.queued[fd] <= self.high_water

    def makes_room(self, fd: int, size: int) -> bool:
        """Whether a message may be queued; if not, the policy has been applied."""
        self.offer(fd)
        table = self.table
        if table.flags[fd] & BROKEN:
            return False
        queued = table.queued[fd]
        if queued == 0 or queued + size <= self.queue_limit:
            return True
        if self.drops:
            self.dropped += 1
        else:
            close = Close(TRY_AGAIN_LATER, "too slow", Cause.SLOW_CONSUMER, False)
            self.engine.close_politely(fd, pack_close(close.code, close.reason), close)
        return False

    def put(self, fd: int, frame: bytes) -> None:
        """Queues bytes, whatever waits already; they leave at the end of the input or turn."""
        table = self.table
        if table.flags[fd] & BROKEN:
            return
        pieces = self.unsent.get(fd)
        if pieces is None:
            self.unsent[fd] = [frame]
        else:
            pieces.append(frame)
        queued = table.queued[fd] = table.queued[fd] + len(frame)
        if table.flags[fd] & BLOCKED:
            if queued > self.high_water and table.phases[fd] == OPEN:
                table.flags[fd] |= OVER
        elif fd != self.engine.current:
            self.dirty.add(fd)
            self.engine.wake()

    def pong(self, fd: int, payload: bytes) -> None:
        """Answers a Ping."""
        pong = self.pongs.get(fd)
        if pong is not None:
            pong.waiting = payload
            return
        self.put(fd, pack_frame(PONG, payload))
        if self.table.flags[fd] & BLOCKED:
            self.pongs[fd] = Pong(self.table.queued[fd])

    def offer(self, fd: int) -> None:
        """Offers the kernel what waits, unless it is known to take no more."""
        if fd in self.unsent and not self.table.flags[fd] & BLOCKED:
            self.flush(fd)

    def flush_dirty(self) -> None:
        """Writes what was queued from outside a connection's own input: once for each, however much it was."""
        dirty, self.dirty = self.dirty, set()
        for fd in dirty:
            self.offer(fd)

    def flush(self, fd: int) -> None:
        """Writes what waits for `fd`. Ends no connection but a lingering one."""
        pieces = self.unsent[fd]
        queued = self.table.queued[fd]
        try:
            if len(pieces) == 1:
                written = os.write(fd, pieces[0])
            elif queued <= JOIN_BYTES:
                written = os.write(fd, b"".join(pieces))
            else:
                written = os.writev(fd, pieces[:PIECES_AT_ONCE])
        except BlockingIOError:
            written = 0
        except OSError:
            self.broken(fd)
            return
        self.bytes_out += written
        if written == queued:
            del self.unsent[fd]
            self.table.queued[fd] = 0
            if self.table.flags[fd] & (BLOCKED | OVER) or self.table.phases[fd] == LINGER:
                self.progress(fd, written)
            return
        drop(pieces, written)
        self.table.queued[fd] = queued - written
        self.blocked(fd)
        if written:
            self.progress(fd, written)

    def broken(self, fd: int) -> None:
        """The connection is gone; epoll will report it, and `Engine.handle` ends it."""
        self.forget(fd)
        self.table.queued[fd] = 0
        self.table.flags[fd] |= BROKEN

    def blocked(self, fd: int) -> None:
        """The kernel takes no more: wait for room, and read no more from a peer that does not read."""
        flags = self.table.flags
        if self.table.queued[fd] > self.high_water and self.table.phases[fd] == OPEN:
            flags[fd] |= OVER
        if not flags[fd] & BLOCKED:
            flags[fd] |= BLOCKED
            self.engine.watch(fd)

    def progress(self, fd: int, written: int) -> None:
        """Some output left a queue that was blocked: a sign of life, a Pong's turn, the way down through low water."""
        table, engine = self.table, self.engine
        table.seen[fd] = engine.now
        if fd in self.pongs:
            self.next_pong(fd, written)
        if table.flags[fd] & OVER and table.queued[fd] <= self.low_water:
            table.flags[fd] &= ~OVER
            engine.drained(fd)
        if table.flags[fd] & BLOCKED and fd not in self.unsent:
            table.flags[fd] &= ~BLOCKED
            engine.watch(fd)
        if table.phases[fd] == LINGER and fd not in self.unsent:
            engine.output_gone(fd)

    def next_pong(self, fd: int, written: int) -> None:
        pong = self.pongs[fd]
        pong.left -= written
        if pong.left > 0:
            return
        del self.pongs[fd]
        if pong.waiting is not None and self.table.phases[fd] == OPEN:
            self.pong(fd, pong.waiting)

    def forget(self, fd: int) -> None:
        """Throws away what waits."""
        self.unsent.pop(fd, None)
        self.pongs.pop(fd, None)
        self.dirty.discard(fd)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait, of all connections."""
        queued = self.table.queued
        return sum(queued[fd] for fd in self.unsent)


def drop(pieces: list[Piece], written: int) -> None:
    """Takes the first `written` bytes off, without copying the rest."""
    whole = 0
    while written:
        piece = pieces[whole]
        if len(piece) > written:
            pieces[whole] = memoryview(piece)[written:]
            break
        written -= len(piece)
        whole += 1
    del pieces[:whole]
