"""A bound on what is under way at once: the rest waits in its order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

Start = Callable[[], None]


class Turns:
    """Gives at most `limit` turns at a time, first come, first served.

    start: called when it is somebody's turn, at once or later; it must not raise. It is also how the waiting one is
    known, so give the same object to `leave`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._waiting: OrderedDict[Start, None] = OrderedDict()  # not a deque: whoever leaves is gone at once

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, start: Start) -> None:
        if self.taken < self.limit:
            self.taken += 1
            start()
        else:
            self._waiting[start] = None

    def leave(self, start: Start) -> None:
        """Waits no more. Does nothing where `start` was called already."""
        self._waiting.pop(start, None)

    def give_back(self) -> None:
        """A turn is over: the next one's begins."""
        if self._waiting:
            start, _ = self._waiting.popitem(last=False)
            start()
        else:
            self.taken -= 1
