"""All workers of a server: started, watched, restarted and stopped.

What happens to a worker is told by its process (child.py) and its template (generation.py); this file decides what follows.
Where workers come from is in hatching.py and generations.py, how one follows another in succession.py, and what an operator
asks for in reload.py and scaling.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from unlimitedws.config import Config
from unlimitedws.errors import OutOfResources, UnlimitedwsError
from unlimitedws.pressure import Pressure
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.ending import ProcessGone
from unlimitedws.supervisor.generations import Generations
from unlimitedws.supervisor.given import Given
from unlimitedws.supervisor.hatching import Hatching
from unlimitedws.supervisor.listeners import Listeners
from unlimitedws.supervisor.notify import Notifier
from unlimitedws.supervisor.reload import Outcome, Reloader
from unlimitedws.supervisor.scaling import MOST_WORKERS, Scaler
from unlimitedws.supervisor.slot import Slot
from unlimitedws.supervisor.stats_table import StatsTable
from unlimitedws.supervisor.steering import Steering
from unlimitedws.supervisor.stopping import Stopping
from unlimitedws.supervisor.succession import STOP_GRACE_S, Succession
from unlimitedws.supervisor.tasks import Tasks
from unlimitedws.wire.closing import GOING_AWAY

log = logging.getLogger("unlimitedws.supervisor")

CUT_GRACE_S = 3.0
"""As STOP_GRACE_S, after a second signal."""

MOST_NAMES = 3
"""Workers that are named where many are meant."""

QUIT_PAUSE_S = 0.1


class Fleet:
    """The slots and their workers.

    slots: in the order of their numbers, from 0 on.  former: those that were removed, which come after these: what they
    counted stays.  workers: how many share the limits of the server.  leaving: the server is stopping, or about to.
    notifier: what systemd is told of reloads.  kept: descriptors of the embedding program.  failed(error): a defect of
    ours; the server has to end.  table: that of the supervisor before an upgrade.  upgrades: how often the supervisor was
    replaced."""

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
        self.upgrades = 0
        self.was_ready = False
        self.leaving = False
        self.stopping = Stopping()
        self.tasks = Tasks(failed)
        self.generations = Generations(self)
        self.hatching = Hatching(self)
        self.succession = Succession(self)
        self.reloader = Reloader(self)
        self.scaler = Scaler(self)

    # ---- start

    async def start(self) -> None:
        """Imports the app and starts a worker in each slot; returns when all of them serve, or at a stop.

        Raises the app's error where it cannot be imported or on_start fails. A worker that dies otherwise
        is restarted here already."""
        try:
            self.generations.use(await self.generations.new())
            await asyncio.gather(*(self.hatching.fill(slot) for slot in self.slots))
        except (ProcessGone, OSError) as error:
            if not self.stopping.is_set():
                raise UnlimitedwsError(f"the server cannot start: {OutOfResources.of(error) or error}") from error
        self.was_ready = True
        if not self.stopping.is_set():
            self.tasks.start(self.reloader.run())

    def resume(self, workers: int) -> None:
        """Goes on after an upgrade: slots without a worker get one, and all of them a fresh one, as in a reload; then there are
        so many."""
        self.was_ready = True
        for slot in self.slots:
            if slot.current is None:
                self.tasks.start(self.hatching.fill(slot))
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

    def follow(self, slot: Slot, child: Child) -> None:
        """A worker of the slot is there, and is told of when it ends."""
        self.children[child.order.serial] = child
        child.ended.add_done_callback(lambda _: self.buried(slot, child))

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
        self.generations.reaped(pid, status)
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
        await self.stopping.pause(pause_s)
        await self.hatching.fill(slot)

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
        if self.was_ready:
            self.generations.give_up_slow()
            self.hatching.give_up_slow()

    def reload(self) -> Outcome:
        """Fresh code for all workers, one slot after the other; code that does not start changes nothing."""
        return self.reloader.ask()

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
        for generation in self.generations.all:
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
        for generation in self.generations.all:
            generation.kill()

    async def stop(self) -> None:
        """Stops everything; returns when no process and no coroutine of the fleet is left."""
        self.begin_stop()
        while pending := {*(child.ended for child in self.children.values()), *self.tasks.running}:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for generation in self.generations.all:
            generation.retire()
        if self.generations.all:
            await asyncio.wait([generation.ended for generation in self.generations.all])
        self.table.close()
