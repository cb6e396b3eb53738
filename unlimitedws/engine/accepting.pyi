"""Types of the half of the native engine that takes new connections."""

from collections.abc import Callable
from ssl import SSLContext

from unlimitedws.engine.moving import Moving

class Accepting(Moving):
    """The part of `contract.Engine` that accepts; `native.Engine` is the whole."""

    def listen(self, fd: int, *, proxied: bool = False, tls: Callable[[], SSLContext] | None = None) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def stop_listening(self) -> None: ...
