"""A worker process, from its fork to its end.

It holds exactly its slot's listeners, its channel to the supervisor and the stats table. What it tells:

    {"ready": {"engine": ..., "handover": ...}}   on_start is done, it accepts; what it can hand its connections over to
    {"failed": error}            on_start raised (or the app could not be imported here); the process ends
    {"draining": true}           it accepts no more
    {"handed_over": done, "left": number}   after "hand_over": false where the other worker was lost, and another will be named;
                                 left: how many could not move, and are closed

and what it is told:

    {"leave": true}                  it is about to be stopped: it says so to load balancers, and goes on
    {"stop": code, "reason": text}   stop: drain with this close code, run on_stop, end
    {"cut": true}                    the same without waiting for anybody
    {"hand_over": true} + socket     give the connections to the worker at its other end, then stop with 1012
    {"take_over": true} + socket     take the connections of the worker at its other end
    {"listen": [proxied, tls]} + socket   accept from this listener too
    {"unlisten": inode}              accept no more from the listener whose socket has this inode
    {"workers": number}              so many share the limits of the server from now on
    {"give": count, ...} + socket    give so many connections (null: all) to the worker at its other end, and go on; the answer
                                     has how many have `moved`. accepting: false: accept no more from now on
    {"ask": number, ...}             about its connections: see asking.py

SIGTERM is `stop`, a second one `cut`. SIGQUIT prints the stack of every thread. SIGINT is ignored: a terminal
sends it to the whole group, and the supervisor decides. The end of the channel means that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from unlimitedws import engine
from unlimitedws.config import Config
from unlimitedws.engine.counters import INDEX
from unlimitedws.errors import OutOfResources, UnlimitedwsError
from unlimitedws.listener import Listening
from unlimitedws.supervisor import asking, failure, forking
from unlimitedws.supervisor.channel import Channel, Message
from unlimitedws.supervisor.order import Order
from unlimitedws.wire.closing import GOING_AWAY, SERVICE_RESTART

if TYPE_CHECKING:
    from unlimitedws.app import App
    from unlimitedws.worker import Worker

log = logging.getLogger("unlimitedws.worker")

STARTING, READY, DRAINING = range(3)

ORPHAN_DRAIN_S = 2.0
"""Without a supervisor nobody takes over: a short, polite drain, so that a new server finds the machine free."""
ORPHAN_END_S = 5.0
"""... and an end, whatever on_stop does."""

DUMP_SIGNAL = signal.SIGQUIT


def prepare(app: App, config: Config) -> Worker:
    """A worker as far as it can be made before the fork. Raises EngineUnavailable, BadCertificate."""
    from unlimitedws.worker import Worker  # not at the top: see rehearsal.py

    return Worker(app, config, supervised=True).prepare()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where it is there (it has no wheels for every machine); else the standard library's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop
    return uvloop.new_event_loop


def inode(fd: int) -> int:
    """What a socket is known by in every process that holds it."""
    return os.fstat(fd).st_ino


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop that holds no more memory than it uses."""
    loop = loop_factory()()
    engine.give_back_zeros(loop)  # uvloop's has a receive buffer of 250 KB in itself, of which our engine makes no use
    return loop


def main(process: WorkerProcess, make: Callable[[], Worker]) -> NoReturn:
    """Runs one worker in a process just forked.

    make: gives the worker; where it imports the app, its errors are reported like those of on_start."""
    try:
        loop = new_loop()
    except OSError as error:
        forking.end(process.failed(error))
    code = loop.run_until_complete(process.main(make))
    logging.shutdown()  # handlers that buffer; forking.end runs no atexit functions
    forking.end(code)


class WorkerProcess:
    """One worker and its conversation with the supervisor.

    It is made before the fork: the less is done after it, the fewer pages of shared memory are written to. For the same
    reason SIGTERM is not given to the loop (which takes 70 pages): a handler from before the fork calls `signalled`."""

    def __init__(self, order: Order, channel: Channel, row: memoryview[int], listeners: Sequence[Listening]) -> None:
        self.order, self.channel, self.row, self.workers = order, channel, row, order.workers
        self.listeners = {inode(listener.fd): listener for listener in listeners}
        self.stopping = asyncio.Event()
        self.cutting = asyncio.Event()
        self.news = asyncio.Event()  # that the start is over, or a stop has come
        self.terminated = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.signalled_early = 0
        self.worker: Worker | None = None
        self.giving: set[asyncio.Future[None]] = set()
        self.close_code, self.close_reason = GOING_AWAY, "server is stopping"

    async def main(self, make: Callable[[], Worker]) -> int:
        """Serves until told to stop; the exit code."""
        self.listen_to_supervisor()
        self.fill_row()
        try:
            return await self.serve(make)
        except Exception as error:
            return self.failed(error)

    def failed(self, error: Exception) -> int:
        """Tells the supervisor, or for a defect the log; the exit code."""
        is_starting = self.row[INDEX["state"]] == STARTING
        told = error if isinstance(error, UnlimitedwsError) else OutOfResources.of(error) if is_starting else None
        if told is None:
            log.error("worker %d of slot %d failed", os.getpid(), self.order.slot, exc_info=error)
            return forking.CRASHED
        self.channel.send({"failed": failure.pack(told)})
        return told.exit_code

    async def serve(self, make: Callable[[], Worker]) -> int:
        worker = self.worker = make()
        self.row[INDEX["native"]] = worker.engine_name == "native"
        worker.share(self.workers)
        start = asyncio.ensure_future(worker.start(list(self.listeners.values()), row=self.row, serial=self.order.serial))
        if not await self.unless_stopped(start):
            return 0
        self.row[INDEX["state"]] = READY
        self.channel.send({"ready": {"engine": worker.engine_name, "handover": worker.handover}})
        await self.stopping.wait()
        stop = asyncio.ensure_future(worker.stop(self.close_code, self.close_reason))
        await asyncio.sleep(0)  # its first step: it accepts no more
        self.row[INDEX["state"]] = DRAINING
        self.channel.send({"draining": True})
        await self.unless_cut(stop, worker.cut)
        return 0

    async def unless_stopped(self, start: asyncio.Future[None]) -> bool:
        """Whether `start` came to its end (and raises its error); cancelled when a stop comes first."""
        start.add_done_callback(lambda _: self.news.set())
        await self.news.wait()
        if start.done():
            start.result()
            return True
        start.cancel()
        await asyncio.wait([start], timeout=ORPHAN_DRAIN_S)
        return False

    async def unless_cut(self, stop: asyncio.Future[None], cut: Callable[[], None]) -> None:
        cutting = asyncio.ensure_future(self.cutting.wait())
        await asyncio.wait((stop, cutting), return_when=asyncio.FIRST_COMPLETED)
        if cutting.done():
            cut()
        cutting.cancel()
        await stop

    def fill_row(self) -> None:
        row = self.row
        row[INDEX["slot"]], row[INDEX["serial"]], row[INDEX["state"]] = self.order.slot, self.order.serial, STARTING
        row[INDEX["started_ns"]] = time.monotonic_ns()
        row[INDEX["pid"]] = os.getpid()

    def listen_to_supervisor(self) -> None:
        loop = asyncio.get_running_loop()
        self.channel.setblocking(False)
        loop.add_reader(self.channel.fileno(), self.hear)
        self.loop = loop
        for _ in range(self.signalled_early):
            self.terminate()

    def hear(self) -> None:
        try:
            received = self.channel.receive()
        except BlockingIOError:
            return
        if received is None:
            self.orphaned()
        else:
            self.obey(*received)

    def obey(self, message: Message, fds: list[int]) -> None:
        if "stop" in message:
            self.stop(message["stop"], message["reason"])
        elif "cut" in message:
            self.cut()
        elif "hand_over" in message:
            self.handing_over = asyncio.ensure_future(self.hand_over(socket.socket(fileno=fds[0])))
        elif "take_over" in message and self.worker is not None:
            self.worker.take_over(socket.socket(fileno=fds[0]))
        elif "leave" in message and self.worker is not None:
            self.worker.leave()
        elif "listen" in message:
            self.listen(Listening(fds[0], *message["listen"]))
        elif "unlisten" in message:
            self.unlisten(message["unlisten"])
        elif "workers" in message:
            self.workers = message["workers"]
            if self.worker is not None:
                self.worker.share(self.workers)
        elif "give" in message:
            giving = asyncio.ensure_future(self.give(message, socket.socket(fileno=fds[0])))
            self.giving.add(giving)
            giving.add_done_callback(self.giving.discard)
        elif "ask" in message:
            self.channel.send(asking.answer(message, self.worker))

    def listen(self, listener: Listening) -> None:
        self.listeners[inode(listener.fd)] = listener
        if self.worker is not None:
            self.worker.listen(listener)

    def unlisten(self, which: int) -> None:
        listener = self.listeners.pop(which, None)
        if listener is None:
            return
        if self.worker is not None:
            self.worker.unlisten(listener.fd)
        os.close(listener.fd)

    async def hand_over(self, sock: socket.socket) -> None:
        if self.worker is None or self.stopping.is_set():
            sock.close()
            return
        self.row[INDEX["state"]] = DRAINING
        self.channel.send({"draining": True})
        try:
            done = await self.worker.hand_over(sock)
        except Exception:
            log.exception("worker %d of slot %d: the handover failed; what is left is drained", os.getpid(), self.order.slot)
            done = True
        self.channel.send({"handed_over": done, "left": self.row[INDEX["connections_open"]] if done else 0})
        if done:
            self.stop(SERVICE_RESTART, "server is restarting")

    async def give(self, message: Message, sock: socket.socket) -> None:
        moved = 0
        if self.worker is None:
            sock.close()
        else:
            try:
                moved = await self.worker.give(sock, message["give"], accepting=message["accepting"])
            except Exception:
                log.exception("worker %d of slot %d: giving connections failed", os.getpid(), self.order.slot)
        self.channel.send({"answer": message["ask"], "moved": moved})

    def signalled(self) -> None:
        """SIGTERM has come: the loop will know. Called by a handler of the interpreter, so at any moment."""
        if self.loop is None:
            self.signalled_early += 1
        else:
            self.loop.call_soon_threadsafe(self.terminate)

    def terminate(self) -> None:
        if self.terminated:
            self.cut()
        self.terminated = True
        self.stop(self.close_code, self.close_reason)

    def stop(self, code: int, reason: str) -> None:
        if not self.stopping.is_set():
            self.close_code, self.close_reason = code, reason
            self.begin_stop()

    def cut(self) -> None:
        self.begin_stop()
        self.cutting.set()

    def begin_stop(self) -> None:
        self.stopping.set()
        self.news.set()

    def orphaned(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.channel.fileno())
        log.error("worker %d: the supervisor is gone; stopping", os.getpid())
        self.begin_stop()
        loop.call_later(ORPHAN_DRAIN_S, self.cutting.set)
        loop.call_later(ORPHAN_END_S, forking.end, forking.CRASHED)
