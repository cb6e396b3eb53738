"""The body of a request on its way in: unframed by h11, under a limit and a deadline, and read only when it is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11

from unlimitedws.engine.contract import Pipe
from unlimitedws.http.request import BodyLost


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
        self.held = b""  #: came before it was wanted, or behind it

    def begin(self, pipe: Pipe, head: bytes, announced: int) -> bool:
        """Takes the head of the request; False: it was answered. announced: its Content-Length."""
        self._pipe = pipe
        return self._feed(head) and self._fits(announced)

    @property
    def whole(self) -> bytes:
        return bytes(self._data)

    def want(self) -> None:
        """Reads from now on; a client that waits for it is told so (RFC 9110, section 10.1.1)."""
        pipe = self._pipe
        if self._is_wanted or pipe is None:
            return
        self._is_wanted = True
        if self._h11.they_are_waiting_for_100_continue:
            pipe.write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b"")
        self._timer = self._loop.call_later(self._timeout_s, self._too_slow)
        held, self.held = self.held, b""
        if not held or self._feed(held):
            pipe.resume()

    async def wait(self) -> None:
        """Until it is whole. Raises BodyLost."""
        if self.is_complete:
            return
        if self._pipe is None:
            raise BodyLost("the body did not come whole")
        self._reader = self._reader or self._loop.create_future()
        await asyncio.shield(self._reader)

    def receive(self, data: bytes) -> None:
        if self._is_wanted and not self.is_complete:
            self._feed(data)
            return
        self.held += data
        if self._pipe is not None:
            self._pipe.pause()  # no more of it

    def lost(self) -> None:
        self._pipe = None
        self._stop_timer()
        if self._reader is not None and not self._reader.done():
            self._reader.set_exception(BodyLost("the body did not come whole"))
            self._reader.exception()  # else asyncio complains where the route was cancelled meanwhile

    def _feed(self, data: bytes) -> bool:
        """Takes bytes of the request; False: it was answered."""
        try:
            self._h11.receive_data(data)
            while (event := self._h11.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
                if isinstance(event, h11.Data):
                    self._data += event.data
                    if not self._fits(len(self._data)):
                        return False
                elif isinstance(event, h11.EndOfMessage):
                    self._end()
                    break
        except h11.RemoteProtocolError as error:
            self._fail(error.error_status_hint, "the body is not framed as HTTP/1.1 says")
            return False
        return True

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
