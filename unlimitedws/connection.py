"""What a handler is handed: one open WebSocket connection.

Each engine brings its own class, made for speed; this one documents them, and `isinstance(conn, Connection)` holds
for both. It is for type hints and for reading: nobody makes one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Connection(ABC):
    """One WebSocket connection. Its methods may be called from any thread; its attributes stay valid after the close.

    The same connection is the same object for as long as somebody holds it, so it may be a key of a dict or a member of a
    set. Holding none costs nothing: an idle connection has no object at all, unless its `state` is set."""

    __slots__ = ()

    id: int
    """Unique in the whole life of the server, over all its workers; 64 bits, so write it into JSON as a string."""

    state: Any
    """Any object of the app, None at first; kept until the close."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path of the request: percent-decoded, without its query."""

    @property
    @abstractmethod
    def resumed(self) -> bool:
        """Whether it came from another process in a reload, so that `on_connect` greets no newcomer."""

    @property
    @abstractmethod
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on (RFC 6455, section 1.9); None: none."""

    @property
    @abstractmethod
    def remote_address(self) -> tuple[str, int] | str:
        """Host and port of the peer; of a peer in `trusted_proxies`, those of the client that it names (port 0 where it names none).

        The text "unix" for a peer on a Unix socket."""

    @property
    @abstractmethod
    def queued_bytes(self) -> int:
        """Output that the kernel has not taken yet, framing included; 0 after the close."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether messages can be sent: False from the first Close frame on, of either side."""

    @abstractmethod
    def send(self, message: str | bytes | bytearray | memoryview, *, text: bool | None = None) -> bool:
        """Queues one message: str as text, bytes as binary; `text` overrides which (the bytes must be UTF-8 then).

        True: queued, and the queue is under its high-water mark. False: queued but over it, dropped by the queue policy, or
        closed (`is_open` and `queued_bytes` tell which); the polite answer is to wait for `on_drain`. Never blocks and never
        raises for what a peer does; TypeError for other types, ValueError for text=True with bytes that are not UTF-8."""

    @abstractmethod
    def close(self, code: int = 1000, reason: str = "") -> None:
        """Starts the close handshake, after what is queued (RFC 6455, section 7.1.2); `on_close` follows when it is done.

        Does nothing on a closed connection. Raises ValueError for a code that may not be sent (section 7.4) or a reason over
        123 bytes of UTF-8."""

    @abstractmethod
    def abort(self) -> None:
        """Ends the TCP connection at once, without a Close frame; what is queued is lost."""

    @abstractmethod
    def ping(self, payload: bytes = b"") -> None:
        """Sends a Ping (RFC 6455, section 5.5.2). Raises ValueError for more than 125 bytes.

        Heartbeats go by themselves: this is for those who want one more."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        # The engines stand below this floor and may not be loaded, so they are known by name, not registered.
        if cls is Connection and any(is_of_an_engine(base) for base in other.__mro__):
            return True
        return NotImplemented


def is_of_an_engine(candidate: type) -> bool:
    return candidate.__name__ == "Connection" and candidate.__module__.startswith("unlimitedws.engine.")
