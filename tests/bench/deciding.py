"""The echo with an async hook that takes 10 ms."""

from __future__ import annotations

import asyncio
from typing import Any

from unlimitedws import Handlers, Request

handlers = Handlers()


@handlers.on_upgrade
async def allow(request: Request) -> None:
    await asyncio.sleep(0.01)


@handlers.on_message
def echo(conn: Any, message: str | bytes) -> None:
    conn.send(message)
