"""The template process: it has imported the app, and forks one generation of workers on request.

The supervisor never imports the app, so that each reload starts from fresh code; workers are forked from
one process that has, so that they share its memory. What it tells over its channel:

    {"ready": {"engine", "why_not_native", "threads"}}   the app is imported and valid
    {"failed": error}                                    it is not; the process ends
    {"files": [...]}                                     source files of the app, in portions, before "ready"
    {"spawned": serial, "pid": ...} + pidfd              answer to an Order
    {"unspawned": serial, "why": ...}                    the other answer: there is no process left
    {"exited": serial, "status": ...}                    a worker ended (os.waitstatus_to_exitcode)

It is told {"spawn": ...} (see order.py) and at the end {"retire": true}: its workers then become the supervisor's
children. Where the channel ends without that, the supervisor was killed: workers end by themselves, and one that
cannot, because its loop hangs, is killed from here.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from typing import TYPE_CHECKING, NoReturn

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.errors import UnlimitedwsError
from unlimitedws.supervisor import failure, forking, process
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.given import Given, load
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.watcher import source_files

if TYPE_CHECKING:
    from unlimitedws.worker import Worker

FILES_AT_ONCE = 200


def main(channel: Channel, given: Given, config: Config, *, imports: bool) -> NoReturn:
    """Runs the template in a process just forked. imports: whether the app is imported here, or in each worker."""
    forking.shrug(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
    try:
        template = Template(channel, given, config, imports=imports)
    except UnlimitedwsError as error:
        channel.send({"failed": failure.pack(error)})
        forking.end(error.exit_code)
    template.announce()
    template.serve()


class Template:
    """Has everything that a worker needs in memory, and nothing that one process may not share with another.

    Raises AppError, EngineUnavailable."""

    def __init__(self, channel: Channel, given: Given, config: Config, *, imports: bool) -> None:
        self.channel, self.given, self.config = channel, given, config
        self.engine = engine.load(config.engine)
        process.warm_up()
        self.worker = self.prepare() if imports else None
        self.workers: dict[int, tuple[int, int]] = {}  # pidfd -> pid, serial
        self.poll = select.poll()
        self.poll.register(channel.fileno(), select.POLLIN)

    def announce(self) -> None:
        files = source_files()
        for start in range(0, len(files), FILES_AT_ONCE):
            self.channel.send({"files": files[start : start + FILES_AT_ONCE]})
        # What is alive now stays alive: frozen, its pages are not written by the collector in each worker.
        gc.collect()
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
        received = self.channel.receive()
        if received is None:
            self.outlive_workers()
            forking.end(0)
        message, fds = received
        if "retire" in message:
            forking.end(0)
        try:
            self.spawn(Order.unpack(message), fds)
        finally:
            for fd in fds:
                os.close(fd)

    def spawn(self, order: Order, fds: list[int]) -> None:
        try:
            pid = forking.fork(lambda: self.become_worker(order, fds))
        except OSError as error:
            self.channel.send({"unspawned": order.serial, "why": str(error)})
            return
        pidfd = os.pidfd_open(pid)
        self.workers[pidfd] = (pid, order.serial)
        self.poll.register(pidfd, select.POLLIN)
        self.channel.send({"spawned": order.serial, "pid": pid}, [pidfd])

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

    def become_worker(self, order: Order, fds: list[int]) -> NoReturn:
        *listeners, channel, table = fds
        self.channel.close()
        for pidfd in self.workers:
            os.close(pidfd)
        process.main(order, lambda: self.worker or self.prepare(), listeners=order.listening(listeners), channel=channel, table=table)

    def prepare(self) -> Worker:
        return process.prepare(load(self.given), self.config)
