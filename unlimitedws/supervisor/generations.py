"""The generations of the app's code: the one that workers are forked from, one that is being imported, and those that end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.ending import GIVEN_UP, GIVES_UP, START_FAILURES, Backoff, ProcessGone
from unlimitedws.supervisor.generation import Generation

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")


class Generations:
    """current: workers are forked from this one; None while there is none.  is_there: set while there is one.  all: those
    whose template lives.  importing: held while a template starts."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.current: Generation | None = None
        self.is_there = asyncio.Event()
        self.all: set[Generation] = set()
        self.importing = asyncio.Lock()
        self.backoff = Backoff(fleet.config.restart_backoff_s)

    async def new(self) -> Generation:
        """A template that is ready to fork workers. Raises AppError, EngineUnavailable or ProcessGone."""
        generation = await self.start(imports=True)
        if generation.threads == 1:
            return generation
        if not isinstance(self.fleet.given, str):
            log.warning("%d threads run in the process that the workers are forked from; start them in on_start", generation.threads)
            return generation
        started = "a thread" if generation.threads == 2 else f"{generation.threads - 1} threads"
        log.warning(
            "importing %s starts %s, and a fork would lose that: each worker imports the app by itself, "
            "which costs memory; start threads in on_start instead", self.fleet.given, started,
        )  # fmt: skip
        generation.retire()
        own_import = await self.start(imports=False)
        own_import.files = generation.files
        return own_import

    async def start(self, *, imports: bool) -> Generation:
        generation = self.made(imports=imports)
        generation.hint = GIVES_UP if self.fleet.was_ready else ""
        if self.fleet.stopping.is_set():
            raise ProcessGone("the server is stopping")
        async with self.importing:
            self.all.add(generation)
            try:
                await generation.start()
            except OSError:  # not even forked
                self.all.discard(generation)
                raise
        return generation

    def made(self, *, imports: bool) -> Generation:
        fleet = self.fleet
        return Generation(fleet.given, fleet.config, kept=fleet.kept, imports=imports, on_exit=fleet.exited, on_lost=self.lost)

    def adopt(self, packed: Message) -> None:
        """Uses the one that the supervisor before an upgrade has started."""
        generation = self.made(imports=True)
        generation.adopt(packed)
        self.all.add(generation)
        self.use(generation)

    def use(self, generation: Generation) -> None:
        """Workers are forked from this one from now on."""
        before, self.current = self.current, generation
        self.is_there.set()
        if before is not None:
            before.retire()
        if generation.ended.done():  # before it was in use, when nobody missed it
            self.lost(generation)

    def lost(self, generation: Generation) -> None:
        """A template died unasked. Its workers go on; the next one needs a new template."""
        if generation is self.current and not self.fleet.stopping.is_set():
            log.error("the template process %d died; its workers go on, a new one is started", generation.pid)
            self.current = None
            self.is_there.clear()
            self.fleet.tasks.start(self.renew(self.backoff.after_life(self.fleet.loop.time() - generation.ready_at)))

    async def renew(self, pause_s: float) -> None:
        await self.fleet.stopping.pause(pause_s)
        while self.current is None and not self.fleet.stopping.is_set():
            try:
                fresh = await self.new()
            except START_FAILURES as error:
                pause_s = self.backoff.after_failure()
                log.error("%s; workers that run go on, next try in %.1f s", error, pause_s)
                await self.fleet.stopping.pause(pause_s)
                continue
            if self.current is None:
                self.use(fresh)
            else:  # a reload came first, and may be in the middle of its workers
                fresh.retire()
            return

    def give_up_slow(self) -> None:
        """Those that do not come to the end of their import."""
        for generation in self.all:
            if generation.is_slow:
                generation.give_up(GIVEN_UP)

    def reaped(self, pid: int, status: int) -> None:
        """A child of the supervisor itself is dead, which may be a template."""
        for generation in [each for each in self.all if each.pid == pid]:
            self.all.discard(generation)
            generation.died(status)

    @property
    def files(self) -> list[str]:
        """Those that the app in use was imported from."""
        return self.current.files if self.current else []
