"""A worker process seen by its supervisor: however the news of its end arrive, it ends once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from unlimitedws.errors import StartFailed
from unlimitedws.supervisor import child as module
from unlimitedws.supervisor import failure, forking
from unlimitedws.supervisor.channel import Channel, Message
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.ending import ProcessGone
from unlimitedws.supervisor.order import Order

# Forked children end without Python code that another thread could have left in the middle of something.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

ORDER = Order(serial=1, slot=2, row=0, listeners=())


class Worker:
    """A process that says what it is told to and then ends as it is told to."""

    def __init__(self, *messages: Message, status: int = 0, waits: bool = False) -> None:
        self.drained: list[Child] = []
        ours, self.theirs = Channel.pair()
        self.child = Child(ORDER, ours, self.drained.append)

        def run() -> None:
            ours.close()
            for message in messages:
                self.theirs.send(message)
            if waits:
                self.theirs.receive()
            os._exit(status) if status >= 0 else os.kill(os.getpid(), -status)

        self.pid = forking.fork(run)  # type: ignore[arg-type]
        self.theirs.close()
        self.child.watch(self.pid, os.pidfd_open(self.pid))

    async def ended(self) -> Child:
        await asyncio.wait_for(asyncio.shield(self.child.ended), 10)
        assert self.child.pidfd == -1
        assert self.child.channel.fileno() == -1
        return self.child


def on_a_loop(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()

    asyncio.run(main())


@pytest.mark.parametrize("status", [0, 3, -signal.SIGKILL, -signal.SIGTERM])
def test_our_own_child_is_waited_for(status: int) -> None:
    async def story() -> None:
        assert (await Worker(status=status).ended()).status == status

    on_a_loop(story)


def test_what_it_said_last_is_heard_though_it_is_dead() -> None:
    async def story() -> None:
        error = {"failed": failure.pack(StartFailed("the database is away"))}
        worker = Worker(error, status=3)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # dead before anybody listens
        with pytest.raises(StartFailed, match="the database is away"):
            await worker.child.ready
        await worker.ended()

    on_a_loop(story)


def test_ready_and_draining_are_told() -> None:
    async def story() -> None:
        worker = Worker({"ready": {"engine": "native", "handover": "1"}}, {"draining": True}, waits=True)
        await worker.child.ready
        assert (worker.child.engine, worker.child.served_s > 0) == ("native", True)
        while not worker.drained:
            await asyncio.sleep(0.001)
        assert worker.child.state == "draining"
        worker.child.stop(1001, "bye")
        await worker.ended()

    on_a_loop(story)


def test_an_end_before_it_was_ready_says_which_worker_and_how() -> None:
    async def story() -> None:
        worker = Worker(status=-signal.SIGUSR2)
        with pytest.raises(ProcessGone, match=rf"worker {worker.pid} of slot 2 was killed by SIGUSR2"):
            await worker.child.ready
        assert worker.child.served_s == 0
        await worker.ended()

    on_a_loop(story)


def reaped(worker: Worker) -> int:
    """Its status, taken by somebody else: the template or the reaper."""
    return os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])


def test_a_status_told_by_somebody_else_before_we_notice() -> None:
    async def story() -> None:
        worker = Worker(status=5)
        worker.child.exited(reaped(worker))
        assert (await worker.ended()).status == 5

    on_a_loop(story)


def test_a_status_told_by_somebody_else_after_we_noticed() -> None:
    async def story() -> None:
        worker = Worker(status=6)
        status = reaped(worker)
        while not worker.child.is_dead:
            await asyncio.sleep(0.001)
        assert not worker.child.ended.done()
        worker.child.exited(status)
        assert (await worker.ended()).status == 6

    on_a_loop(story)


def test_a_status_that_nobody_tells_stays_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_WAIT_S", 0.05)

    async def story() -> None:
        worker = Worker(status=7)
        reaped(worker)
        child = await worker.ended()
        assert child.status is None
        assert "status unknown" in child.describe()
        child.exited(7)  # too late: nothing happens twice

    on_a_loop(story)


def test_a_kill_says_why_and_a_signal_to_the_dead_does_nothing() -> None:
    async def story() -> None:
        worker = Worker(waits=True)
        worker.child.kill("its loop hung")
        child = await worker.ended()
        assert child.describe() == f"worker {worker.pid} of slot 2 was killed by SIGKILL (its loop hung)"
        child.signal(signal.SIGKILL)
        child.stop(1001, "bye")

    on_a_loop(story)
