"""A connection that is no WebSocket (yet), as its Stream uses it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from unlimitedws.wire.address import UNIX, Address

if TYPE_CHECKING:
    from unlimitedws.engine.contract import Refusal, Stream, Upgrade
    from unlimitedws.engine.portable.opening import Opening


class Pipe:
    """See `contract.Pipe`. One for each request; what it is asked for, `Opening` does."""

    __slots__ = ("_address", "engine", "fd", "has_ended", "id", "kept", "stream")

    def __init__(self, engine: Opening, fd: int) -> None:
        self.engine = engine
        self.fd = fd
        self.id = engine.table.ids[fd]
        self.stream: Stream | None = None  #: from `begin` to the end of it
        self.kept = b""  #: what came behind the head of a stream that paused
        self.has_ended = False  #: whether the stream was told that the peer ended its side
        self._address: Address = UNIX

    @property
    def _is_there(self) -> bool:
        ids = self.engine.table.ids
        return self.fd < len(ids) and ids[self.fd] == self.id

    @property
    def remote_address(self) -> Address:
        self.remember()
        return self._address

    def remember(self) -> None:
        """Takes the address, which is asked for even when the connection is over."""
        if self._is_there:
            self._address = self.engine.table.address(self.fd)

    @property
    def tls(self) -> Any:
        if not self._is_there or self.fd not in self.engine.tls:
            return None
        return self.engine.tls[self.fd].object

    @property
    def waited_s(self) -> float:
        return time.monotonic() - self.engine.table.since[self.fd] if self._is_there else 0.0

    def write(self, data: bytes) -> bool:
        return self.stream is None or self.engine.pipe_write(self, bytes(data))

    def pause(self) -> None:
        if self.stream is not None:
            self.engine.pipe_pause(self)

    def resume(self) -> None:
        if self.stream is not None:
            self.engine.pipe_resume(self)

    def answer(self, verdict: Upgrade | Refusal, data: bytes = b"") -> None:
        if self.stream is not None:
            self.engine.pipe_answer(self, verdict, bytes(data))

    def restart(self, data: bytes = b"") -> None:
        if self.stream is not None:
            self.engine.pipe_restart(self, bytes(data))

    def close(self) -> None:
        if self.stream is not None:
            self.engine.pipe_close(self)

    def abort(self) -> None:
        if self.stream is not None:
            self.engine.pipe_abort(self)
