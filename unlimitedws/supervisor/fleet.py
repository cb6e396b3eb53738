"""All workers of a server: started, watched, restarted and stopped.

What happens to a worker is told by its process (child.py) and its template (generation.py); this file decides
what follows, and reload.py when the code changes. Nothing here is cancelled: every wait also ends when `stopping`
is set, so that no process is forked without being watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from unlimitedws.config import Config
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.listener import Listener
from unlimitedws.pressure import Pressure
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.ending import START_FAILURES, Backoff, ProcessGone
from unlimitedws.supervisor.generation import Generation
from unlimitedws.supervisor.given import Given
from unlimitedws.supervisor.listeners import Listeners
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.process import ORPHAN_END_S
from unlimitedws.supervisor.reload import Outcome, Reloader
from unlimitedws.supervisor.scaling import MOST_WORKERS, Scaler
from unlimitedws.supervisor.slot import Slot
from unlimitedws.supervisor.stats_table import StatsTable
from unlimitedws.supervisor.steering import Steering
from unlimitedws.supervisor.tasks import Tasks
from unlimitedws.wire.closing import GOING_AWAY, SERVICE_RESTART

log = logging.getLogger("unlimitedws.supervisor")

STOP_GRACE_S = 5.0
"""After its deadline a worker gets so long to cancel what is pending, run on_stop and end, before it is killed."""
CUT_GRACE_S = 3.0
"""The same after a second signal."""

MOST_NAMES = 3
"""Workers that are named where many are meant."""

SLOW_START_S = 10.0
GIVEN_UP = "; the next reload that is asked for gives it up"
QUIT_PAUSE_S = 0.1


class Fleet:
    """The slots, their workers and the generation they are forked from.

    slots: in the order of their numbers, from 0 on.  former: those that were removed, which come after these: what they
    counted stays.  workers: how many share the limits of the server.  leaving: the server is stopping, or about to.
    notifier: what systemd is told of reloads.  kept: descriptors of the embedding program.  failed(error): a defect of
    ours; the server has to end.  table: that of the supervisor before an upgrade.  importing: held while a template starts.
    spawning: workers that a template was asked for, and that are not known yet.  upgrades: how often the supervisor was
    replaced.  closed: connections that no successor could take over."""

    def __init__(
        self, given: Given, config: Config, listeners: Listeners, *,
        kept: frozenset[int], failed: Callable[[BaseException], None], notifier: Notifier | None = None, table: StatsTable | None = None,
    ) -> None:  # fmt: skip
        self.given, self.config, self.listeners, self.kept = given, config, listeners, kept
        self.notifier = notifier or Notifier()
        self.loop = asyncio.get_running_loop()
        self.workers = len(listeners.of_slots)
        self.table = table or StatsTable.create(max(self.workers, MOST_WORKERS))
        self.slots = [Slot(number, mine, config) for number, mine in enumerate(listeners.of_slots)]
        self.former: list[Slot] = []
        self.steering = Steering(listeners.groups)
        self.pressure = Pressure(config)
        self.children: dict[int, Child] = {}  # by serial
        self.generations: set[Generation] = set()
        self.generation: Generation | None = None
        self.template_backoff = Backoff(config.restart_backoff_s)
        self.has_generation = asyncio.Event()
        self.importing = asyncio.Lock()
        self.serial = self.spawning = self.upgrades = self.closed = 0
        self.was_ready = False
        self.leaving = False
        self.stopping = asyncio.Event()
        self.tasks = Tasks(failed)
        self.reloader = Reloader(self)
        self.scaler = Scaler(self)

    # ---- start

    async def start(self) -> None:
        """Imports the app and starts a worker in each slot; returns when all of them serve, or at a stop.

        Raises the app's error where it cannot be imported or on_start fails. A worker that dies otherwise
        is restarted here already."""
        try:
            self.use(await self.new_generation())
            await asyncio.gather(*(self.fill(slot) for slot in self.slots))
        except (ProcessGone, OSError) as error:
            if not self.stopping.is_set():
                raise UnlimitedwsError(f"the server cannot start: {error}") from error
        self.was_ready = True
        if not self.stopping.is_set():
            self.tasks.start(self.reloader.run())

    def resume(self, workers: int) -> None:
        """Goes on after an upgrade: slots without a worker get one, and all of them a fresh one, as in a reload; then there are
        so many."""
        self.was_ready = True
        for slot in self.slots:
            if slot.current is None:
                self.tasks.start(self.fill(slot))
        self.tasks.start(self.reloader.run())
        self.reloader.begin()
        if workers != len(self.slots):
            self.scaler.ask(workers)

    @property
    def starting(self) -> str:
        """Who is in on_start, for somebody who waits; "": nobody."""
        names = [f"worker {child.pid} of slot {child.order.slot}" for child in self.children.values() if child.state == "starting"]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return f"in on_start: {', '.join(names[:MOST_NAMES])}{more}" if names else ""

    async def new_generation(self) -> Generation:
        """A template that is ready to fork workers. Raises AppError, EngineUnavailable or ProcessGone."""
        generation = await self.start_template(imports=True)
        if generation.threads == 1:
            return generation
        if not isinstance(self.given, str):
            log.warning("%d threads run in the process that the workers are forked from; start them in on_start", generation.threads)
            return generation
        log.warning(
            "importing %s starts %d threads, and a fork would lose them: each worker imports the app by itself, "
            "which costs memory; start threads in on_start instead", self.given, generation.threads - 1,
        )  # fmt: skip
        generation.retire()
        own_import = await self.start_template(imports=False)
        own_import.files = generation.files
        return own_import

    async def start_template(self, *, imports: bool) -> Generation:
        generation = Generation(self.given, self.config, kept=self.kept, imports=imports, on_exit=self.exited, on_lost=self.lost)
        generation.hint = GIVEN_UP if self.was_ready else ""
        if self.stopping.is_set():
            raise ProcessGone("the server is stopping")
        async with self.importing:
            self.generations.add(generation)
            try:
                await generation.start()
            except OSError:  # not even forked
                self.generations.discard(generation)
                raise
        return generation

    def use(self, generation: Generation) -> None:
        """Workers are forked from this one from now on."""
        before, self.generation = self.generation, generation
        self.has_generation.set()
        if before is not None:
            before.retire()
        if generation.ended.done():  # before it was in use, when nobody missed it
            self.lost(generation)

    async def fill(self, slot: Slot) -> None:
        """Gives the slot a worker that serves; tries until it does. Before the first start was complete,
        the app's own error is raised instead."""
        while slot.current is None and not slot.is_leaving and not self.stopping.is_set():
            await self.either(self.has_generation.wait())
            generation = self.generation
            if generation is None or slot.is_leaving or self.stopping.is_set():
                continue
            try:
                child = await self.hatch(slot, generation)
            except START_FAILURES as error:
                if isinstance(error, UnlimitedwsError) and not self.was_ready:
                    raise
                if slot.current is None and generation is self.generation:  # else a reload let it go, and no worker failed
                    await self.pause_after(slot, error)
            else:
                if slot.is_leaving:
                    child.stop(SERVICE_RESTART, "server is restarting")
                elif slot.current is not None and generation is not self.generation:
                    self.install_behind(slot, child)
                else:
                    self.install(slot, child)

    async def pause_after(self, slot: Slot, error: Exception) -> None:
        if not self.stopping.is_set():
            pause_s = slot.backoff.after_failure()
            log.error("slot %d: no worker could start: %s; next try in %.1f s", slot.number, error, pause_s)
            slot.restarts += 1
            await self.pause(pause_s)

    async def hatch(self, slot: Slot, generation: Generation) -> Child:
        """A new worker for the slot, ready to serve. Raises the app's error, ProcessGone or OSError."""
        row = self.table.claim()
        if row is None:
            raise ProcessGone("too many workers are still draining")
        self.serial += 1
        ours, theirs = Channel.pair()
        given = list(slot.listeners)
        spoken = tuple((listener.proxied, listener.tls) for listener in given)
        order = Order(self.serial, slot.number, row, spoken, self.workers)
        child = Child(order, ours, lambda child: self.draining(slot, child))
        self.spawning += 1
        try:
            listeners = [listener.sock.fileno() for listener in given]
            pid, pidfd = await generation.spawn(order, [*listeners, theirs.fileno(), self.table.fd])
        except (ProcessGone, OSError):
            child.close()
            # It may live without our knowing its pid. It ends by itself, now that its channel is closed.
            self.loop.call_later(ORPHAN_END_S + 1, self.table.fold, row, slot.number)
            raise
        finally:
            theirs.close()
            self.spawning -= 1
        child.watch(pid, pidfd)
        self.follow(slot, child)
        self.catch_up(child, slot, given)
        self.advise()
        if self.stopping.is_set():
            child.stop(GOING_AWAY, "server is stopping")
        slow = self.loop.call_later(
            SLOW_START_S, log.warning, "worker %d of slot %d is still in on_start%s", pid, slot.number, GIVEN_UP if self.was_ready else ""
        )
        try:
            await child.ready
        finally:
            slow.cancel()
        if child.is_dead or child.state != "ready":
            raise ProcessGone(f"worker {pid} of slot {slot.number} ended as soon as it was ready")
        if self.leaving:
            child.leave()
        return child

    def follow(self, slot: Slot, child: Child) -> None:
        """A worker of the slot is there, and is told of when it ends."""
        self.children[child.order.serial] = child
        child.ended.add_done_callback(lambda _: self.buried(slot, child))

    def catch_up(self, child: Child, slot: Slot, given: Sequence[Listener]) -> None:
        """Tells a worker what has changed while it was forked."""
        for listener in slot.listeners:
            if listener not in given:
                child.listen(listener)
        for listener in given:
            if listener not in slot.listeners:
                child.unlisten(listener)
        if child.order.workers != self.workers:
            child.share(self.workers)

    def install(self, slot: Slot, child: Child) -> None:
        """The child serves the slot from now on, and takes over what those before it have."""
        before = slot.install(child)
        self.steer()
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
        if child.left and not self.stopping.is_set():
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
        if allowed_s is None:
            self.loop.call_later(self.config.handover_timeout_s + STOP_GRACE_S, self.overdue, child)
        else:
            self.loop.call_later(allowed_s, child.stop, SERVICE_RESTART, "server is restarting")
            self.loop.call_later(allowed_s + self.config.stop_timeout_s + STOP_GRACE_S, child.kill, "it did not stop in time")

    def overdue(self, child: Child) -> None:
        """Its time for a handover is over, unless its successor died and it waits for the next one."""
        if child.is_forsaken and not self.stopping.is_set():
            log.warning("worker %d of slot %d keeps its connections until a successor is there", child.pid, child.order.slot)
            self.see_off(child)
        else:
            self.see_off(child, 0.0)

    async def handed_over(self, slot: Slot) -> None:
        """Returns when nobody's connections are on their way to the worker of this slot."""
        for child in tuple(slot.retired):
            if child.handed_over is not None:
                await self.either(asyncio.shield(child.handed_over))

    # ---- slots that come and go

    @property
    def ever(self) -> list[Slot]:
        """All slots that there ever were, by number."""
        return [*self.slots, *self.former]

    @property
    def restarts(self) -> int:
        """How often a dead worker was replaced."""
        return sum(slot.restarts for slot in self.ever)

    def new_slot(self) -> Slot:
        """The next one, without a listener of its own; it goes on counting where its number was counted before."""
        number = len(self.listeners.of_slots)
        slot = Slot(number, self.listeners.new_slot(), self.config)
        slot.restarts = sum(former.restarts for former in self.former if former.number == number)
        return slot

    def share(self, workers: int) -> None:
        """So many workers share the limits of the server from now on."""
        self.workers = workers
        for child in self.children.values():
            child.share(workers)

    def children_of(self, slot: Slot) -> list[Child]:
        return [child for child in self.children.values() if child.order.slot == slot.number]

    # ---- what happens to workers

    def exited(self, serial: int, status: int) -> None:
        if (child := self.children.get(serial)) is not None:
            child.exited(status)

    def reaped(self, pid: int, status: int) -> None:
        """A child of the supervisor itself is dead: a template, a worker whose template is gone, or a stranger."""
        for generation in [each for each in self.generations if each.pid == pid]:
            self.generations.discard(generation)
            generation.died(status)
        for child in [each for each in self.children.values() if each.pid == pid]:
            child.exited(status)

    def buried(self, slot: Slot, child: Child) -> None:
        """A worker is gone: its counters stay, its slot gets another one."""
        del self.children[child.order.serial]
        self.table.fold(child.order.row, slot.number)
        if not slot.remove(child) or self.stopping.is_set():
            if child.status and child.ready_at is not None and not self.stopping.is_set():
                log.error("%s; it had been replaced, and what it had not handed over is lost", child.describe())
            return
        self.steer()
        if slot.is_leaving:
            log.debug("%s", child.describe())
        elif child.status == 0 and not child.doom:
            self.quit(slot, child)
        else:
            pause_s = slot.backoff.after_life(child.served_s)
            log.error("%s; restarting %s", child.describe(), f"in {pause_s:.1f} s" if pause_s else "now")
            self.restart(slot, pause_s)

    def draining(self, slot: Slot, child: Child) -> None:
        """It accepts no more: because the server stops, because it or its slot was replaced, or because somebody sent it SIGTERM."""
        if self.stopping.is_set():
            self.end_listening()
        elif slot.retire(child):
            self.steer()
            if not slot.is_leaving:
                self.quit(slot, child)

    def end_listening(self) -> None:
        """Once no worker accepts any more."""
        if all(each.state == "draining" for each in self.children.values()):
            self.listeners.stop_accepting()

    @property
    def is_served(self) -> bool:
        """Whether at least one worker accepts."""
        return any(slot.is_served for slot in self.slots)

    def steer(self) -> None:
        """Called whenever a slot has got its worker, or lost it: new connections go where somebody accepts."""
        self.steering.steer([slot.is_served for slot in self.slots])

    def quit(self, slot: Slot, child: Child) -> None:
        """A worker left politely, unasked: somebody sent it SIGTERM. Maybe to all of us: then ours is about to come."""

        def restart() -> None:
            if self.leaving:
                if not self.is_served:
                    self.begin_stop()
            else:
                log.warning("worker %d of slot %d was told to stop, not by us; starting another", child.pid, slot.number)
                self.restart(slot, 0.0)

        self.loop.call_later(QUIT_PAUSE_S, restart)

    def restart(self, slot: Slot, pause_s: float) -> None:
        if not slot.is_leaving:
            slot.restarts += 1
            self.tasks.start(self.refill(slot, pause_s))

    async def refill(self, slot: Slot, pause_s: float) -> None:
        await self.pause(pause_s)
        await self.fill(slot)

    def lost(self, generation: Generation) -> None:
        """A template died unasked. Its workers go on; the next one needs a new template."""
        if generation is self.generation and not self.stopping.is_set():
            log.error("the template process %d died; its workers go on, a new one is started", generation.pid)
            self.generation = None
            self.has_generation.clear()
            self.tasks.start(self.renew(self.template_backoff.after_life(self.loop.time() - generation.ready_at)))

    async def renew(self, pause_s: float) -> None:
        await self.pause(pause_s)
        while self.generation is None and not self.stopping.is_set():
            try:
                fresh = await self.new_generation()
            except START_FAILURES as error:
                pause_s = self.template_backoff.after_failure()
                log.error("%s; workers that run go on, next try in %.1f s", error, pause_s)
                await self.pause(pause_s)
                continue
            if self.generation is None:
                self.use(fresh)
            else:  # a reload came first, and may be in the middle of its workers
                fresh.retire()
            return

    # ---- advice

    async def go_on_advising(self) -> None:
        """Tells workers about memory and their shares of the limits, for as long as the server lives."""
        while self.pressure.is_needed:
            self.advise()
            await asyncio.sleep(self.pressure.every_s)

    def advise(self) -> None:
        """Before a new worker accepts, and several times a second: see `pressure`."""
        if self.pressure.is_needed:
            children = self.children.values()
            self.pressure.advise(
                [self.table.row(child.order.row) for child in children if child.state != "draining"],
                [self.table.row(child.order.row) for child in children if child.state == "draining"],
            )

    # ---- reload

    def give_up_slow_starts(self) -> None:
        """Whoever asks for a reload has mended what does not start: nothing waits for that any longer."""
        if not self.was_ready:
            return
        for generation in self.generations:
            if generation.is_slow:
                generation.give_up("it was given up for the next reload")
        for child in self.children.values():
            if child.state == "starting" and time.monotonic() - child.started_at > SLOW_START_S:
                child.give_up("it was given up for the next reload")

    def reload(self) -> Outcome:
        """Fresh code for all workers, one slot after the other; code that does not start changes nothing."""
        return self.reloader.ask()

    def source_files(self) -> list[str]:
        """The files that the app in use was imported from."""
        return self.generation.files if self.generation else []

    # ---- stop

    def leave(self) -> None:
        """The server is about to stop: nobody is ready any more, and everybody goes on. `begin_stop` follows."""
        self.leaving = True
        for child in self.children.values():
            child.leave()

    def begin_stop(self) -> None:
        """Tells all workers to stop accepting and drain; their deadline begins."""
        if self.stopping.is_set():
            return
        self.leaving = True
        self.stopping.set()
        for child in self.children.values():
            child.stop(GOING_AWAY, "server is stopping")
        for generation in self.generations:
            if not generation.ready.done():
                generation.kill()
        self.end_listening()
        self.loop.call_later(self.config.stop_timeout_s + STOP_GRACE_S, self.kill, "it did not stop in time")

    def cut(self) -> None:
        """Tells all workers to end without waiting for anybody; kills those that do not."""
        self.begin_stop()
        for child in self.children.values():
            child.cut()
        self.loop.call_later(CUT_GRACE_S, self.kill, "it did not stop at the second signal")

    def kill(self, doom: str) -> None:
        for child in self.children.values():
            log.warning("killing worker %d of slot %d: %s", child.pid, child.order.slot, doom)
            child.kill(doom)
        for generation in self.generations:
            generation.kill()

    async def stop(self) -> None:
        """Stops everything; returns when no process and no coroutine of the fleet is left."""
        self.begin_stop()
        while pending := {*(child.ended for child in self.children.values()), *self.tasks.running}:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for generation in self.generations:
            generation.retire()
        if self.generations:
            await asyncio.wait([generation.ended for generation in self.generations])
        self.table.close()

    # ---- waiting

    async def pause(self, seconds: float) -> None:
        """Waits so long, or until the server stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def either(self, awaitable: Awaitable[object]) -> None:
        """Waits for this, or until the server stops."""
        waits = [asyncio.ensure_future(awaitable), asyncio.ensure_future(self.stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
