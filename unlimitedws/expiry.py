"""Connections that may stay until a certain time: closed when it has come, unless it was moved.

The time is the wall clock's, as tokens have it, so it is compared anew on each tick instead of trusted to a timer:
a clock that was set or a machine that slept changes nothing.

An engine keeps no object of an idle connection, so this holds them; about 0.3 KiB for each connection that expires, and
nothing for the others. What was closed meanwhile is found by a rotation through all of them and let go.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Any

AT_ONCE = 2000
"""Connections closed in one tick: a crowd whose tokens end together does not stop the loop (~10 ms)."""

ROTATION_TICKS = 240
"""Ticks in which all are looked at once: half a minute."""


class Expiry:
    """The connections of one worker that expire. expire: closes one."""

    def __init__(self, expire: Callable[[Any], None]) -> None:
        self._expire = expire
        self._second: dict[Any, int | None] = {}  # of each connection in the rotation; None: not any more
        self._due: dict[int, dict[Any, None]] = {}  # second to its connections, in order
        self._order: list[int] = []  # heap of the seconds in _due
        self._rotation: deque[Any] = deque()
        self._left = 0  # of this rotation
        self._step = 0

    def __len__(self) -> int:
        return len(self._second)

    def set(self, connection: Any, at: float | None) -> None:
        """Closes `connection` at unix time `at`, rounded up to the second; None: never. The last call counts."""
        if connection in self._second:
            self._take_off(connection)
        elif at is not None:
            self._rotation.append(connection)
        else:
            return
        self._second[connection] = None if at is None else ceil(at)
        if at is not None:
            self._put_on(ceil(at), connection)

    def of(self, connection: Any) -> int | None:
        """When it expires, as unix time; None: never."""
        return self._second.get(connection)

    def tick(self, now: float) -> None:
        """Closes what is due. now: unix time."""
        if self._rotation:
            self._rotate()
            self._expire_due(now)

    def clear(self) -> None:
        for everything in (self._second, self._due, self._order, self._rotation):
            everything.clear()
        self._left = 0

    def _put_on(self, second: int, connection: Any) -> None:
        if second not in self._due:
            self._due[second] = {}
            heapq.heappush(self._order, second)
        self._due[second][connection] = None

    def _take_off(self, connection: Any) -> None:
        second = self._second[connection]
        if second is not None:
            self._second[connection] = None
            self._due[second].pop(connection)  # the second itself stays until it comes: one for many

    def _rotate(self) -> None:
        """Looks at the next few, and lets go of those that were closed or never expire now."""
        if self._left <= 0:
            self._left = len(self._rotation)
            self._step = ceil(self._left / ROTATION_TICKS)
        for _ in range(min(self._step, self._left)):
            connection = self._rotation.popleft()
            if connection.is_open and self._second[connection] is not None:
                self._rotation.append(connection)
            else:
                self._take_off(connection)
                del self._second[connection]
        self._left -= self._step

    def _expire_due(self, now: float) -> None:
        left = AT_ONCE
        while left and self._order and self._order[0] <= now:
            connections = self._due[self._order[0]]
            if not connections:
                del self._due[heapq.heappop(self._order)]
                continue
            connection = next(iter(connections))
            self._take_off(connection)
            self._expire(connection)
            left -= 1
