"""The echo with a plain hook that reads a cookie."""

from __future__ import annotations

from typing import Any

from unlimitedws import Accept, Handlers, Reject, Request

handlers = Handlers()


@handlers.on_upgrade
def allow(request: Request) -> Accept | Reject | None:
    return None if request.cookies.get("session") else Reject(401)


@handlers.on_message
def echo(conn: Any, message: str | bytes) -> None:
    conn.send(message)
