"""The body of a request on its way in: unframed by h11, under a limit and a deadline, and read only when it is wanted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import h11

from unlimitedws.engine.contract import Pipe
from unlimitedws.http.request import BodyLost
from unlimitedws.wire.head import END

SLICE_BYTES = 2048
"""Given to h11 at once: 340 chunks of one byte, which take it 2 ms."""

TURN_S = 0.002
"""The longest that one body is read on without a pause for the others; at least one slice."""


class Body:
    """Collects the body of one request.

    failed: told status and reason of the answer to a body that cannot be read on.  completed: called when the request is
    whole.  limit_bytes: of the body, unframed.  timeout_s: from when it is wanted to when it is whole."""

    def __init__(
        self,
        protocol: h11.Connection,
        loop: asyncio.AbstractEventLoop,
        failed: Callable[[int, str], None],
        completed: Callable[[], None],
        *,
        limit_bytes: int,
        timeout_s: float,
    ) -> None:
        self._h11 = protocol
        self._loop = loop
        self._failed = failed
        self._completed = completed
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._pipe: Pipe | None = None
        self._data = bytearray()
        self._reader: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_wanted = False
        self.is_complete = False
        self._is_chunked = False
        self._last = b""
        self.held = b""  #: came before it was wanted, or behind it

    def begin(self, pipe: Pipe, head: bytes, announced: int) -> bool:
        """Takes the head of the request; False: it was answered. announced: its Content-Length."""
        self._pipe = pipe
        return self._feed(head) and self._fits(announced)

    @property
    def whole(self) -> bytes:
        return bytes(self._data)

    @property
    def rest(self) -> bytes:
        """What came behind it."""
        return bytes(self._h11.trailing_data[0]) + self.held

    def want(self) -> None:
        """Reads from now on; a client that waits for it is told so (RFC 9110, section 10.1.1)."""
        pipe = self._pipe
        if self._is_wanted or pipe is None:
            return
        self._is_wanted = True
        if self._h11.they_are_waiting_for_100_continue:
            pipe.write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b"")
        self._timer = self._loop.call_later(self._timeout_s, self._too_slow)
        self._read_on()

    async def wait(self) -> None:
        """Until it is whole. Raises BodyLost."""
        if self.is_complete:
            return
        if self._pipe is None:
            raise BodyLost("the body did not come whole")
        self._reader = self._reader or self._loop.create_future()
        await asyncio.shield(self._reader)

    def receive(self, data: bytes) -> None:
        self.held += data
        if self._is_wanted and not self.is_complete:
            self._read_on()
        elif self._pipe is not None:
            self._pipe.pause()  # no more of it

    def lost(self) -> None:
        self._pipe = None
        self._stop_timer()
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(BodyLost("the body did not come whole"))
            self._reader.exception()  # else asyncio complains where the route was cancelled meanwhile

    def _read_on(self) -> None:
        """Unframes what came, for `TURN_S` at most: chunks of one byte cost h11 a thousand times their sending."""
        until = time.monotonic() + TURN_S
        while self.held and not self.is_complete:
            if self._pipe is None:
                return
            if time.monotonic() > until:
                self._pipe.pause()
                self._loop.call_soon(self._read_on)
                return
            piece, self.held = self.held[:SLICE_BYTES], self.held[SLICE_BYTES:]
            if not self._feed(piece):
                return
        if self._pipe is not None:
            self._pipe.resume()

    def _feed(self, data: bytes) -> bool:
        """Takes bytes of the request; False: it was answered."""
        self._last = self._last[-len(END) :] + data
        try:
            self._h11.receive_data(data)
            while (event := self._h11.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Request):
                    self._is_chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
                elif isinstance(event, h11.Data):
                    self._data += event.data
                    if not self._fits(len(self._data)):
                        return False
                elif isinstance(event, h11.EndOfMessage):
                    if self._is_chunked and not self._ends_strictly():
                        raise h11.RemoteProtocolError("the last line does not end with CRLF")
                    self._end()
                    break
        except h11.RemoteProtocolError as error:
            self._fail(error.error_status_hint, "the body is not framed as HTTP/1.1 says")
            return False
        return True

    def _ends_strictly(self) -> bool:
        """Whether a chunked body ends as section 7.1 of RFC 9112 says. h11 takes a bare line feed there, and a proxy in front
        of us might not: what it passes on as the rest of the body would be the next request to us."""
        left = len(self._h11.trailing_data[0])
        return self._last[: len(self._last) - left].endswith(END)

    def _end(self) -> None:
        self.is_complete = True
        self._stop_timer()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self._is_wanted:
            self._completed()

    def _fits(self, size: int) -> bool:
        if size > self._limit_bytes:
            self._fail(413, f"the body is larger than {self._limit_bytes} bytes")
        return size <= self._limit_bytes

    def _too_slow(self) -> None:
        self._fail(408, f"the body did not come within {self._timeout_s:g} s")

    def _fail(self, status: int, why: str) -> None:
        self._stop_timer()
        self._failed(status, why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
