"""What waits to be written: frames of this turn, and what the kernel did not take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from unlimitedws.engine.portable.sockets import unacknowledged
from unlimitedws.engine.portable.table import BLOCKED, BROKEN, DEFLATE, LINGER, OPEN, OVER, STREAM
from unlimitedws.wire.closing import TRY_AGAIN_LATER, Cause, Close, pack_close
from unlimitedws.wire.deflate import Terms
from unlimitedws.wire.frames import PONG, pack_frame

if TYPE_CHECKING:
    from unlimitedws.engine.portable.handling import Handling
    from unlimitedws.engine.tls import Tls

JOIN_BYTES = 64 * 1024
"""Up to here, joining the pieces and one write() costs less than handing their list to writev()."""

PIECES_AT_ONCE = 256  # of 1024 (IOV_MAX)

SEALED_BYTES = 64 * 1024
"""Plaintext that TLS encrypts ahead of what the kernel takes."""

UNKNOWN = -1

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
        self.moved: dict[int, tuple[float, int]] = {}  #: of the blocked: see `still_s`
        self.packed: dict[int, bytes] | None = None  #: during a broadcast: its frame, compressed, by window bits
        self.high_water: int = config.high_water_bytes
        self.low_water: int = config.low_water_bytes
        self.queue_limit: int = config.queue_bytes
        self.drops: bool = config.queue_policy == "drop"
        self.bytes_out = 0
        self.messages_out = 0
        self.dropped = 0

    def send(self, fd: int, frame: bytes) -> bool:
        """Queues a message for an open connection, by its policy; True: queued, and under high water."""
        if self.table.flags[fd] & DEFLATE:
            terms = self.engine.terms(fd)
            if terms.server_takeover:
                return self.send_in_context(fd, frame)
            frame = self.deflated(terms, frame)
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

    def deflated(self, terms: Terms, frame: bytes) -> bytes:
        """A message's frame as the terms have it; one of a broadcast is compressed once for all who agreed on the same window."""
        if self.packed is None:
            return self.engine.deflating.packed(terms, frame)
        packed = self.packed.get(terms.server_bits)
        if packed is None:
            packed = self.packed[terms.server_bits] = self.engine.deflating.packed(terms, frame)
        return packed

    def send_in_context(self, fd: int, frame: bytes) -> bool:
        """`send` with context takeover: what was compressed must be sent, so that the limit is judged before."""
        if self.table.queued[fd] + len(frame) > self.high_water and not self.makes_room(fd, len(frame)):
            return False
        self.messages_out += 1
        self.put(fd, self.engine.deflating.packed_in(self.engine.deflating.contexts[fd], frame))
        if self.table.queued[fd] > self.high_water:
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
            if queued > self.high_water and table.phases[fd] in (OPEN, STREAM):
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
        engine = self.engine
        tls = engine.tls.get(fd) if engine.tls else None
        try:
            written = self.write(fd, pieces) if tls is None else self.write_sealed(fd, pieces, tls)
        except OSError:
            self.broken(fd)
            return
        self.bytes_out += written
        if tls is None and engine.meters and fd in engine.meters:
            engine.meters[fd].bytes_out += written
        queued = self.table.queued[fd]
        if written == queued:
            del self.unsent[fd]
            self.table.queued[fd] = 0
            if self.table.flags[fd] & (BLOCKED | OVER) or self.table.phases[fd] == LINGER:
                self.progress(fd, written)
            return
        if tls is None:
            drop(pieces, written)
        self.table.queued[fd] = queued - written
        self.blocked(fd)
        if written:
            self.progress(fd, written)

    def write(self, fd: int, pieces: list[Piece]) -> int:
        """What the kernel took. Raises OSError when the connection is gone."""
        try:
            if len(pieces) == 1:
                return os.write(fd, pieces[0])
            if self.table.queued[fd] <= JOIN_BYTES:
                return os.write(fd, b"".join(pieces))
            return os.writev(fd, pieces[:PIECES_AT_ONCE])
        except BlockingIOError:
            return 0

    def write_sealed(self, fd: int, pieces: list[Piece], tls: Tls) -> int:
        """The same through TLS: takes the pieces as it encrypts them; what it took of them for the kernel is still queued."""
        total = 0
        while tls.sealed or pieces:
            if not tls.sealed:
                self.seal(fd, pieces, tls)
            try:
                written = os.write(fd, tls.sealed)
            except BlockingIOError:
                break
            total += written
            tls.sealed = memoryview(tls.sealed)[written:] if written < len(tls.sealed) else b""
            if tls.sealed:
                break
        return total

    def seal(self, fd: int, pieces: list[Piece], tls: Tls) -> None:
        """Encrypts the next of what waits."""
        plain: Piece = pieces[0]
        if len(plain) < SEALED_BYTES and len(pieces) > 1:
            plain = b"".join(pieces[:PIECES_AT_ONCE])
        plain = memoryview(plain)[:SEALED_BYTES]
        drop(pieces, len(plain))
        tls.sealed = tls.seal(plain)
        self.table.queued[fd] += len(tls.sealed) - len(plain)
        if fd in self.engine.meters:
            self.engine.meters[fd].bytes_out += len(plain)

    def say(self, fd: int, said: bytes) -> None:
        """Sends what TLS has to say by itself; of plaintext that waits, nothing is encrypted yet."""
        if said and not self.table.flags[fd] & BROKEN:
            tls = self.engine.tls[fd]
            tls.sealed = bytes(tls.sealed) + said
            self.unsent.setdefault(fd, [])
            self.table.queued[fd] += len(said)
            if fd != self.engine.current:
                self.dirty.add(fd)
                self.engine.wake()
        if self.table.phases[fd] == LINGER:
            self.engine.finish(fd)

    def say_last(self, fd: int) -> None:
        """TLS has failed: what waits cannot be encrypted any more, and only its alert is sent."""
        tls = self.engine.tls[fd]
        tls.has_parted = True
        alert = bytes(tls.sealed) + tls.take()
        self.forget(fd)
        tls.sealed = b""
        self.table.queued[fd] = 0
        if alert:
            tls.sealed = alert
            self.unsent[fd] = []
            self.table.queued[fd] = len(alert)

    def broken(self, fd: int) -> None:
        """The connection is gone; epoll will report it, and `Engine.handle` ends it."""
        self.forget(fd)
        self.table.queued[fd] = 0
        self.table.flags[fd] |= BROKEN

    def blocked(self, fd: int) -> None:
        """The kernel takes no more: wait for room, and read no more from a peer that does not read."""
        flags = self.table.flags
        if self.table.queued[fd] > self.high_water and self.table.phases[fd] in (OPEN, STREAM):
            flags[fd] |= OVER
        if not flags[fd] & BLOCKED:
            flags[fd] |= BLOCKED
            self.moved[fd] = (self.engine.now, UNKNOWN)
            self.engine.watch(fd)

    def progress(self, fd: int, written: int) -> None:
        """Some output left a queue that was blocked: a sign of life, a Pong's turn, the way down through low water."""
        table, engine = self.table, self.engine
        table.seen[fd] = engine.now
        if fd in self.moved:
            self.moved[fd] = (engine.now, UNKNOWN)
        if fd in self.pongs:
            self.next_pong(fd, written)
        if table.flags[fd] & OVER and table.queued[fd] <= self.low_water:
            table.flags[fd] &= ~OVER
            engine.drained(fd)
        if table.flags[fd] & BLOCKED and fd not in self.unsent:
            table.flags[fd] &= ~BLOCKED
            self.moved.pop(fd, None)
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

    def still_s(self, fd: int, now: float) -> float:
        """Seconds for which the peer has taken nothing of what waits for it; 0.0 where nothing does.

        What leaves our queue is no measure: of a full send buffer of some megabytes the kernel tells only when a third is
        free, for which a slow but honest reader takes minutes. So what its peer has not acknowledged is looked at, too."""
        if fd not in self.moved:
            return 0.0
        since, left = self.moved[fd]
        unsent = unacknowledged(fd)
        if unsent < left:
            since = now
        self.moved[fd] = (since, unsent)
        return now - since

    def forget(self, fd: int) -> None:
        """Throws away what waits."""
        self.moved.pop(fd, None)
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
