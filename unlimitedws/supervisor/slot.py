"""A worker slot: its listeners, which are its own whoever accepts from them, and the processes that serve it one after the other."""

from __future__ import annotations

from unlimitedws.config import Config
from unlimitedws.listener import Listener
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.ending import Backoff


class Slot:
    """current: the process that accepts, None while there is none.  retired: those that still drain.

    restarts: how often a dead process was replaced; a reload does not count.
    is_leaving: the slot is being removed: it gets nobody new, and no other worker."""

    def __init__(self, number: int, listeners: list[Listener], config: Config) -> None:
        self.number, self.listeners = number, listeners
        self.is_leaving = False
        self.current: Child | None = None
        self.retired: set[Child] = set()
        self.restarts = 0
        self.backoff = Backoff(config.restart_backoff_s)

    @property
    def is_served(self) -> bool:
        """Whether new connections are to come here."""
        return self.current is not None and not self.is_leaving

    def install(self, child: Child) -> Child | None:
        """Makes `child` the one that accepts; the one it follows, if any, has yet to be stopped."""
        before, self.current = self.current, child
        if before is not None:
            self.retired.add(before)
        return before

    def retire(self, child: Child) -> bool:
        """It accepts no more; whether it was the current one."""
        self.retired.add(child)
        return self.leave(child)

    def remove(self, child: Child) -> bool:
        """It is dead; whether it was the current one."""
        self.retired.discard(child)
        return self.leave(child)

    def leave(self, child: Child) -> bool:
        was_current = self.current is child
        if was_current:
            self.current = None
        return was_current
