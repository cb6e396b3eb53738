"""Types of the half of the native engine that sends."""

from collections.abc import Iterable

from unlimitedws.engine.connection import Connection

class Sender:
    """The part of `contract.Engine` that sends; `native.Engine` is the whole."""

    def broadcast(
        self,
        message: str | bytes | bytearray | memoryview,
        connections: Iterable[Connection] | None = None,
        *,
        text: bool | None = None,
        departing: bool = True,
    ) -> int: ...
