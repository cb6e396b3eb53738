"""Workers that follow each other in a slot: the new one takes over what those before it have, and they go."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.slot import Slot
from unlimitedws.wire.closing import SERVICE_RESTART

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")

STOP_GRACE_S = 5.0
"""After its deadline a worker gets so long to cancel what is pending, run on_stop and end, before it is killed."""


class Succession:
    """closed: connections that no successor could take over."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.closed = 0

    def install(self, slot: Slot, child: Child) -> None:
        """The child serves the slot from now on, and takes over what those before it have."""
        before = slot.install(child)
        self.fleet.steer()
        log.debug("worker %d serves slot %d", child.pid, slot.number)
        if before is not None:
            self.see_off(before)
        for retired in slot.retired:
            # One that has tried before, too: its successor died, and it still has what that did not take over.
            if retired is before or retired.is_forsaken:
                self.hand_over(retired, child)

    def hand_over(self, before: Child, child: Child) -> None:
        """Has one worker give all its connections to another one, and tells what becomes of the rest."""
        before.hand_over_to(child)
        if before.handed_over is not None:
            before.handed_over.add_done_callback(lambda _: self.left_behind(before))

    def left_behind(self, child: Child) -> None:
        if child.left and not self.fleet.stopping.is_set():
            self.closed += child.left
            log.info("worker %d of slot %d closes with 1012 what cannot move: %d connections", child.pid, child.order.slot, child.left)

    def install_behind(self, slot: Slot, child: Child) -> None:
        """A reload was faster than this worker of the code before: it gives what it has accepted to the one that serves."""
        assert slot.current is not None
        slot.retired.add(child)
        self.see_off(child)
        self.hand_over(child, slot.current)

    def see_off(self, child: Child, allowed_s: float | None = None) -> None:
        """It is on its way out: after so long (None: time for a handover) it is told to stop whatever it does, and killed where
        it does not."""
        loop, config = self.fleet.loop, self.fleet.config
        if allowed_s is None:
            loop.call_later(config.handover_timeout_s + STOP_GRACE_S, self.overdue, child)
        else:
            loop.call_later(allowed_s, child.stop, SERVICE_RESTART, "server is restarting")
            loop.call_later(allowed_s + config.stop_timeout_s + STOP_GRACE_S, child.kill, "it did not stop in time")

    def overdue(self, child: Child) -> None:
        """Its time for a handover is over, unless its successor died and it waits for the next one."""
        if child.is_forsaken and not self.fleet.stopping.is_set():
            log.warning("worker %d of slot %d keeps its connections until a successor is there", child.pid, child.order.slot)
            self.see_off(child)
        else:
            self.see_off(child, 0.0)

    async def handed_over(self, slot: Slot) -> None:
        """Returns when nobody's connections are on their way to the worker of this slot."""
        for child in tuple(slot.retired):
            if child.handed_over is not None:
                await self.fleet.stopping.either(asyncio.shield(child.handed_over))
