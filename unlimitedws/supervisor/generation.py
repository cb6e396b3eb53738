"""One generation of the app's code, as the supervisor sees it: its template process (see template.py)."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Sequence
from functools import cache
from typing import NoReturn

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.errors import AppImportFailed
from unlimitedws.supervisor import failure, forking
from unlimitedws.supervisor.channel import Channel, Message
from unlimitedws.supervisor.descriptors import close_supervisors
from unlimitedws.supervisor.ending import ProcessGone, describe
from unlimitedws.supervisor.given import Given
from unlimitedws.supervisor.order import Order

log = logging.getLogger("unlimitedws.supervisor")

SLOW_IMPORT_S = 10.0
SPAWN_S = 10.0
"""How long a fork may take. Of a process with 10 GB it takes about 0.1 s."""


FACTS = ("imports", "engine", "why_not_native", "threads", "files", "ready_at")
"""What an upgrade passes on as it is."""


def tidy() -> None:
    """Leaves as little as can be to a template that it would only copy."""
    gc.unfreeze()
    gc.collect()  # of what a fork freezes nothing is collected any more
    engine.give_back_free()
    fill_gaps()


@cache
def fill_gaps() -> None:
    """Once: each time it would keep what was freed since the last."""
    engine.fill_gaps(forking.MOST_GAPS_BYTES)


class Generation:
    """A template process: started once, asked for workers, and let go.

    given, config: what it serves.  kept: descriptors of the embedding program, which all processes keep.
    imports: whether the template imports the app, or each worker does so itself.
    hint: what to do where the import hangs, for the log.
    on_exit(serial, status): a worker ended.  on_lost(generation): the template died unasked."""

    def __init__(
        self, given: Given, config: Config, *, kept: frozenset[int], imports: bool,
        on_exit: Callable[[int, int], None], on_lost: Callable[[Generation], None],
    ) -> None:  # fmt: skip
        self.given, self.config, self.kept, self.imports = given, config, kept, imports
        self.on_exit, self.on_lost = on_exit, on_lost
        self.loop = asyncio.get_running_loop()
        self.pid = 0
        self.engine = ""
        self.why_not_native: str | None = None
        self.threads = 1
        self.files: list[str] = []
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.ended: asyncio.Future[int] = self.loop.create_future()
        self.retired = self.is_slow = False
        self.doom = self.hint = ""
        self.ready_at = 0.0
        self.pending: dict[int, asyncio.Future[tuple[int, int]]] = {}

    async def start(self) -> None:
        """Forks the template and waits until it can fork workers. Raises AppError, EngineUnavailable or ProcessGone."""
        self.channel, theirs = Channel.pair()
        try:
            self.pid = await self.fork(lambda: self.become_template(theirs))
        finally:
            theirs.close()
        self.channel.setblocking(False)
        self.loop.add_reader(self.channel.fileno(), self.hear)
        slow = self.loop.call_later(SLOW_IMPORT_S, self.grow_slow)
        try:
            await self.ready
        finally:
            slow.cancel()

    def grow_slow(self) -> None:
        self.is_slow = True
        log.warning("still importing the app %s after %d s%s", self.given, SLOW_IMPORT_S, self.hint)

    def pack(self) -> Message:
        """Everything about it for the supervisor after an upgrade, which has the same descriptors. Only once it is ready."""
        return {
            "pid": self.pid,
            "inherited": {"channel": self.channel.fileno()},
            "facts": {name: getattr(self, name) for name in FACTS},
        }

    def adopt(self, packed: Message) -> None:
        """Is the template that another supervisor has started, in this process."""
        self.pid, self.channel = packed["pid"], Channel.adopt(packed["inherited"]["channel"])
        vars(self).update(packed["facts"])
        self.ready.set_result(None)
        self.loop.add_reader(self.channel.fileno(), self.hear)

    async def fork(self, child: Callable[[], NoReturn]) -> int:
        # From a callback of the loop and not from this coroutine: in the child no task is under way then,
        # and its own loop can run one (Python 3.14 refuses to enter a task inside another).
        forked: asyncio.Future[int] = self.loop.create_future()

        def fork() -> None:
            tidy()
            try:
                forked.set_result(forking.fork(child))
            except OSError as error:
                forked.set_exception(error)

        self.loop.call_soon(fork)
        return await forked

    def become_template(self, theirs: Channel) -> NoReturn:
        from unlimitedws.supervisor import template  # not at the top: see rehearsal.py

        close_supervisors(keep=self.kept | {theirs.fileno()})
        template.main(theirs, self.given, self.config, imports=self.imports)

    async def spawn(self, order: Order, fds: Sequence[int]) -> tuple[int, int]:
        """Asks for one worker; its pid and pidfd, which is the caller's. Raises ProcessGone or OSError."""
        reply: asyncio.Future[tuple[int, int]] = self.loop.create_future()
        self.pending[order.serial] = reply
        if self.retired or not self.channel.send(order.pack(), fds):
            self.pending.pop(order.serial)
            raise ProcessGone("the template process is gone")
        slow = self.loop.call_later(SPAWN_S, self.is_stuck)
        try:
            return await reply
        finally:
            slow.cancel()

    def is_stuck(self) -> None:
        """An order was not answered: the reply then fails, and `on_lost` is told."""
        if not self.ended.done():
            log.error("the template process %d does not fork; killing it", self.pid)
            os.kill(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Lets the template end. Its workers go on and become the supervisor's children."""
        if not self.retired:
            self.retired = True
            self.channel.send({"retire": True})
            self.hang_up()

    def give_up(self, doom: str) -> None:
        """Ends one that does not come to the end of its import."""
        if not self.ready.done():
            self.doom = doom
            self.kill()

    def kill(self) -> None:
        self.retired = True
        if self.pid and not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)

    def died(self, status: int) -> None:
        """The template is dead; the supervisor's reaper tells."""
        self.hear_out()
        self.hang_up()
        self.ended.set_result(status)
        if not self.ready.done():
            self.ready.set_exception(self.death_at_start(status))
            self.ready.exception()  # whether or not anybody still waits for it
        elif not self.retired and self.ready.exception() is None:
            self.on_lost(self)

    def death_at_start(self, status: int) -> Exception:
        if self.doom:
            return AppImportFailed(str(self.given), self.doom)
        if self.retired:
            return ProcessGone("the template process was stopped")
        if status == forking.CRASHED:
            return ProcessGone("the template process failed (its traceback is above); please report this")
        return AppImportFailed(str(self.given), f"the process that imported it {describe(status)}")

    def hang_up(self) -> None:
        if self.channel.fileno() >= 0:
            self.loop.remove_reader(self.channel.fileno())
            self.channel.close()
        for reply in self.pending.values():
            if not reply.done():
                reply.set_exception(ProcessGone("the template process is gone"))
        self.pending.clear()

    def hear_out(self) -> None:
        """Handles what it said before it died."""
        while self.channel.fileno() >= 0 and self.hear():
            pass

    def hear(self) -> bool:
        try:
            received = self.channel.receive()
        except BlockingIOError:
            return False
        if received is None:
            self.loop.remove_reader(self.channel.fileno())  # its death is told by the reaper
            return False
        self.handle(*received)
        return True

    def handle(self, message: Message, fds: list[int]) -> None:
        if "spawned" in message:
            self.spawned(message["spawned"], message["pid"], fds[0])
        elif "unspawned" in message:
            self.answer(message["unspawned"], OSError(*filter(None, (message.get("errno"), message["why"]))))
        elif "exited" in message:
            self.on_exit(message["exited"], message["status"])
        elif "files" in message:
            self.files += message["files"]
        elif "failed" in message:
            self.ready.set_exception(failure.unpack(message["failed"]))
        elif "ready" in message:
            about = message["ready"]
            self.engine, self.threads, self.why_not_native = about["engine"], about["threads"], about["why_not_native"]
            self.ready_at = self.loop.time()
            self.ready.set_result(None)

    def spawned(self, serial: int, pid: int, pidfd: int) -> None:
        reply = self.pending.pop(serial, None)
        if reply is None or reply.done():
            os.close(pidfd)
        else:
            reply.set_result((pid, pidfd))

    def answer(self, serial: int, error: Exception) -> None:
        reply = self.pending.pop(serial, None)
        if reply is not None and not reply.done():
            reply.set_exception(error)
