"""New workers for slots: forked, waited for until they serve, and tried again where they do not."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlimitedws.errors import OutOfResources, UnlimitedwsError
from unlimitedws.listener import Listener
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.ending import GIVEN_UP, GIVES_UP, START_FAILURES, ProcessGone
from unlimitedws.supervisor.generation import Generation
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.process import ORPHAN_END_S
from unlimitedws.supervisor.slot import Slot
from unlimitedws.wire.closing import GOING_AWAY, SERVICE_RESTART

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")

SLOW_START_S = 10.0


class Hatching:
    """serial: of the last worker.  spawning: workers that a template was asked for, and that are not known yet."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.serial = self.spawning = 0

    async def fill(self, slot: Slot) -> None:
        """Gives the slot a worker that serves; tries until it does. Before the first start was complete,
        the app's own error is raised instead."""
        fleet = self.fleet
        while slot.current is None and not slot.is_leaving and not fleet.stopping.is_set():
            await fleet.stopping.either(fleet.generations.is_there.wait())
            generation = fleet.generations.current
            if generation is None or slot.is_leaving or fleet.stopping.is_set():
                continue
            try:
                child = await self.hatch(slot, generation)
            except START_FAILURES as error:
                if isinstance(error, UnlimitedwsError) and not fleet.was_ready:
                    raise
                if slot.current is None and generation is fleet.generations.current:  # else a reload let it go, and no worker failed
                    await self.pause_after(slot, error)
            else:
                if slot.is_leaving:
                    child.stop(SERVICE_RESTART, "server is restarting")
                elif slot.current is not None and generation is not fleet.generations.current:
                    fleet.succession.install_behind(slot, child)
                else:
                    fleet.succession.install(slot, child)

    async def pause_after(self, slot: Slot, error: Exception) -> None:
        fleet = self.fleet
        if not fleet.stopping.is_set():
            pause_s = slot.backoff.after_failure()
            why = OutOfResources.of(error) or error
            log.error("slot %d: no worker could start: %s; next try in %.1f s", slot.number, why, pause_s)
            slot.restarts += 1
            await fleet.stopping.pause(pause_s)

    async def hatch(self, slot: Slot, generation: Generation) -> Child:
        """A new worker for the slot, ready to serve. Raises the app's error, ProcessGone or OSError."""
        fleet = self.fleet
        row = fleet.table.claim()
        if row is None:
            raise ProcessGone("too many workers are still draining")
        self.serial += 1
        ours, theirs = Channel.pair()
        given = list(slot.listeners)
        spoken = tuple((listener.proxied, listener.tls) for listener in given)
        order = Order(self.serial, slot.number, row, spoken, fleet.workers)
        child = Child(order, ours, lambda child: fleet.draining(slot, child))
        self.spawning += 1
        try:
            listeners = [listener.sock.fileno() for listener in given]
            pid, pidfd = await generation.spawn(order, [*listeners, theirs.fileno(), fleet.table.fd])
        except (ProcessGone, OSError):
            child.close()
            # It may live without our knowing its pid. It ends by itself, now that its channel is closed.
            fleet.loop.call_later(ORPHAN_END_S + 1, fleet.table.fold, row, slot.number)
            raise
        finally:
            theirs.close()
            self.spawning -= 1
        child.watch(pid, pidfd)
        fleet.follow(slot, child)
        self.catch_up(child, slot, given)
        fleet.advise()
        if fleet.stopping.is_set():
            child.stop(GOING_AWAY, "server is stopping")
        slow = fleet.loop.call_later(
            SLOW_START_S, log.warning, "worker %d of slot %d is still in on_start%s", pid, slot.number, GIVES_UP if fleet.was_ready else ""
        )
        try:
            await child.ready
        finally:
            slow.cancel()
        if child.is_dead or child.state != "ready":
            raise ProcessGone(f"worker {pid} of slot {slot.number} ended as soon as it was ready")
        if fleet.leaving:
            child.leave()
        return child

    def give_up_slow(self) -> None:
        """Those that do not come to the end of on_start."""
        for child in self.fleet.children.values():
            if child.state == "starting" and time.monotonic() - child.started_at > SLOW_START_S:
                child.give_up(GIVEN_UP)

    def catch_up(self, child: Child, slot: Slot, given: Sequence[Listener]) -> None:
        """Tells a worker what has changed while it was forked."""
        fleet = self.fleet
        for listener in slot.listeners:
            if listener not in given:
                child.listen(listener)
        for listener in given:
            if listener not in slot.listeners:
                child.unlisten(listener)
        if child.order.workers != fleet.workers:
            child.share(fleet.workers)
