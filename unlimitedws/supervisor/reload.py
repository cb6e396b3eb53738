"""Fresh code for workers that run: a new generation takes the slots over, one after the other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from unlimitedws.supervisor.ending import START_FAILURES
from unlimitedws.supervisor.generation import Generation
from unlimitedws.supervisor.slot import Slot

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")

Outcome = asyncio.Future[str]

ITS_OWN_PROGRAM = "the program itself imported the app; to get fresh code, upgrade (SIGUSR2), which starts the program again"
STOPPING = "the server is stopping"


def known(outcome: str) -> Outcome:
    """An outcome that needs no waiting."""
    future = Outcome()
    future.set_result(outcome)
    return future


class Reloader:
    """Reloads when asked; asked again meanwhile, once more.

    The code is proven before anything changes: it has to be imported, and on_start to succeed in the first slot.
    From there on there is no way back; a slot whose successor does not start keeps its old worker while the
    next try is due.  count: reloads that came to their end.  turn: held while slots are replaced, added or removed."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.asked = asyncio.Event()
        self.outcome = Outcome()  # of the reload that is asked for next
        self.turn = asyncio.Lock()
        self.count = 0

    def ask(self) -> Outcome:
        """Has the code reloaded; the outcome is "" when the fresh code serves in every slot, or else why it does not."""
        if not isinstance(self.fleet.given, str):
            self.fleet.notifier.reloading()
            self.fleet.notifier.ready()
            log.warning("no reload: %s", ITS_OWN_PROGRAM)
            return known(ITS_OWN_PROGRAM)
        return self.begin()

    def begin(self) -> Outcome:
        """The same whatever brought the fresh code: this program itself may be fresh."""
        if self.fleet.stopping.is_set():
            return known(STOPPING)
        self.fleet.give_up_slow_starts()
        self.asked.set()
        return self.outcome

    def progress(self) -> str:
        """What is going on, for who waits for it."""
        fleet = self.fleet
        if not all(generation.ready.done() for generation in fleet.generations.all):
            return "the app is being imported"
        return fleet.starting or "connections are on their way"

    async def run(self) -> None:
        """Until the server stops."""
        fleet = self.fleet
        while not fleet.stopping.is_set():
            await fleet.stopping.either(self.asked.wait())
            if not fleet.stopping.is_set():
                self.asked.clear()
                outcome, self.outcome = self.outcome, Outcome()
                fleet.notifier.reloading()
                async with self.turn:
                    why_not = await self.reload()
                outcome.set_result(STOPPING if fleet.stopping.is_set() else why_not)
                if not fleet.stopping.is_set():
                    fleet.notifier.ready()
        self.outcome.set_result(STOPPING)

    async def reload(self) -> str:
        """Why it came to nothing, or not to its end; "": all is done."""
        fleet = self.fleet
        app = fleet.given if isinstance(fleet.given, str) else "the app"
        log.info("reloading %s", app)
        try:
            fresh = await fleet.generations.new()
        except START_FAILURES as error:
            if not fleet.stopping.is_set():
                log.error("reload failed, the workers go on with the code they have: %s", error)
            return str(error)
        if why_not := await self.replace(fleet.slots[0], fresh):
            fresh.retire()
            return str(why_not)
        fleet.generations.use(fresh)
        for slot in fleet.slots[1:]:
            if not await self.replace_in_the_end(slot):
                return f"slot {slot.number} went on with the code it had until the next reload was asked for"
        self.count += 1
        log.info("reloaded %s", app)
        return ""

    async def renew(self, slot: Slot) -> bool:
        """Whether the slot has a fresh worker of the code in use; the old one drains."""
        async with self.turn:
            generation = self.fleet.generations.current
            if generation is None or slot.current is None or self.fleet.stopping.is_set():
                return False
            return await self.replace(slot, generation, "replacement") is None

    async def replace_in_the_end(self, slot: Slot) -> bool:
        """Tries until the slot has a worker of the generation in use, which is a newer one where the template of the fresh one has
        died; False: a stop or the next reload comes first."""
        fleet, generations = self.fleet, self.fleet.generations
        while True:
            await fleet.stopping.either(generations.is_there.wait())
            if generations.current is not None and await self.replace(slot, generations.current) is None:
                return True
            if fleet.stopping.is_set() or self.asked.is_set():
                return False
            await fleet.stopping.pause(slot.backoff.after_failure())

    async def replace(self, slot: Slot, fresh: Generation, why: str = "reload") -> Exception | None:
        """Gives the slot a worker of the fresh generation, which takes the connections over; at most one drains the rest.

        Why there is none, where it does not start."""
        fleet = self.fleet
        for child in tuple(slot.retired):
            if child.handed_over is not None:
                await fleet.stopping.either(asyncio.shield(child.handed_over))
                if child.is_forsaken:
                    continue  # its successor died: the next one takes over
            child.cut()
            await fleet.stopping.either(asyncio.shield(child.ended))
        try:
            child = await fleet.hatching.hatch(slot, fresh)
        except START_FAILURES as error:
            if not fleet.stopping.is_set():
                log.error("%s: slot %d goes on with the code it has: %s", why, slot.number, error)
            return error
        fleet.succession.install(slot, child)
        return None
