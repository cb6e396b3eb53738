"""A bounded pool of threads for handlers that block.

Not `concurrent.futures.ThreadPoolExecutor`: its queue has no bound, and the interpreter waits at its exit for a call that
never returns. Here a call that is stuck ends with the process.

What is done is told to the loop in batches: one wake-up brings back every call that has finished meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

log = logging.getLogger("unlimitedws.threads")

Done = Callable[[Any, BaseException | None], None]
Job = tuple[Callable[[], Any], Done]


class ThreadPool:
    """Runs calls in at most `threads` daemon threads, started when needed; used from the loop's thread alone, after `attach`.

    `pending` is the number of calls running or queued; at `limit` the pool is full. Being full is told, not
    enforced: some calls must not be lost (on_close), and who asks for more is its owner's to hold back."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, threads: int, queue: int) -> None:
        self.size = threads
        self.limit = threads + queue
        self.pending = 0
        self._started = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._finished: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._woken = False
        self._closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """This loop is told of what is done."""
        self._loop = loop

    @property
    def is_full(self) -> bool:
        return self.pending >= self.limit

    def submit(self, call: Callable[[], Any], done: Done) -> None:
        """Queues `call`; `done(result, error)` follows on the loop, one of the two being None.

        Raises RuntimeError when the pool is closed, or when the machine has not one thread to give."""
        if self._closed:
            raise RuntimeError("the thread pool is closed")
        if self._started < min(self.pending + 1, self.size):
            self._start_thread()
        self.pending += 1
        self._jobs.put((call, done))

    def run(self, call: Callable[[], Any]) -> asyncio.Future[Any]:
        """`call` in a thread, as a future of the loop."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.submit(call, partial(settle, future))
        return future

    def close(self) -> int:
        """Ends the threads when they are through with what they run; how many calls never finished.

        A call still running then finishes unheard; one that was queued is not begun."""
        self._closed = True
        with suppress(Exception):  # queue.Empty
            while True:
                self._jobs.get_nowait()
        for _ in range(self._started):
            self._jobs.put(None)
        return self.pending

    def _start_thread(self) -> None:
        try:
            Thread(target=self._work, name=f"unlimitedws-blocking-{self._started + 1}", daemon=True).start()
        except RuntimeError:
            if not self._started:
                raise
            log.warning("no more threads to be had: going on with %d of %d (check ulimit -u)", self._started, self.size)
            self.size = self._started
        else:
            self._started += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, done = job
            try:
                result, error = call(), None
            except BaseException as raised:  # SystemExit too: a handler ends its connection, not the worker
                result, error = None, raised
            self._finished.append((done, result, error))
            self._wake()
            del job, call, done, result, error  # an idle thread keeps no connection alive

    def _wake(self) -> None:
        # Appended before looked at here, cleared before taken there: so nothing finished goes unseen.
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._finished:
            done, result, error = self._finished.popleft()
            self.pending -= 1
            try:
                done(result, error)
            except Exception:
                log.exception("what follows a blocking call failed")


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled meanwhile
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error if fits_future(error) else wrapped(error))


def fits_future(error: BaseException) -> bool:
    """A future takes no StopIteration, and SystemExit would leave the loop and end it."""
    return isinstance(error, Exception) and not isinstance(error, StopIteration)


def wrapped(error: BaseException) -> RuntimeError:
    wrapper = RuntimeError(f"a blocking call raised {error!r}")
    wrapper.__cause__ = error
    return wrapper
