"""The supervisor replaced by a new one in the same process: another release, another Python, other settings.

    its turn           no slot is being replaced, no app is being imported
    a check            the program starts beside this one and finds nothing wrong (check.py), or nothing happens
    exec               the process stays, and with it its pid, its children and the descriptors that are to stay open
    the new program    takes everything over (inheritance.py, takeover.py) and reloads the workers, one after the other

Signals are held back over the exec: what comes meanwhile waits for the new program. Until there is one that reads them, messages
of workers wait in their channels.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal, NamedTuple

from unlimitedws import output
from unlimitedws.sources import UPGRADE_VARIABLE
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.check import Check, CheckFailed
from unlimitedws.supervisor.fleet import Fleet
from unlimitedws.supervisor.inheritance import FORMAT, descriptors_of, written
from unlimitedws.supervisor.program import NotAgain, Program

log = logging.getLogger("unlimitedws.supervisor")

TURN_S = 60.0
"""How long a reload under way may take before the upgrade is refused."""
ANSWER_S = 0.1
"""For whoever asked to be told before the process that tells him is replaced."""
QUIET_S = 10.0
"""How long it is waited for a moment in which no worker is being forked: a fork takes milliseconds."""
LOOK_EVERY_S = 0.02
TURNS = 5
"""Turns of the loop in which a signal that came before is handled: read, scheduled, called; and two to spare."""


STOPPING = "the server is stopping"
UNDER_WAY = "one is under way already"


class Outcome(NamedTuple):
    """What becomes of an upgrade that was asked for. why: the reason, or what the check said, or what is started."""

    what: Literal["refused", "failed", "started"]
    why: str


class Refused(Exception):
    """There is no upgrade now; says why."""


class Upgrader:
    """Replaces this process's program when asked.

    pack: gives what the new program is left, besides what is the same for all.  signals: those that are held back."""

    def __init__(self, fleet: Fleet, pack: Callable[[], Message], signals: Iterable[signal.Signals]) -> None:
        self.fleet, self.pack, self.signals = fleet, pack, frozenset(signals)
        self.program: Program | NotAgain
        try:
            self.program = Program.of_this_process()
        except NotAgain as error:
            self.program = error
        self.is_under_way = False
        self.replacing = asyncio.Event()  # whoever waits for another change is told, while there is somebody to tell him
        self.check: Check | None = None

    async def ask(self) -> Outcome:
        """What becomes of it. Where it is started, this process is replaced `ANSWER_S` later; otherwise nothing has changed."""
        return await asyncio.shield(self.begin())

    def begin(self) -> asyncio.Future[Outcome]:
        """The same, and nobody has to wait for it: the log tells all."""
        asked: asyncio.Future[Outcome] = self.fleet.loop.create_future()
        self.fleet.tasks.start(self.run(asked))
        return asked

    async def run(self, asked: asyncio.Future[Outcome]) -> None:
        """Comes back only where there is no upgrade; the log says why."""
        if self.is_under_way:
            log.warning("no second upgrade: %s", UNDER_WAY)
            asked.set_result(Outcome("refused", UNDER_WAY))
            return
        self.is_under_way = True
        self.fleet.notifier.reloading()
        outcome = await self.attempt(asked)
        self.is_under_way = False
        self.replacing.clear()
        log.error("no upgrade, everything goes on as it was: %s", outcome.why)
        if not asked.done():
            asked.set_result(outcome)
        if not self.fleet.leaving:
            self.fleet.notifier.ready()

    async def attempt(self, asked: asyncio.Future[Outcome]) -> Outcome:
        fleet = self.fleet
        try:
            program = self.startable()
            async with held(fleet.reloader.turn, "another change"), held(fleet.generations.importing, "the import of the app"):
                self.startable()
                log.info("upgrading: checking %s", " ".join(program.command))
                found = await self.checked(program)
                self.startable()
                text = f"unlimitedws {found['version']}, Python {found['python']}"
                log.info("upgrading to %s", text)
                asked.set_result(Outcome("started", text))
                self.replacing.set()
                await fleet.stopping.pause(ANSWER_S)
                await self.replace(program)
            raise AssertionError("not reached")
        except (NotAgain, Refused) as error:
            return Outcome("refused", str(error))
        except CheckFailed as error:
            return Outcome("refused", STOPPING) if fleet.leaving else Outcome("failed", str(error))

    def startable(self) -> Program:
        """Raises Refused or NotAgain where this is not the time."""
        if isinstance(self.program, NotAgain):
            raise Refused(f"this program cannot be started again: {self.program}")
        if self.fleet.leaving:
            raise Refused(STOPPING)
        if not self.fleet.was_ready:
            raise Refused("the server is still starting")
        return self.program

    async def checked(self, program: Program) -> Message:
        """What the new program says of itself. Raises CheckFailed."""
        self.check = Check(program, self.document())
        try:
            return await self.check.result(self.fleet.stopping)
        finally:
            self.check = None

    def reaped(self, pid: int, status: int) -> None:
        """A child of this process is dead."""
        if self.check is not None:
            self.check.reaped(pid, status)

    async def replace(self, program: Program) -> None:
        """Comes back only by raising Refused or CheckFailed."""
        deadline = self.fleet.loop.time() + QUIET_S
        while self.fleet.loop.time() < deadline:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.signals)
            try:
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                self.startable()
                if not self.fleet.hatching.spawning:
                    self.execute(program, {**self.document(), "signals": sorted(mask)})
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            await self.fleet.stopping.pause(LOOK_EVERY_S)
        raise Refused("workers are being started all the time")

    def document(self) -> Message:
        from unlimitedws import __version__

        about = {"format": FORMAT, "version": __version__, "python": platform.python_version(), "pid": os.getpid(), "is_check": False}
        return {**about, **self.pack()}

    def execute(self, program: Program, document: Message) -> None:
        """Raises CheckFailed where the kernel refuses; nothing has changed then."""
        with contextlib.ExitStack() as stack:
            memory = written(document)
            stack.callback(os.close, memory)
            for fd in (memory, *descriptors_of(document)):
                os.set_inheritable(fd, True)
                stack.callback(os.set_inheritable, fd, False)
            here = os.open(".", os.O_PATH)
            stack.callback(os.close, here)
            flush()
            try:
                os.chdir(program.folder)
                stack.callback(os.fchdir, here)
                os.execve(program.command[0], program.command, {**os.environ, UPGRADE_VARIABLE: str(memory)})
            except OSError as error:
                raise CheckFailed(f"{error.filename or program.command[0]}: {error.strerror}") from None


@contextlib.asynccontextmanager
async def held(lock: asyncio.Lock, by: str) -> AsyncIterator[None]:
    """Raises Refused where the one who has the lock does not come to its end."""
    if lock.locked():
        log.info("upgrading: waiting for %s", by)
    try:
        await asyncio.wait_for(lock.acquire(), TURN_S)
    except TimeoutError:
        raise Refused(f"{by} has been under way for more than {TURN_S:g} s; ctl status says what it waits for") from None
    try:
        yield
    finally:
        lock.release()


def flush() -> None:
    """Writes out what is printed and logged but still buffered."""
    output.flush()
    logger: logging.Logger | None = log
    while logger is not None:
        for handler in logger.handlers:
            handler.flush()
        logger = logger.parent
