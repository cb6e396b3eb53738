"""What the app says to a connection that is on its way to another engine: kept until it is known where it goes on, and said
there, in its order. So a message to a client that moves is neither lost nor early."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Said = tuple[Any, ...]
"""`send`, message, text; `ping`, payload; `close`, code, reason; `abort`; `expire`."""


def say_again(engine: Any, connection: Any, said: Iterable[Said]) -> None:
    """Says it, for as long as the connection is open."""
    for what, *arguments in said:
        if what == "send":
            message, text = arguments
            connection.send(message, text=text)
        elif what == "expire":
            engine.expire(connection)
        else:
            getattr(connection, what)(*arguments)
