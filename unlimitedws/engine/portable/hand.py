"""The clock hand: one sweep over the table each second does what timers would do for each connection."""

from __future__ import annotations

import time
from random import random
from typing import TYPE_CHECKING

from unlimitedws.engine.contract import LINGER_S, PING_SPREAD, TICKS_PER_S
from unlimitedws.engine.portable.output import UNKNOWN
from unlimitedws.engine.portable.table import ANSWERED, CLOSING, FLOODING, FREE, HANDSHAKE, HELD, LINGER, OPEN, PAUSED, RATED, SHUT, STREAM
from unlimitedws.wire.closing import NORMAL, Cause, Close, pack_close
from unlimitedws.wire.frames import PING, pack_frame

if TYPE_CHECKING:
    from unlimitedws.engine.portable.engine import Engine

LAGGED_S = 1.0
"""A tick later than this means: the loop stood still, not the peers."""

IDLE = Close(NORMAL, "idle", Cause.IDLE, False)


class Hand:
    """Deadlines, heartbeats and idle limits of all connections."""

    def __init__(self, engine: Engine) -> None:
        config = engine.config
        self.engine = engine
        self.table = engine.table
        self.row = 0
        self.pinged: dict[int, float] = {}  #: when a Ping went out that nothing has followed yet
        self.last_tick = time.monotonic()
        self.grace_until = 0.0
        self.handshake_s: float = config.handshake_timeout_s
        self.ping_s: float = config.ping_interval_s
        self.pong_s: float = config.ping_timeout_s
        self.close_s: float = config.close_timeout_s
        self.idle_s: float = config.idle_timeout_s
        self.stuck_s: float = config.stuck_timeout_s

    def first_seen(self, now: float) -> float:
        """Spreads the first Pings of those who came together over one interval."""
        return now - random() * (self.ping_s - self.ping_s / PING_SPREAD)

    def tick(self, now: float) -> None:
        """One of the `TICKS_PER_S` parts of a sweep."""
        if now - self.last_tick > LAGGED_S:
            # A suspended machine, or a handler that blocked: their answers may lie unread. Nobody is judged
            # before everybody had his time again.
            self.grace_until = now + self.pong_s
        self.last_tick = now
        self.let_go_on(now)
        last = min(len(self.table), self.row + len(self.table) // TICKS_PER_S + 1)
        phases = self.table.phases
        for fd in range(self.row, last):
            if phases[fd] != FREE:
                self.judge(fd, now)
        self.row = last
        if last >= len(self.table):
            self.row = 0
            self.engine.give_back()

    def judge(self, fd: int, now: float) -> None:
        """The deadlines of one connection, once a second."""
        phase = self.table.phases[fd]
        since = now - self.table.since[fd]
        if self.engine.controls.pop(fd, 0) and self.table.flags[fd] & FLOODING:
            self.flood_ebbs(fd)
        if phase in (OPEN, STREAM) and self.is_stuck(fd, now):
            self.engine.lose(fd, Cause.SLOW_CONSUMER)
        elif phase == OPEN:
            if self.idle_s and since >= self.idle_s and not self.table.flags[fd] & (HELD | RATED):
                self.engine.close_politely(fd, pack_close(IDLE.code, IDLE.reason), IDLE)
            elif self.ping_s:
                self.heartbeat(fd, now)
        elif phase == HANDSHAKE:
            if self.waited_s(fd, since, now) >= self.handshake_s:
                self.engine.lose(fd, Cause.HANDSHAKE_TIMEOUT)
        elif phase == CLOSING:
            if since >= self.close_s:
                self.engine.lose(fd, Cause.APP_CLOSED)
        elif phase == LINGER and self.has_lingered(fd, since, now):
            self.engine.end(fd)

    def is_stuck(self, fd: int, now: float) -> bool:
        """Whether the peer has taken nothing of what waits for it for too long."""
        if not self.stuck_s or fd not in self.engine.output.moved:
            return False
        if now < self.grace_until:
            self.engine.output.moved[fd] = (now, UNKNOWN)
        return self.engine.output.still_s(fd, now) >= self.stuck_s

    def waited_s(self, fd: int, since: float, now: float) -> float:
        """How long a deadline has run that stands still while the peer is busy reading what waits for it."""
        return min(since, self.engine.output.still_s(fd, now)) if fd in self.engine.output.moved else since

    def has_lingered(self, fd: int, since: float, now: float) -> bool:
        flags = self.table.flags[fd]
        if flags & SHUT:
            return since >= LINGER_S
        return (self.waited_s(fd, since, now) if flags & ANSWERED else since) >= self.close_s

    def let_go_on(self, now: float) -> None:
        """Those who sent more than their rate allows and have waited for it."""
        rates = self.engine.rates
        if rates is None:
            return
        for fd in [fd for fd in rates.waiting if rates.may_go_on(fd, now)]:
            rates.waiting.discard(fd)
            self.table.flags[fd] &= ~RATED
            self.table.since[fd] = now  # it was we who did not read
            if self.table.phases[fd] == OPEN:
                self.engine.make_ready(fd)

    def flood_ebbs(self, fd: int) -> None:
        """One that sent too many Pings and Pongs is read on, for the next second's worth of them."""
        self.table.flags[fd] &= ~FLOODING
        if self.table.phases[fd] == OPEN:
            self.engine.make_ready(fd)

    def heartbeat(self, fd: int, now: float) -> None:
        """A Ping after silence, the end after more of it."""
        pinged = self.pinged.get(fd)
        seen = self.table.seen[fd]
        if pinged is not None and seen <= pinged:
            if self.table.flags[fd] & PAUSED or now < self.grace_until:
                self.pinged[fd] = now  # we do not read: their answer may lie in the kernel
            elif now - pinged >= self.pong_s:
                self.engine.lose(fd, Cause.HEARTBEAT_LOST)
            return
        self.pinged.pop(fd, None)
        if now - seen >= self.ping_s - self.early_s(fd, seen):
            if fd not in self.engine.output.unsent:  # else what waits is the question already
                self.engine.output.put(fd, pack_frame(PING, b""))
            self.pinged[fd] = now

    def early_s(self, fd: int, seen: float) -> float:
        """How much too early it is pinged this time (PING_SPREAD): another time, another chance."""
        chance = ((self.table.ids[fd] ^ int(seen * 1000)) * 2654435761 & 0xFFFFFFFF) / 2**32
        return chance * self.ping_s / PING_SPREAD
