"""An on_upgrade hook that takes its time: the connection waits for its verdict, and nobody else does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from unlimitedws.dispatch import error_of
from unlimitedws.engine.contract import Pipe, Refusal, Upgrade
from unlimitedws.turns import Turns
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.handshake import refusal

TOO_LATE = refusal(503, "the server took too long to decide; try again later", cause=Cause.HANDSHAKE_TIMEOUT)


class Work(Protocol):
    """What runs coroutines: `Dispatch`."""

    loop: asyncio.AbstractEventLoop

    def spawn(self, awaitable: Awaitable[Any]) -> asyncio.Task[Any]: ...


class Deciding:
    """A `contract.Stream` for one handshake whose hook is async or blocking.

    call: calls the hook; what it gives is awaited when the handshake has its turn.  conclude: the answer to what the
    hook returned (result, None) or raised (None, error); never raises.  timeout_s: from when the connection came, or its
    next request began, to the verdict, waiting for the turn included; beyond it, 503.  cancels: whether the hook is cancelled
    when the peer has gone; a thread cannot be, and keeps its turn until it is through.  refused: told of a refusal, and the
    seconds it took.

    Meanwhile nothing is read: the first frames wait in the kernel, but for those that came with the head."""

    def __init__(
        self,
        call: Callable[[], Awaitable[Any]],
        conclude: Callable[[Any, BaseException | None], Upgrade | Refusal],
        *,
        work: Work,
        turns: Turns,
        timeout_s: float,
        cancels: bool,
        refused: Callable[[Refusal, float], None] | None = None,
    ) -> None:
        self._call = call
        self._conclude = conclude
        self._work = work
        self._turns = turns
        self._timeout_s = timeout_s
        self._cancels = cancels
        self._refused = refused
        self._pipe: Pipe | None = None
        self._task: asyncio.Task[Any] | None = None
        self._start = self._started  # one bound method, by which `turns` knows us
        self._data = b""

    def begin(self, pipe: Pipe) -> None:
        self._pipe = pipe
        pipe.pause()
        self._began = time.monotonic()
        self._timer = self._work.loop.call_later(max(0.0, self._timeout_s - pipe.waited_s), self._too_late)
        self._turns.take(self._start)

    def received(self, data: bytes) -> None:
        self._data += data  # what was on its way when we paused: at most one receive buffer

    def drained(self) -> None:
        """Nothing was written that could drain."""

    def ended(self) -> None:
        # A WebSocket needs both directions: a peer that sends no more can only want to be gone.
        if self._pipe is not None:
            self._pipe.abort()

    def lost(self) -> None:
        self._pipe = None
        self._data = b""
        self._timer.cancel()
        if self._task is None:
            self._turns.leave(self._start)
        elif self._cancels:
            self._task.cancel()

    def _started(self) -> None:
        self._task = self._work.spawn(self._called())
        self._task.add_done_callback(self._decided)

    async def _called(self) -> Any:
        return await self._call()

    def _decided(self, task: asyncio.Task[Any]) -> None:
        error = error_of(task, cancelled_is_error=self._pipe is not None)
        try:
            if self._pipe is not None:
                self._answer(self._conclude(None if error or task.cancelled() else task.result(), error))
        finally:
            self._turns.give_back()

    def _too_late(self) -> None:
        self._answer(TOO_LATE)

    def _answer(self, verdict: Upgrade | Refusal) -> None:
        if self._pipe is None:
            return
        if self._refused is not None and isinstance(verdict, Refusal):
            self._refused(verdict, time.monotonic() - self._began)
        self._pipe.answer(verdict, self._data)
