"""A `contract.Pipe` without a connection: what a Stream does with it is written down."""

from __future__ import annotations

from typing import Any

from unlimitedws.engine.contract import Refusal, Stream, Upgrade


class Pipe:
    """What an engine would give to `stream`. is_full: what `write` answers with False."""

    def __init__(self, remote_address: Any = ("192.0.2.1", 4000), tls: Any = None, waited_s: float = 0.0) -> None:
        self.remote_address = remote_address
        self.tls = tls
        self.waited_s = waited_s
        self.stream: Stream | None = None
        self.written = b""
        self.is_full = False
        self.is_paused = False
        self.verdict: Upgrade | Refusal | None = None
        self.ending: str | None = None  #: answer, restart, close, abort, lost
        self.rest = b""  #: what was given to `answer` or `restart`

    def carry(self, stream: Stream, *data: bytes) -> Pipe:
        """Begins a stream, and gives it what comes behind the head."""
        self.stream = stream
        stream.begin(self)
        for piece in data:
            self.receive(piece)
        return self

    def receive(self, data: bytes) -> None:
        if self.stream is not None:
            self.stream.received(data)

    def drain(self) -> None:
        self.is_full = False
        if self.stream is not None:
            self.stream.drained()

    def lose(self) -> None:
        """The peer goes."""
        self._end("lost")

    def write(self, data: bytes) -> bool:
        if self.stream is not None:
            self.written += data
        return not self.is_full

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def answer(self, verdict: Upgrade | Refusal, data: bytes = b"") -> None:
        if self._end("answer"):
            self.verdict, self.rest = verdict, data

    def restart(self, data: bytes = b"") -> None:
        if self._end("restart"):
            self.rest = data

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def _end(self, how: str) -> bool:
        stream, self.stream = self.stream, None
        if stream is None:
            return False
        self.ending = how
        stream.lost()
        return True
