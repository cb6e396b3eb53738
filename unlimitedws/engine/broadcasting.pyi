"""Types of the part of the native engine that broadcasts."""

from collections.abc import Iterable

from unlimitedws.engine.connection import Connection

class Broadcasting:
    """The part of `contract.Engine` that broadcasts; `native.Engine` is the whole."""

    def broadcast(
        self,
        message: str | bytes | bytearray | memoryview,
        connections: Iterable[Connection] | None = None,
        *,
        text: bool | None = None,
        departing: bool = True,
    ) -> int: ...
