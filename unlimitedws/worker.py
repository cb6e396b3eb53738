"""One worker: an engine on an event loop, the app's hooks, and a clean end."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.descriptors import descriptors_left
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine import load
from unlimitedws.engine.contract import TICKS_PER_S
from unlimitedws.engine.counters import INDEX, LOOP_LAG
from unlimitedws.expiry import Expiry
from unlimitedws.farewell import Farewell
from unlimitedws.front import Front
from unlimitedws.gate import Gate
from unlimitedws.handover.arriving import Arriving
from unlimitedws.handover.leaving import Leaving
from unlimitedws.handover.spoken import FORMAT
from unlimitedws.lifespan import Lifespan
from unlimitedws.listener import Listening
from unlimitedws.logs import FloodGuard
from unlimitedws.pressure import Pressure
from unlimitedws.threads import ThreadPool
from unlimitedws.tls import Certificates
from unlimitedws.wire.closing import GOING_AWAY

log = logging.getLogger("unlimitedws.worker")

HANDSHAKES_S = 0.5
"""At a stop: time for requests that are on their way already; then the drain cuts those that dawdle."""

GRACE_S = 1.0
"""After the deadline: what cancelled coroutines and the last on_close and on_stop hooks may still take."""

POLL_S = 0.01
"""How often a stop looks whether what it waits for has ended."""

SPARE = 64
"""Descriptors that are left to the app when others give their connections: for its files and databases."""

EVERYONE = 1 << 30


class Worker:
    """Serves one app on the running event loop, from `start` to `stop`.

    supervised: somebody writes advice into the row (`pressure`). Raises EngineUnavailable, BadCertificate."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, app: App, config: Config, *, supervised: bool = False) -> None:
        self.app = app
        self.config = config
        self.serial = 0
        self._engine_class = load(config.engine)
        self.engine_name: str = self._engine_class.name
        self.handover = FORMAT
        self._pressure = None if supervised else Pressure(config)
        self._flood_guard = FloodGuard(config)
        self._certificates = Certificates(config) if config.certfile else None
        if self._certificates is not None and not supervised:  # the supervisor tells for all
            self._certificates.tell_expired()
        self._expiry = Expiry(self._expire)
        self._gate = Gate(config)
        self._is_prepared = False
        self._engine: Any = None
        self._leaving: list[Leaving] = []
        self._arriving: list[Arriving] = []
        self._giving = asyncio.Lock()
        self._is_ending = self._is_stopping = False
        self._thread = threading.get_ident()
        self._listeners: list[Listening] = []
        self._is_accepting = False
        self._cut = False

    def prepare(self) -> Worker:
        """Makes everything that needs no descriptor and no loop; hooks that the app gets afterwards are not seen.

        `start` does it where it was not done. Done before a fork, its memory is shared by all workers."""
        if not self._is_prepared:
            self._is_prepared = True
            self._flood_guard.start()
            self._pool = ThreadPool(self.config.threads, self.config.thread_queue)
            self._dispatch = Dispatch(self.app, self._pool)
            self._lifespan = Lifespan(self.app, self._pool)
            self._front = Front(self.app, self.config, self._dispatch, self._gate, self._expiry)
        return self

    async def start(self, listeners: Sequence[Listening], *, row: memoryview, serial: int = 0) -> None:
        """Runs the on_start hooks, then accepts from `listeners`, which stay the caller's.

        row: a writable memoryview of format "q" with an item for each of `counters.FIELDS`; the engine and the worker write
        their counters there.  serial: the number of this worker in the server's life, the upper part of connection ids.
        Raises StartFailed with a report of the hook that raised; nothing is left to stop then."""
        self._row, self.serial = row, serial
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.prepare()
        self._gate.open(row)
        self._dispatch.attach(self.loop)
        self._open_engine()
        try:
            await self._lifespan.start(self, stop_timeout_s=self.config.stop_timeout_s)
        except BaseException:
            self._close_engine()
            self._end()
            raise
        self._listeners = [*listeners, *self._listeners]
        self._is_accepting = True
        for listener in self._listeners:
            self._accept_from(listener)

    def listen(self, listener: Listening) -> None:
        """Accepts from this one too, as soon as it accepts at all; it stays the caller's."""
        self._listeners.append(listener)
        if self._is_accepting:
            self._accept_from(listener)

    def unlisten(self, fd: int) -> None:
        """Accepts no more from this listener; its owner may close it then."""
        self._listeners = [listener for listener in self._listeners if listener.fd != fd]
        if self._engine is not None:
            self._engine.unlisten(fd)

    def _accept_from(self, listener: Listening) -> None:
        context = self._certificates.context if self._certificates and listener.tls else None
        self._engine.listen(listener.fd, proxied=listener.proxied, tls=context)

    def share(self, workers: int) -> None:
        """So many workers share the limits of the server from now on, this one included."""
        self._gate.share(workers)

    def leave(self) -> None:
        """It is about to stop: `health_path` says so to load balancers, and everything else goes on."""
        if self._engine is not None:
            self._front.draining = True

    def stop_listening(self) -> None:
        """Accepts no more; who is connected stays. Their owner may close the listeners then."""
        if self._engine is not None:
            self._front.draining = True
            self._is_accepting = False
            self._engine.stop_listening()

    async def hand_over(self, sock: socket.socket) -> bool:
        """Accepts no more, and gives every connection that can move to the worker at the other end of `sock`.

        What cannot move is still here afterwards: `stop` drains it. False: the other worker is gone, and everything that it
        had not taken over goes on here, until this is called again or `stop`."""
        if self._engine is None:
            sock.close()
            return False
        self.stop_listening()
        self._settle_moves()
        async with self._giving:
            if self._engine is None:
                sock.close()
                return False
            began = time.monotonic()
            leaving = self._leave(sock, whole=True)
            if not await leaving.run(self.config.handover_timeout_s):
                self._leaving.remove(leaving)
                return False
        log.info("%d connections handed over in %.0f ms", leaving.moved, (time.monotonic() - began) * 1000)
        if not leaving.room:
            log.warning("the other worker has no descriptors left for more connections; raise the limit of open files")
        return True

    async def give(self, sock: socket.socket, count: int | None = None, *, accepting: bool = True) -> int:
        """Gives `count` connections (None: as many as there are) that can move to the worker at the other end of `sock`, and
        goes on with the rest; how many have moved.

        Stay: what cannot move, what the other has no room for, and what it had not taken over when it was lost. accepting: False:
        takes no new ones from now on."""
        if self._engine is not None and not accepting:
            self.stop_listening()
        async with self._giving:
            # Who gives while it takes would have to pass publications on, from one side to the other.
            await self._until(lambda: not any(each.is_busy for each in self._arriving), time.monotonic() + self.config.handover_timeout_s)
            if self._engine is None or self._is_ending:
                sock.close()
                return 0
            if count is None and accepting:  # those who come meanwhile stay, or this would have no end
                count = self._held
            leaving = self._leave(sock, whole=False)
            try:
                await leaving.run(self.config.handover_timeout_s, count)
            finally:
                self._leaving.remove(leaving)
            return leaving.moved

    def take_over(self, sock: socket.socket) -> None:
        """Takes what the worker at the other end of `sock` gives, by `hand_over` for as long as it lives, or by `give`."""
        if self._engine is None:
            sock.close()
            return
        self._arriving = [each for each in self._arriving if not each.is_over]
        self._arriving.append(
            Arriving(self._engine, self.app, self._front.endpoints, self._expiry, sock, room=self._room, nobody=self._front.nobody)
        )

    def _leave(self, sock: socket.socket, *, whole: bool) -> Leaving:
        leaving = Leaving(self._engine, self.app, self._front.endpoints, self._expiry, sock, whole=whole)
        if self._is_stopping:
            leaving.halt()
        self._leaving.append(leaving)
        return leaving

    def _settle_moves(self) -> None:
        """This worker ends: what it gives goes elsewhere from now on, and what others would give it stays with them."""
        self._is_ending = True
        for leaving in self._leaving:
            leaving.halt()
        for arriving in self._arriving:
            if not arriving.whole:
                arriving.end()

    @property
    def _moves(self) -> list[Leaving | Arriving]:
        return [*self._leaving, *self._arriving]

    @property
    def _held(self) -> int:
        return self._row[INDEX["connections_open"]] + self._row[INDEX["handshakes_pending"]]

    def _room(self, coming: int, *, whole: bool) -> int:
        """For how many connections there is room besides `coming`, of all that another worker has or of some.

        A successor takes what its predecessor had, whatever the settings say of new ones. Nothing is taken while giving."""
        held = self._held + coming
        if whole:
            return descriptors_left(held=held, spare=1)
        if self._is_ending or self._giving.locked():
            return 0
        most = self.config.max_connections
        return min(descriptors_left(held=held, spare=SPARE), max(0, most - held) if most else EVERYONE)

    async def stop(self, code: int = GOING_AWAY, reason: str = "server is stopping") -> None:
        """Accepts no more, closes every connection in paced batches, runs on_stop, frees everything.

        Connections, coroutines and blocking calls that are not through at `stop_timeout_s` (or at `cut`) are cut;
        a connection's on_close is called even then."""
        if self._engine is None:  # it never started, or has stopped
            return
        deadline = time.monotonic() + self.config.stop_timeout_s
        self._is_stopping = True
        self.stop_listening()
        self._settle_moves()
        await self._until(lambda: not self._engine.departing, deadline)
        await self._until(lambda: not self._row[INDEX["handshakes_pending"]], min(deadline, time.monotonic() + HANDSHAKES_S))
        await self._drain(code, reason, deadline)
        await self._until(lambda: self._dispatch.is_idle, deadline)
        await self._cancel_pending()
        self._close_engine()
        await self._until(lambda: self._dispatch.is_idle, deadline)  # the last on_close hooks
        await self._grace(lambda: self._dispatch.is_idle)
        await self._cancel_pending()
        await self._lifespan.stop(self, timeout_s=max(deadline - time.monotonic(), GRACE_S))
        self._end()

    def cut(self) -> None:
        """Abandons the paced drain at once: for a second signal."""
        self._cut = True

    def broadcast(
        self,
        message: str | bytes | bytearray | memoryview,
        connections: Iterable[Any] | None = None,
        *,
        text: bool | None = None,
    ) -> int:
        """Sends one message to every open connection of this worker, or to those given; how many it was queued for.

        The frame is packed once. From another thread it waits for the loop."""
        reached: int = self._on_loop(lambda: self._broadcast(message, connections, text))
        return reached

    def expire_at(self, connection: Any, at: float | None) -> None:
        """Closes a connection of this worker at unix time `at` with 1008 and `Cause.EXPIRED`; None: never.

        The last call counts, so this is how a renewed token moves what `Accept.expires_at` said."""
        self._on_loop(lambda: self._expiry.set(connection, at))

    @property
    def connections(self) -> list[Any]:
        """Every open connection of this worker, now."""
        held: list[Any] = self._on_loop(lambda: [] if self._engine is None else self._engine.connections())
        return held

    def _broadcast(self, message: Any, connections: Iterable[Any] | None, text: bool | None) -> int:
        if self._engine is None:
            return 0
        reached: int = self._engine.broadcast(message, connections, text=text)
        if connections is None:  # a reload is under way: everybody is here or there
            for side in self._moves:
                if not side.is_over:
                    side.publish(message, text)
        return reached

    def page(self, start: int, at_most: int) -> tuple[list[Any], int | None]:
        """Some of these connections: see `Engine.page`. From the loop's own thread."""
        found: tuple[list[Any], int | None] = ([], None) if self._engine is None else self._engine.page(start, at_most)
        return found

    @property
    def is_moving(self) -> bool:
        """Whether connections are on their way from this worker or to it: one may be found at neither end then."""
        return self._giving.locked() or any(isinstance(each, Arriving) and each.is_busy for each in self._moves)

    def find(self, id: int) -> Any | None:
        """The open connection with this id; from the loop's own thread."""
        return None if self._engine is None else self._engine.find(id)

    def _expire(self, connection: Any) -> None:
        if self._engine is not None and connection.is_open:
            self._engine.expire(connection)

    def _on_loop(self, call: Callable[[], Any]) -> Any:
        if threading.get_ident() == self._thread:
            return call()
        answer: Future[Any] = Future()
        self.loop.call_soon_threadsafe(fulfil, answer, call)
        return answer.result()

    def _open_engine(self) -> None:
        self._gate.guard(self._dispatch.endpoints)
        loop = self.loop
        self._engine = self._engine_class(self.config, self._front, self._row, self.serial, loop.call_soon, loop.call_soon_threadsafe)
        self._dispatch.serve(self._engine)
        loop.add_reader(self._engine.fileno(), self._engine.run)
        self._row[INDEX["native"]] = self.engine_name == "native"
        self._due = time.monotonic()
        self._tick()

    def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        self.loop.remove_reader(engine.fileno())
        engine.close()  # the on_close hooks of what was cut
        for each in self._moves:
            each.end()
        self._expiry.clear()
        self._dispatch.end()

    def _end(self) -> None:
        self._timer.cancel()
        self._flood_guard.stop()
        if unfinished := self._pool.close():
            log.warning("%d blocking calls had not finished when the worker stopped", unfinished)

    def _tick(self) -> None:
        now = time.monotonic()
        late_s = max(0.0, now - self._due)
        self._note(int(late_s * 1e6))
        # From the due time, not from now, so that lateness does not add up; ticks that were missed are left out.
        self._due += (int(late_s * TICKS_PER_S) + 1) / TICKS_PER_S
        self._timer = self.loop.call_later(max(0.0, self._due - now), self._tick)
        self._advise()
        self._flood_guard.tell(now)
        self._expiry.tick(time.time())
        if self._engine is not None:
            self._engine.tick()

    def _advise(self) -> None:
        if self._pressure is not None and self._pressure.is_needed:
            self._pressure.advise([self._row])
        self._gate.guard(self._dispatch.endpoints)

    def _note(self, lag_us: int) -> None:
        row = self._row
        row[INDEX["beat_ns"]] = time.monotonic_ns()
        row[INDEX["loop_lag_us"]] = lag_us
        row[INDEX["loop_lag_max_us"]] = max(lag_us, row[INDEX["loop_lag_max_us"]])
        row[INDEX["cpu_us"]] = time.process_time_ns() // 1000
        row[INDEX["threads_busy"]] = self._pool.pending
        LOOP_LAG.note(row, lag_us)

    async def _drain(self, code: int, reason: str, deadline: float) -> None:
        pause_s = max(self.config.drain_pause_s, POLL_S)
        farewell = Farewell(reason, self._row[INDEX["connections_open"]], self.config.retry_window_s)
        while self._close_batch(code, farewell):
            if self._cut or time.monotonic() >= deadline:
                self._engine.drain(code, reason, EVERYONE)  # they are cut, but not without a Close frame
                await asyncio.sleep(POLL_S)
                await self._grace(lambda: not self._row[INDEX["queued_bytes"]])
                return
            await self._until(lambda: False, min(deadline, time.monotonic() + pause_s))

    def _close_batch(self, code: int, farewell: Farewell) -> int:
        """Closes the next ones, as many as `drain_batch`; how many connections are left, those that close included."""
        left = 0
        for reason, number in farewell.parts(self.config.drain_batch):
            left = self._engine.drain(code, reason, number)
        return left

    async def _until(self, reached: Callable[[], bool], deadline: float) -> None:
        while not reached() and not self._cut and (left_s := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(POLL_S, left_s))

    async def _grace(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + GRACE_S
        while not reached() and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)

    async def _cancel_pending(self) -> None:
        await asyncio.sleep(0)  # a coroutine cancelled before its first step would never have been called
        if self._dispatch.tasks:
            self._dispatch.cancel()
            await self._grace(lambda: not self._dispatch.tasks)


def fulfil(answer: Future[Any], call: Callable[[], Any]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)
