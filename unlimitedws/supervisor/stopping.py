"""That the server stops. Nothing of it is cancelled, as then a process could be forked that nobody watches: every wait ends
instead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable


class Stopping(asyncio.Event):
    """Set when the workers are told to stop."""

    async def pause(self, seconds: float) -> None:
        """Waits so long, or until the server stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), seconds)

    async def either(self, awaitable: Awaitable[object]) -> None:
        """Waits for this, or until the server stops."""
        waits = [asyncio.ensure_future(awaitable), asyncio.ensure_future(self.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
