"""More workers, or fewer, while the server runs.

    more     the worker comes first, then the clients: it serves before the kernel gives it its share of new connections
    fewer    of a slot that goes a neighbour accepts from now on whatever is still on its way; its worker gives its connections
             to those that stay, closes with 1012 those that cannot move, and ends; then the listener ends

It is always the slots with the highest numbers that go. What they counted stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from unlimitedws.engine.counters import INDEX
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.listener import Listener
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.descriptors import check_limit
from unlimitedws.supervisor.ending import START_FAILURES, ProcessGone
from unlimitedws.supervisor.listeners import has_waiting, turn_away_from
from unlimitedws.supervisor.rebalance import even_out
from unlimitedws.supervisor.slot import Slot

if TYPE_CHECKING:
    from unlimitedws.supervisor.fleet import Fleet

log = logging.getLogger("unlimitedws.supervisor")

MOST_WORKERS = 1024
"""Slots that the stats table has rows for, unless more are asked for at the start."""

SETTLE_S = 1.0
"""For handshakes of TCP under way, once the kernel begins no new ones here: a round trip of nearly every client."""
EMPTY_S = 5.0
"""Longest wait for a neighbour to accept who waits."""
LOOK_EVERY_S = 0.02

SUCCESSOR_S = 30.0
"""Longest wait for somebody to give connections to, where all workers that stay were killed."""
DEATH_S = 0.1
"""Who gave connections may see that the other one is gone before we are told that its process is."""

OPEN = INDEX["connections_open"]


class ScaleFailed(UnlimitedwsError):
    """The number of workers is not the one that was asked for."""


class Scaled(NamedTuple):
    """What came of it. moved: connections that another worker has now.  closed: those that could not move."""

    before: int
    workers: int
    moved: int = 0
    closed: int = 0

    def __str__(self) -> str:
        return f"from {self.before} to {self.workers} workers; {self.moved:,} connections moved, {self.closed:,} closed with 1012"


class Scaler:
    """One change at a time, in the order in which they were asked for.

    wanted: the number last asked for.  emptying: slots that are on their way out."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.wanted = fleet.workers
        self.emptying: list[Slot] = []

    @property
    def most(self) -> int:
        """The largest number that can be asked for."""
        return self.fleet.table.slots

    def ask(self, workers: int) -> asyncio.Future[Scaled]:
        """Has so many workers serve, 1 to `most`. What comes of it: Scaled, or ScaleFailed."""
        self.wanted = workers
        outcome: asyncio.Future[Scaled] = self.fleet.loop.create_future()
        outcome.add_done_callback(lambda done: done.exception())  # whether or not anybody waits for it
        self.fleet.tasks.start(self.fulfil(workers, outcome))
        return outcome

    async def fulfil(self, workers: int, outcome: asyncio.Future[Scaled]) -> None:
        fleet = self.fleet
        async with fleet.reloader.turn:
            try:
                scaled = await self.scale(workers)
            except ScaleFailed as error:
                self.wanted = len(fleet.slots)
                if not fleet.leaving:
                    log.error("%s", error)
                outcome.set_exception(error)
            else:
                if scaled.workers != scaled.before:
                    log.info("scaled %s", scaled)
                outcome.set_result(scaled)

    async def scale(self, workers: int) -> Scaled:
        """Raises ScaleFailed."""
        before = len(self.fleet.slots)
        self.check_it_serves()
        if workers > before:
            return Scaled(before, workers, await self.grow(workers))
        if workers < before:
            moved, closed = await self.shrink(workers)
            return Scaled(before, workers, moved, closed)
        return Scaled(before, workers)

    def check_it_serves(self) -> None:
        if self.fleet.leaving:
            raise ScaleFailed("the server is stopping")

    def progress(self) -> str:
        """What is going on, for who waits for it."""
        if self.emptying:
            left = sum(self.open(child) for slot in self.emptying for child in self.fleet.children_of(slot))
            return f"{left:,} connections left to move"
        return "; ".join(filter(None, (f"{len(self.fleet.slots)} workers serve", self.fleet.starting)))

    def open(self, child: Child) -> int:
        """Connections that a worker holds."""
        return self.fleet.table.row(child.order.row)[OPEN]

    # ---- more

    async def grow(self, workers: int) -> int:
        """How many connections have moved to the new workers."""
        fleet = self.fleet
        bound = self.bind(workers)
        slots = [fleet.new_slot() for _ in bound]
        fleet.share(workers)  # first: rather too few are let in for a moment than too many
        hatched = await asyncio.gather(*(self.hatch(slot) for slot in slots))
        failed: list[Child | Exception] = []
        for slot, child, socks in zip(slots, hatched, bound, strict=True):
            if failed or not serves(child) or fleet.stopping.is_set():
                failed.append(child)
            elif error := self.add(slot, child, socks):
                failed += [error, child]
        if not failed:
            return await even_out(fleet)
        await self.give_up(failed, bound)
        raise self.failed(
            workers, next((each for each in failed if isinstance(each, Exception)), ProcessGone("a new worker ended at once"))
        )

    def bind(self, workers: int) -> list[list[socket.socket]]:
        """The sockets of each new slot. Raises ScaleFailed."""
        with contextlib.ExitStack() as stack:
            try:
                check_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0], workers, len(self.fleet.listeners.groups))
                bound = []
                for _ in range(len(self.fleet.slots), workers):
                    bound.append(self.fleet.listeners.bind())
                    stack.callback(close, bound[-1])
            except UnlimitedwsError as error:
                raise self.failed(workers, error) from None
            stack.pop_all()
        return bound

    async def hatch(self, slot: Slot) -> Child | Exception:
        """A worker that serves, or why there is none."""
        fleet = self.fleet
        await fleet.stopping.either(fleet.generations.is_there.wait())
        if (generation := fleet.generations.current) is None:
            return ProcessGone("the server is stopping")
        try:
            return await fleet.hatching.hatch(slot, generation)
        except START_FAILURES as error:
            return error

    def add(self, slot: Slot, child: Child, bound: Sequence[socket.socket]) -> OSError | None:
        """Lets clients come to a new slot. Why not, where the kernel refuses."""
        fleet = self.fleet
        try:
            opened = fleet.listeners.open(slot.number, bound)
        except OSError as error:
            return error
        fleet.slots.append(slot)
        fleet.former = [former for former in fleet.former if former.number != slot.number]
        fleet.succession.install(slot, child)
        for listener in opened:
            child.listen(listener)
        return None

    async def give_up(self, failed: Sequence[Child | Exception], bound: Sequence[Sequence[socket.socket]]) -> None:
        """Leaves things as they were before the slots that could not be added; whom their workers have accepted from shared listeners
        moves."""
        fleet = self.fleet
        for socks in bound[len(fleet.slots) - len(fleet.listeners.of_slots) :]:
            close(socks)
        del fleet.listeners.of_slots[len(fleet.slots) :]
        fleet.share(len(fleet.slots))
        for child in failed:
            if isinstance(child, Child):
                await self.retire(child, fleet.slots)

    def failed(self, workers: int, error: Exception) -> ScaleFailed:
        return ScaleFailed(f"no {workers} workers, {len(self.fleet.slots)} go on: {error}")

    # ---- fewer

    async def shrink(self, workers: int) -> tuple[int, int]:
        """How many connections have moved, and how many could not."""
        fleet = self.fleet
        staying, leaving = fleet.slots[:workers], fleet.slots[workers:]
        for slot in leaving:
            slot.is_leaving = True
        passed_on = [(listener, heir) for slot in leaving for listener, heir in self.pass_on(slot, staying)]
        fleet.steer()
        self.emptying = leaving
        try:
            moved, *_ = await asyncio.gather(self.empty(leaving, staying), self.settle([listener for listener, _ in passed_on]))
        finally:
            self.emptying = []
        if fleet.stopping.is_set():
            raise ScaleFailed("the server is stopping")
        for listener, heir in reversed(passed_on):
            self.end(listener, heir)
        del fleet.slots[workers:]
        del fleet.listeners.of_slots[workers:]
        fleet.former = [*leaving, *fleet.former]
        fleet.share(workers)
        return moved

    def pass_on(self, slot: Slot, staying: Sequence[Slot]) -> list[tuple[Listener, Slot]]:
        """Has a neighbour accept from what only this slot accepts from: who is on his way there is served, whatever happens here."""
        heirs = [each for each in staying if each.current is not None] or staying
        heir = heirs[slot.number % len(heirs)]
        own = [listener for listener in slot.listeners if not any(listener in each.listeners for each in staying)]
        for listener in own:
            self.fleet.listeners.pass_on(listener, heir.number)
            for child in self.fleet.children_of(heir):
                child.listen(listener)
        return [(listener, heir) for listener in own]

    async def settle(self, listeners: Sequence[Listener]) -> None:
        """Returns when nobody is on his way any more to those that will end, or nobody will accept him."""
        fleet = self.fleet
        listeners = [listener for listener in listeners if fleet.listeners.group_of(listener) is not None]
        if fleet.steering.refused:
            turn_away_from(listeners)
        deadline = fleet.loop.time() + EMPTY_S
        await fleet.stopping.pause(SETTLE_S)
        while has_waiting(listeners) and fleet.loop.time() < deadline and not fleet.stopping.is_set():
            await fleet.stopping.pause(LOOK_EVERY_S)

    async def empty(self, leaving: Sequence[Slot], staying: Sequence[Slot]) -> tuple[int, int]:
        """Ends the workers of these slots, once their connections have moved; how many have, and how many could not."""
        for slot in leaving:
            await self.fleet.succession.handed_over(slot)
        children = [child for slot in leaving for child in self.fleet.children_of(slot)]
        for child in children:
            for listener in self.fleet.listeners.of_slots[child.order.slot]:
                child.unlisten(listener)
        counts = [await self.retire(child, staying) for child in children]
        await self.until_ended(leaving, set(children))
        return sum(moved for moved, _ in counts), sum(closed for _, closed in counts)

    async def retire(self, child: Child, staying: Sequence[Slot]) -> tuple[int, int]:
        """Moves what one worker has, evenly, and has it stop; how much has moved, and how much was left."""
        moved = 0
        if child.state == "ready":
            moved = await self.give(child, staying)
        left = self.open(child) if not child.ended.done() else 0
        self.fleet.succession.see_off(child, 0.0)
        return moved, left

    async def give(self, child: Child, staying: Sequence[Slot]) -> int:
        """Moves what a worker has that accepts no more, so that the others have as much as each other; how much has moved."""
        if not child.is_dead:
            # Once it answers it has heard, too, that it accepts no more: whom it let in until then is in its row.
            with contextlib.suppress(TimeoutError):
                await child.ask({"find": 0})
        takers = serving(staying)
        shares = evenly([self.open(taker) for taker in takers], self.open(child))
        moved = 0
        for taker, share in zip(takers, shares, strict=True):
            if share and not self.fleet.stopping.is_set():
                moved += await child.give(taker, share, accepting=False)
        # Requests that were not complete, and what a worker had not taken over when it died. Nobody waits twice for the same handlers.
        tried: set[Child] = set()
        while self.is_holding(child) and (heir := await self.heir(staying, tried)):
            tried.add(heir)
            moved += await child.give(heir, accepting=False)
            if self.is_holding(child):
                await self.fleet.stopping.pause(DEATH_S)
            if not heir.is_dead:
                break
        return moved

    async def heir(self, staying: Sequence[Slot], tried: Collection[Child]) -> Child | None:
        """Who has the least of those that were not tried; where nobody serves, the first one who does, if he comes in time."""
        fleet = self.fleet
        deadline = fleet.loop.time() + SUCCESSOR_S
        while not (takers := serving(staying)) and fleet.loop.time() < deadline and not fleet.stopping.is_set():
            await fleet.stopping.pause(LOOK_EVERY_S)
        return min((taker for taker in takers if taker not in tried), key=self.open, default=None)

    def is_holding(self, child: Child) -> bool:
        """Whether a worker that lives has any connection, requests included."""
        row = self.fleet.table.row(child.order.row)
        return not (child.is_dead or self.fleet.stopping.is_set()) and bool(row[OPEN] or row[INDEX["handshakes_pending"]])

    async def until_ended(self, leaving: Sequence[Slot], seen_off: set[Child]) -> None:
        """Returns when these slots have no process; one may have been about to be restarted when its slot was told to go."""
        fleet = self.fleet
        while not fleet.stopping.is_set() and (children := {child for slot in leaving for child in fleet.children_of(slot)}):
            for child in children - seen_off:
                seen_off.add(child)
                fleet.succession.see_off(child, 0.0)
            await fleet.stopping.pause(LOOK_EVERY_S)

    def end(self, listener: Listener, heir: Slot) -> None:
        """Ends a listener that nobody needs any more; one that has to stay is its heir's."""
        listeners = self.fleet.listeners
        if listeners.can_end(listener):
            for child in self.fleet.children_of(heir):
                child.unlisten(listener)
            listeners.end(listener, heir.number)


def serving(slots: Sequence[Slot]) -> list[Child]:
    """The workers of these slots that serve."""
    return [slot.current for slot in slots if slot.current is not None and serves(slot.current)]


def evenly(held: Sequence[int], more: int) -> list[int]:
    """How many of `more` go to each, so that those who hold the least hold as much as each other in the end."""
    shares = [0] * len(held)
    lowest = sorted(range(len(held)), key=lambda i: held[i])
    while lowest:
        level, rest = divmod(sum(held[i] for i in lowest) + more, len(lowest))
        if level >= held[lowest[-1]]:
            for place, i in enumerate(lowest):
                shares[i] = level - held[i] + (place < rest)
            break
        lowest.pop()  # it holds more than the others will
    return shares


def serves(child: Child | Exception) -> TypeGuard[Child]:
    """Whether a worker that was hatched before others is still there."""
    return isinstance(child, Child) and not child.is_dead and child.state == "ready"


def close(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        sock.close()
