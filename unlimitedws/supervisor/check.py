"""The check before an upgrade: the program is started beside this one, and ends where it would begin to serve.

So it is known that there is an interpreter, that the program and the package can be imported, and that the new
release accepts the configuration, the certificates, the places to listen, and the document that it will be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import Any

from unlimitedws.sources import UPGRADE_VARIABLE
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.ending import describe
from unlimitedws.supervisor.inheritance import read, written
from unlimitedws.supervisor.program import Program

CHECK_S = 30.0
"""For the start of Python and of the program. The app is not imported."""

MOST_SAID = 16 * 1024
"""Bytes that are kept of what it writes to stderr: the last ones."""


class CheckFailed(Exception):
    """The program would not start again; says what it said."""


class Check:
    """A process that checks. `reaped` is to be called when it is dead. Raises CheckFailed where it cannot be started."""

    def __init__(self, program: Program, document: Message) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self.loop.create_future()
        self.said = bytearray()
        self.is_late = False
        self.memory = written({**document, "is_check": True})
        self.errors, theirs = os.pipe()
        os.set_blocking(self.errors, False)
        try:
            self.pid = start(program, self.memory, theirs)
        except OSError as error:
            self.close()
            raise CheckFailed(f"{error.filename or program.command[0]}: {error.strerror}") from None
        finally:
            os.close(theirs)
        self.loop.add_reader(self.errors, self.hear)

    async def result(self, stopping: asyncio.Event) -> Message:
        """What the program says of itself, or CheckFailed. Nothing is left of it then; at a stop it is killed."""
        stop = asyncio.ensure_future(stopping.wait())
        waits: list[asyncio.Future[Any]] = [self.ended, stop]
        try:
            await asyncio.wait(waits, timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED)
            self.is_late = not self.ended.done()
            if self.is_late:
                os.killpg(self.pid, signal.SIGKILL)  # its session is its own: whatever it has started ends with it
            status = await self.ended
            while self.hear():
                pass
            return self.answer(status)
        finally:
            stop.cancel()
            self.close()

    def answer(self, status: int) -> Message:
        with contextlib.suppress(ValueError, KeyError):
            if not self.is_late:
                checked: Message = read(self.memory)["checked"]
                return checked
        why = f"it has not come so far as to serve in {CHECK_S:g} s" if self.is_late else f"it {describe(status)} before it would serve"
        said = self.said.decode(errors="replace").strip()
        raise CheckFailed(f"{why}:\n{said}" if said else why)

    def hear(self) -> bool:
        try:
            more = os.read(self.errors, MOST_SAID)
        except BlockingIOError:
            return False
        if not more:
            self.loop.remove_reader(self.errors)
        self.said += more
        del self.said[:-MOST_SAID]
        return bool(more)

    def reaped(self, pid: int, status: int) -> None:
        if pid == self.pid and not self.ended.done():
            self.ended.set_result(status)

    def close(self) -> None:
        self.loop.remove_reader(self.errors)
        os.close(self.errors)
        os.close(self.memory)


def start(program: Program, memory: int, errors: int) -> int:
    """Its pid; it is waited for by the reaper. Raises OSError."""
    process = subprocess.Popen(
        program.command, cwd=program.folder, env=environment(memory), pass_fds=[memory],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
    )  # fmt: skip
    process.returncode = 0  # or it would be waited for here, too
    return process.pid


def environment(memory: int) -> dict[str, str]:
    """Of the check: without the service manager, to whom it has nothing to say."""
    return {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"} | {UPGRADE_VARIABLE: str(memory)}
