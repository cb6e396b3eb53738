"""The app's hooks as an engine calls them.

A plain hook is given to the engine as it is. An async or blocking one is wrapped: its connection is held while the
coroutine or the thread is at work, so that the next message waits, and released when it is done. on_close and on_drain
hold nothing: nothing follows the first, and the second answers no message.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from unlimitedws.app import App
from unlimitedws.engine.contract import Endpoint
from unlimitedws.functions import kind_of
from unlimitedws.handlers import Handlers
from unlimitedws.threads import ThreadPool, settle

log = logging.getLogger("unlimitedws.handlers")

HOLDING = frozenset({"on_connect", "on_message", "on_resume"})
CONNECTION_HOOKS = ("on_connect", "on_message", "on_close", "on_drain", "on_resume")

Call = Callable[..., object]


class Dispatch:
    """Wraps the hooks of an app for one engine, and keeps what is pending: coroutines and blocking calls.

    `endpoints` are made first, for the engine's front; then `attach(loop)`, and `serve(engine)` before the engine calls the
    first of them."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, app: App, pool: ThreadPool) -> None:
        self.pool = pool
        self.engine: Any = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.stopping = False
        self._stalled = False
        self._blocking: deque[int] = deque()  # endpoints whose messages go to threads
        self._room_at = pool.limit - max(1, pool.limit // 8)  # with less room, every call would stall and unstall
        self.endpoints = tuple(self._endpoint(number, handlers) for number, handlers in enumerate(app.endpoints))

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Coroutines run on this loop, and it is told of blocking calls that are done."""
        self.loop = loop
        self.pool.attach(loop)

    def serve(self, engine: Any) -> None:
        self.engine = engine

    def end(self) -> None:
        """Lets go of the engine: what finishes from now on is not told to it."""
        self.engine = None

    @property
    def is_idle(self) -> bool:
        return not self.tasks and not self.pool.pending

    def cancel(self) -> None:
        """Cancels every pending coroutine; a thread cannot be cancelled. From now on only closed connections are
        released: their on_close follows, whereas an open one would have its next message handled."""
        self.stopping = True
        for task in self.tasks:
            task.cancel()

    def spawn(self, awaitable: Any) -> asyncio.Task[Any]:
        """A task that a stop waits for, and cancels in the end; SystemExit in it ends the task alone."""
        task = self.loop.create_task(guarded(awaitable))
        self.tasks.add(task)
        task.add_done_callback(partial(self._ended, awaitable))
        return task

    def _ended(self, awaitable: Any, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if inspect.iscoroutine(awaitable):
            awaitable.close()  # cancelled before its first step, it would complain that nobody awaited it

    def run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """Calls a blocking function in a thread; its result is a future of the loop."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self.pool.submit(call, partial(self._run_done, future))
        return future

    def _run_done(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        settle(future, result, error)
        self._make_room()

    def _endpoint(self, number: int, handlers: Handlers) -> Endpoint:
        hook = handlers.hook("on_message")
        if hook is not None and kind_of(hook) == "blocking":
            self._blocking.append(number)
        return Endpoint(**{name: self._wrap(handlers, name) for name in CONNECTION_HOOKS})  # type: ignore[arg-type]  # no bool among them

    def _wrap(self, handlers: Handlers, name: str) -> Call | None:
        function = handlers.hook(name)
        if function is None:
            return None
        kind = kind_of(function)
        if kind == "async":
            return self._async(function, name, holds=name in HOLDING)
        if kind == "blocking":
            return self._threaded(function, name, holds=name in HOLDING)
        return function

    def _async(self, function: Call, name: str, *, holds: bool) -> Call:
        def call(connection: Any, *args: Any) -> None:
            awaitable = function(connection, *args)
            if not inspect.isawaitable(awaitable):  # a wrapper that ran the coroutine itself
                return
            if holds:
                self.engine.hold(connection)
            self.spawn(awaitable).add_done_callback(partial(self._task_done, connection, name, holds))

        return call

    def _task_done(self, connection: Any, name: str, holds: bool, task: asyncio.Task[Any]) -> None:
        self._done(connection, name, holds, error_of(task, cancelled_is_error=not self.stopping))

    def _threaded(self, function: Call, name: str, *, holds: bool) -> Call:
        def call(connection: Any, *args: Any) -> None:
            self.pool.submit(partial(function, connection, *args), partial(self._call_done, connection, name, holds))
            if holds:
                self.engine.hold(connection)
            if self.pool.is_full and not self._stalled:
                self._stall()

        return call

    def _call_done(self, connection: Any, name: str, holds: bool, _: Any, error: BaseException | None) -> None:
        self._done(connection, name, holds, error)
        self._make_room()

    def _done(self, connection: Any, name: str, holds: bool, error: BaseException | None) -> None:
        if self.engine is None:
            if error is not None:
                log.error("%s of connection %s failed after the stop", name, connection.id, exc_info=error)
            return
        if error is not None:
            self.engine.fail(connection, name, error)
        if holds and not (self.stopping and connection.is_open):
            self.engine.release(connection)

    def _stall(self) -> None:
        self._stalled = True
        for number in self._blocking:
            self.engine.stall(number)

    def _make_room(self) -> None:
        if self._stalled and self.pool.pending <= self._room_at:
            self._unstall()

    def _unstall(self) -> None:
        # The engine may hand over messages at once, so the pool may be full again in the middle of this.
        if self.engine is None:
            return
        self._stalled = False
        for _ in range(len(self._blocking)):
            if self._stalled:
                break
            number = self._blocking[0]
            self._blocking.rotate(-1)  # the next time another endpoint is first
            self.engine.unstall(number)


class Stopped(Exception):
    """A handler raised SystemExit, which would end the loop of everybody else."""


async def guarded(awaitable: Any) -> Any:
    try:
        return await awaitable
    except SystemExit as error:
        raise Stopped(f"SystemExit({error.code!r}) in a handler ends its connection, not the worker") from error


def error_of(task: asyncio.Task[Any], *, cancelled_is_error: bool) -> BaseException | None:
    if task.cancelled():
        return asyncio.CancelledError("the handler's coroutine was cancelled") if cancelled_is_error else None
    return task.exception()
