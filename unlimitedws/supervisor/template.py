"""The template process: it has imported the app, and forks one generation of workers on request.

The supervisor never imports the app, so that each reload starts from fresh code; workers are forked from
one process that has, so that they share its memory. What it tells over its channel:

    {"ready": {"engine", "why_not_native", "threads"}}   the app is imported and valid
    {"failed": error}                                    it is not; the process ends
    {"files": [...]}                                     source files of the app, in portions, before "ready"
    {"spawned": serial, "pid": ...} + pidfd              answer to an Order
    {"unspawned": serial, "errno": ..., "why": ...}      the other answer: there is no process left
    {"exited": serial, "status": ...}                    a worker ended (os.waitstatus_to_exitcode)

It is told {"spawn": ...} (see order.py) and at the end {"retire": true}: its workers then become the supervisor's
children. Where the channel ends without that, the supervisor was killed: workers end by themselves, and one that
cannot, because its loop hangs, is killed from here.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import select
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.supervisor import failure, forking, process
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.given import Given, load
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.stats_table import StatsTable
from unlimitedws.supervisor.watcher import source_files

if TYPE_CHECKING:
    from unlimitedws.worker import Worker

log = logging.getLogger("unlimitedws.supervisor")

FILES_AT_ONCE = 200
MOST_AT_ONCE = 16
"""Workers forked before the first of them is told of: the supervisor waits, and a fork of a large process takes a while."""


def main(channel: Channel, given: Given, config: Config, *, imports: bool) -> NoReturn:
    """Runs the template in a process just forked. imports: whether the app is imported here, or in each worker."""
    forking.shrug(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
    pid = os.getpid()
    try:
        template = Template(channel, given, config, imports=imports)
    except UnlimitedwsError as error:
        end_double(pid, given)
        channel.send({"failed": failure.pack(error)})
        forking.end(error.exit_code)
    end_double(pid, given)
    template.take_signals()
    template.announce()
    template.serve()


def end_double(pid: int, given: Given) -> None:
    """Ends this process where the import of the app has forked it from the template: two of them would answer the supervisor."""
    if os.getpid() != pid:
        log.warning("importing %s forks, and the process that came of it ends here; fork in on_start instead", given)
        forking.end(0)


class Egg(NamedTuple):
    """A worker that is about to be forked, and what descriptors are for it besides its channel."""

    serial: int
    worker: process.WorkerProcess
    listeners: Sequence[int]

    def close(self) -> None:
        self.worker.channel.close()
        for fd in self.listeners:
            os.close(fd)


class Template:
    """Has everything that a worker needs in memory, and nothing that one process may not share with another.

    Raises AppError, EngineUnavailable."""

    def __init__(self, channel: Channel, given: Given, config: Config, *, imports: bool) -> None:
        self.channel, self.given, self.config = channel, given, config
        self.engine = engine.load(config.engine)
        self.worker = self.prepare() if imports else None
        self.star: process.WorkerProcess | None = None  # the worker that this process is, or is about to fork
        self.stats: StatsTable | None = None
        self.stats_inode = 0
        self.workers: dict[int, tuple[int, int]] = {}  # pidfd -> pid, serial
        self.poll = select.poll()
        self.poll.register(channel.fileno(), select.POLLIN)

    def take_signals(self) -> None:
        """As workers want them, who inherit the handlers. After the import of the app, which may have set its own."""
        forking.shrug(signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
        signal.signal(signal.SIGTERM, self.terminated)
        faulthandler.register(process.DUMP_SIGNAL, file=2, all_threads=True, chain=False)

    def terminated(self, *_: object) -> None:
        """SIGTERM: nothing to a template, which the supervisor tells to end."""
        if self.star is not None:
            self.star.signalled()

    def announce(self) -> None:
        files = source_files() if self.config.reload else []  # to look at all modules takes 1 MB of shared pages
        for start in range(0, len(files), FILES_AT_ONCE):
            self.channel.send({"files": files[start : start + FILES_AT_ONCE]})
        # What is alive now stays alive: frozen, its pages are not written by the collector in each worker.
        gc.collect()
        engine.give_back_free()
        engine.fill_gaps(forking.MOST_GAPS_BYTES)  # of all that the supervisor has freed since it filled its own
        gc.freeze()
        why_not_native = None if self.engine.name == "native" else engine.why_not_native()
        about = {"engine": self.engine.name, "why_not_native": why_not_native, "threads": forking.threads()}
        self.channel.send({"ready": about})

    def serve(self) -> NoReturn:
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.channel.fileno():
                    self.obey()
                else:
                    self.bury(fd)

    def obey(self) -> None:
        """Takes what the supervisor has asked for so far."""
        eggs: list[Egg] = []
        with contextlib.suppress(BlockingIOError):
            while len(eggs) < MOST_AT_ONCE:
                received = self.channel.receive(wait=False)
                if received is None:
                    self.outlive_workers()
                    forking.end(0)
                message, fds = received
                if "retire" in message:
                    forking.end(0)
                eggs.append(self.lay(Order.unpack(message), fds))
        self.hatch(eggs)

    def lay(self, order: Order, fds: list[int]) -> Egg:
        *listeners, channel, table = fds
        stats = self.stats_in(table)
        os.close(table)
        worker = process.WorkerProcess(
            order, Channel.adopt(channel), stats.row(order.row), order.listening(listeners)
        )  # fmt: skip
        return Egg(order.serial, worker, listeners)

    def hatch(self, eggs: Sequence[Egg]) -> None:
        """Forks the workers, one right after the other: what is written here between two forks, the worker before does not share."""
        hatched: list[int | OSError] = []
        for egg in eggs:
            self.star = egg.worker
            try:
                hatched.append(forking.fork_alike(partial(self.become_worker, egg, eggs)))
            except OSError as error:
                hatched.append(error)
        self.star = None
        for egg, pid in zip(eggs, hatched, strict=True):
            egg.close()
            if isinstance(pid, OSError):
                self.channel.send({"unspawned": egg.serial, "errno": pid.errno, "why": pid.strerror})
            else:
                self.watch(pid, egg.serial)

    def watch(self, pid: int, serial: int) -> None:
        pidfd = os.pidfd_open(pid)
        self.workers[pidfd] = (pid, serial)
        self.poll.register(pidfd, select.POLLIN)
        self.channel.send({"spawned": serial, "pid": pid}, [pidfd])

    def stats_in(self, table: int) -> StatsTable:
        """Mapped here and once: workers inherit the mapping."""
        inode = os.fstat(table).st_ino
        if self.stats is None or inode != self.stats_inode:
            self.stats, self.stats_inode = StatsTable(table), inode
        return self.stats

    def bury(self, pidfd: int) -> None:
        pid, serial = self.workers.pop(pidfd)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self.channel.send({"exited": serial, "status": os.waitstatus_to_exitcode(status)})

    def outlive_workers(self) -> None:
        """The supervisor is gone: waits until the workers have noticed, and kills those that do not."""
        self.poll.unregister(self.channel.fileno())
        deadline = time.monotonic() + process.ORPHAN_END_S + 1
        while self.workers and (left_s := deadline - time.monotonic()) > 0:
            for pidfd, _ in self.poll.poll(left_s * 1000):
                self.bury(pidfd)
        for pidfd in self.workers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def become_worker(self, mine: Egg, eggs: Sequence[Egg]) -> NoReturn:
        self.channel.close()
        for pidfd in self.workers:
            os.close(pidfd)
        for egg in eggs:
            if egg is not mine:
                egg.close()
        process.main(mine.worker, lambda: self.worker or self.prepare())

    def prepare(self) -> Worker:
        return process.prepare(load(self.given), self.config)
