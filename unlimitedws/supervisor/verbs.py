"""What the operator can ask a server to do, by name: the verbs of the control socket (see control.py and docs/reference/ctl.md)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeVar

from unlimitedws.engine.counters import INDEX
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.control import Message, Refused, Say, Verb
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.rebalance import rebalance
from unlimitedws.supervisor.report import Report, uptime_s
from unlimitedws.supervisor.scaling import ScaleFailed
from unlimitedws.supervisor.upgrade import Upgrader

TELL_EVERY_S = 2.0

T = TypeVar("T")


class Verbs:
    """stop: begins the stop of the server.  stopped: done when it is through, and no process is left."""

    def __init__(
        self, fleet: Fleet, report: Report, upgrader: Upgrader, *, stop: Callable[[], None], stopped: asyncio.Future[None]
    ) -> None:  # fmt: skip
        self.fleet, self.report, self.upgrader, self.begin_stop, self.stopped = fleet, report, upgrader, stop, stopped
        self.moving: set[asyncio.Task[int]] = set()

    def table(self) -> dict[str, Verb]:
        """Name to what does it."""
        return {
            "status": self.status,
            "reload": self.reload,
            "upgrade": self.upgrade,
            "workers": self.workers,
            "rebalance": self.rebalance,
            "stop": self.stop,
        }

    # ---- status

    async def status(self, request: Message, say: Say) -> Message:
        report = self.report
        return {
            "version": report.version,
            "pid": os.getpid(),
            "state": self.state,
            "doing": self.doing if self.state == "changing" else None,
            "uptime_s": report.uptime_s,
            "engine": report.engine,
            "listening": self.fleet.listeners.names,
            "reloads": self.fleet.reloader.count,
            "upgrades": self.fleet.upgrades,
            "workers": [self.worker(child) for child in report.children()],
        }

    @property
    def state(self) -> str:
        """Of the whole server, in a word."""
        fleet = self.fleet
        if fleet.leaving:
            return "stopping"
        if not fleet.was_ready:
            return "starting"
        if fleet.reloader.turn.locked() or fleet.reloader.asked.is_set():
            return "changing"
        return "serving" if fleet.is_served else "down"

    @property
    def doing(self) -> str:
        """What is under way where something is being changed."""
        fleet = self.fleet
        if self.upgrader.check is not None:
            return "the program of an upgrade is being checked"
        return fleet.scaler.progress() if fleet.scaler.emptying else fleet.reloader.progress()

    def worker(self, child: Child) -> Message:
        row = self.report.row(child)
        return {
            "slot": child.order.slot,
            "pid": child.pid,
            "state": child.state,
            "connections": row[INDEX["connections_open"]],
            "uptime_s": uptime_s(row),
        }

    @property
    def open(self) -> int:
        """Connections of all workers."""
        return sum(self.report.row(child)[INDEX["connections_open"]] for child in self.report.children())

    # ---- changes

    async def reload(self, request: Message, say: Say) -> Message:
        self.check_it_serves()
        outcome, closed = self.fleet.reload(), self.fleet.succession.closed
        if not waits(request):
            return {"begun": True}
        say(f"reloading {self.fleet.given}")
        if why_not := await self.end_of(outcome, lambda: say(self.fleet.reloader.progress())):
            raise Refused(f"not reloaded: {why_not}")
        for slot in tuple(self.fleet.slots):
            await self.fleet.succession.handed_over(slot)
        return {"reloaded": True, "workers": len(self.fleet.slots), "closed": self.fleet.succession.closed - closed}

    async def upgrade(self, request: Message, say: Say) -> Message:
        """The last line comes before this program is replaced; `status` of the next one says how it went on."""
        self.check_it_serves()
        begun = self.upgrader.begin()
        if not waits(request):
            return {"begun": True}
        say("checking the new program")
        outcome = await asyncio.shield(begun)
        if outcome.what != "started":
            raise Refused(f"not upgraded: {outcome.why}")
        return {"upgrading": outcome.why, "upgrades": self.fleet.upgrades, "reloads": self.fleet.reloader.count}

    async def workers(self, request: Message, say: Say) -> Message:
        self.check_it_serves()
        scaler, number = self.fleet.scaler, request.get("number")
        if type(number) is not int or not 1 <= number <= scaler.most:
            raise Refused(f"the number of workers is 1 to {scaler.most:,}")
        outcome = scaler.ask(number)
        if not waits(request):
            return {"begun": True}
        say(f"from {len(self.fleet.slots)} to {number} workers")
        try:
            scaled = await self.end_of(outcome, lambda: say(scaler.progress()))
        except ScaleFailed as error:
            raise Refused(str(error)) from None
        return scaled._asdict()

    async def rebalance(self, request: Message, say: Say) -> Message:
        self.check_it_serves()
        moving = self.fleet.loop.create_task(rebalance(self.fleet))
        self.moving.add(moving)
        moving.add_done_callback(self.moving.discard)
        if not waits(request):
            return {"begun": True}
        say("moving connections")
        return {"moved": await self.end_of(moving), "workers": len(self.fleet.slots)}

    async def stop(self, request: Message, say: Say) -> Message:
        if not self.fleet.leaving:
            self.begin_stop()
        if waits(request):
            say("stopping")
            while not (await asyncio.wait([self.stopped], timeout=TELL_EVERY_S))[0]:
                say(f"{self.open:,} connections left")
        return {"stopped": waits(request)}

    async def end_of(self, change: asyncio.Future[T], tell: Callable[[], None] = lambda: None) -> T:
        """What comes of a change that was asked for. Raises Refused where an upgrade comes first, of which this program sees no end."""
        replaced = asyncio.ensure_future(self.upgrader.replacing.wait())
        both: tuple[asyncio.Future[Any], ...] = (change, replaced)
        try:
            while not change.done():
                if replaced.done():
                    raise Refused("an upgrade came first, which replaces the supervisor; ask again")
                if not (await asyncio.wait(both, timeout=TELL_EVERY_S, return_when=asyncio.FIRST_COMPLETED))[0]:
                    tell()
        finally:
            replaced.cancel()
        return change.result()

    def check_it_serves(self) -> None:
        """Raises Refused where nothing can be changed now."""
        if self.fleet.leaving:
            raise Refused("the server is stopping")
        if not self.fleet.was_ready:
            raise Refused("the server is still starting; ask again when it serves")


def waits(request: Message) -> bool:
    """Whether the client wants to hear how it ends."""
    return request.get("wait") is not False
