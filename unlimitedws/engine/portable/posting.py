"""Calls of Connection's methods from other threads: done by the loop, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from unlimitedws.engine.portable.table import OPEN
from unlimitedws.engine.said import Said

if TYPE_CHECKING:
    from unlimitedws.engine.portable.connection import Connection
    from unlimitedws.engine.portable.core import Core


class Posting:
    """The queue between other threads and the engine's."""

    def __init__(self, engine: Core) -> None:
        self.engine = engine
        self.calls: deque[Callable[[], object]] = deque()
        self.lock = Lock()
        self.asked = False  #: whether the loop knows of the calls that wait

    def call(self, function: Callable[[], object]) -> None:
        """Runs `function` on the loop; nothing happens when the loop has ended."""
        with self.lock:
            self.calls.append(function)
            asked, self.asked = self.asked, True
        if not asked:
            with suppress(RuntimeError):  # the loop is closed, and all connections with it
                self.engine.call_soon_threadsafe(self.take)

    def take(self) -> None:
        with self.lock:
            calls, self.calls, self.asked = self.calls, deque(), False
        for call in calls:
            call()

    def send(self, connection: Connection, frame: bytes, said: Said) -> bool:
        """`send` from another thread: the answer is what is known now, bytes on their way included.

        said: what is kept of it for a connection that departs."""
        if not connection.is_open:
            return False
        with self.lock:
            connection.more.posted += len(frame)
        self.call(lambda: self.arrive(connection, frame, said))
        return connection.queued_bytes <= self.engine.output.high_water

    def arrive(self, connection: Connection, frame: bytes, said: Said) -> None:
        with self.lock:
            connection.more.posted -= len(frame)
        if connection.fd < 0 or self.engine.say_later(connection.fd, said):
            return
        if self.engine.table.phases[connection.fd] == OPEN:
            self.engine.output.send(connection.fd, frame)
