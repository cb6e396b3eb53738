"""on_start and on_stop: once for each distinct Handlers in a worker, in order and in reverse order."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from unlimitedws.app import App
from unlimitedws.blame import report
from unlimitedws.errors import StartFailed
from unlimitedws.functions import kind_of, name_of
from unlimitedws.handlers import Handlers
from unlimitedws.threads import ThreadPool

log = logging.getLogger("unlimitedws.handlers")


class Lifespan:
    """Runs the start hooks that an app has now and its stop hooks; remembers which have started."""

    def __init__(self, app: App, pool: ThreadPool) -> None:
        self._pool = pool
        self._hooks = [(handlers, handlers.hook("on_start")) for handlers in app.endpoints]
        self._started: list[Handlers] = []

    async def start(self, worker: Any, *, stop_timeout_s: float) -> None:
        """Runs every on_start. When one raises, those before it are stopped again and StartFailed is raised."""
        for handlers, hook in self._hooks:
            try:
                if hook is not None:
                    await self._run(hook, worker)
            except asyncio.CancelledError:  # told to stop before it had started
                await self.stop(worker, timeout_s=stop_timeout_s)
                raise
            except (Exception, SystemExit) as error:
                await self.stop(worker, timeout_s=stop_timeout_s)
                raise StartFailed(f"{name_of(hook)}:\n{report(error)}") from error
            self._started.append(handlers)

    async def stop(self, worker: Any, *, timeout_s: float) -> None:
        """Runs every on_stop of what has started, the last first, each for at most `timeout_s`. Failures are logged."""
        while self._started:
            hook = self._started.pop().hook("on_stop")  # asked now: on_start may have registered it
            if hook is None:
                continue
            await self._stop_one(hook, worker, timeout_s)

    async def _stop_one(self, hook: Callable[..., Any], worker: Any, timeout_s: float) -> None:
        try:
            # Not `wait_for`: SystemExit would leave its task, and end the loop.
            async with asyncio.timeout(timeout_s) as limit:
                await self._run(hook, worker)
        except asyncio.CancelledError:
            raise
        except (Exception, SystemExit) as error:
            if limit.expired():
                log.error("on_stop (%s) took longer than %.1f s and was given up", name_of(hook), timeout_s)
            else:
                log.error("on_stop (%s) failed:\n%s", name_of(hook), report(error))

    async def _run(self, hook: Callable[..., Any], worker: Any) -> None:
        if kind_of(hook) == "blocking":
            await self._pool.run(partial(hook, worker))
            return
        result = hook(worker)
        if inspect.isawaitable(result):
            await result
