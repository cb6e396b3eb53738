"""A Front with everything it stands on but an engine, on the running loop."""

from __future__ import annotations

import asyncio
from array import array
from typing import Any

from tests.pipes import Pipe
from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine.counters import FIELDS
from unlimitedws.expiry import Expiry
from unlimitedws.front import Front
from unlimitedws.gate import Gate
from unlimitedws.threads import ThreadPool

WAIT_S = 30.0


class House:
    """`front` of one app, and what a test asks of it."""

    def __init__(self, given: Any, **settings: Any) -> None:
        self.config = Config(**settings)
        app = App.of(given)
        self.pool = ThreadPool(self.config.threads, self.config.thread_queue)
        self.work = Dispatch(app, self.pool)
        self.work.attach(asyncio.get_running_loop())
        self.row = memoryview(array("q", [0] * len(FIELDS)))
        self.expired: list[Any] = []
        self.expiry = Expiry(self.expired.append)
        gate = Gate(self.config)
        gate.open(self.row)
        self.front = Front(app, self.config, self.work, gate, self.expiry)

    def answer(self, head: bytes, *data: bytes, **facts: Any) -> Any:
        """The answer to a request: a verdict, or the `Pipe` of a stream that has begun."""
        pipe = Pipe(**facts)
        found = self.front.answer(head, pipe)
        return pipe.carry(found, *data) if hasattr(found, "begin") else found

    async def answered(self, head: bytes, *data: bytes, **facts: Any) -> Any:
        """The same, when it is there."""
        found = self.answer(head, *data, **facts)
        if not isinstance(found, Pipe):
            return found
        await self.until(lambda: found.ending)
        return found.verdict if found.ending == "answer" else found

    async def until(self, reached: Any) -> None:
        async with asyncio.timeout(WAIT_S):
            while not reached():
                await asyncio.sleep(0.001)

    async def idle(self) -> None:
        """Until nothing of the app runs any more."""
        await self.until(lambda: self.work.is_idle)
