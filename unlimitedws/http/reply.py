"""A response on its way out: framed by h11, and no faster than the peer reads."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import h11

from unlimitedws.engine.contract import Pipe
from unlimitedws.http.files import READ_BYTES, File
from unlimitedws.http.response import BODILESS, Response
from unlimitedws.http.static import Found
from unlimitedws.verdict import phrase

Run = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls a blocking function in a thread."""

END = object()

TURN_S = 0.005
"""The longest one response is made without a pause."""


class PeerGone(ConnectionError):
    """The peer went before it had read the response."""


class TooSlow(ConnectionError):
    """The peer took too long to read a part of the response."""


class Reply:
    """Writes one response to one request.

    timeout_s: how long a peer may take to make room for more.  run: for what reads a disk, or was marked blocking."""

    def __init__(self, pipe: Pipe, protocol: h11.Connection, *, bodiless: bool, timeout_s: float, run: Run) -> None:
        self._pipe = pipe
        self._h11 = protocol
        self._bodiless = bodiless
        self._timeout_s = timeout_s
        self._run = run
        self._room: asyncio.Future[None] | None = None
        self._is_full = False
        self._gone = False
        self._until = 0.0  # the loop's others have their turn then
        self.sent = 0  #: bytes of the body

    @property
    def is_begun(self) -> bool:
        return self._h11.our_state is not h11.SEND_RESPONSE and self._h11.our_state is not h11.IDLE

    def whole(self, response: Response, body: bytes, *, closes: bool) -> None:
        """A response that is in memory, in one write."""
        # Gone without a body of its own: 204, 304, and what answers HEAD (RFC 9110, section 6.4.1).
        length = [] if response.status == 204 or (response.status == 304 and not body) else [("Content-Length", str(len(body)))]
        packed = self._head(response, length, closes)
        if not self._is_bodiless(response) and body:
            packed += self._packed(h11.Data(data=body))
            self.sent = len(body)
        self._write(packed + self._packed(h11.EndOfMessage()))

    async def stream(self, response: Response, pieces: AsyncGenerator[bytes, None], *, size: int | None, closes: bool) -> None:
        """A response piece by piece. size: of them all, where it is known. Raises PeerGone, TooSlow, and what `pieces` raises."""
        length = [] if size is None or response.status == 204 else [("Content-Length", str(size))]
        async with aclosing(pieces):
            self._write(self._head(response, length, closes))
            if not self._is_bodiless(response):
                async for piece in pieces:
                    await self._send(piece)
        self._write(self._packed(h11.EndOfMessage()))
        await self._has_room()

    async def _send(self, piece: bytes) -> None:
        if time.monotonic() > self._until:  # an iterator that never waits, with a peer that always reads
            await asyncio.sleep(0)
            self._until = time.monotonic() + TURN_S
        if piece:
            await self._has_room()
            self._write(self._packed(h11.Data(data=piece)))
            self.sent += len(piece)

    def drained(self) -> None:
        self._is_full = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def lost(self) -> None:
        self._gone = True
        if self._room is not None and not self._room.done():
            self._room.set_exception(PeerGone("the peer went before it had read the response"))
            self._room.exception()  # else asyncio complains where the route was cancelled meanwhile

    def _is_bodiless(self, response: Response) -> bool:
        return self._bodiless or response.status in BODILESS

    def _head(self, response: Response, length: list[tuple[str, str]], closes: bool) -> bytes:
        closing = [("Connection", "close")] if closes else []
        headers = [*response.lines, *length, ("Date", formatdate(usegmt=True)), *closing]
        return self._packed(h11.Response(status_code=response.status, reason=phrase(response.status), headers=headers))

    def _packed(self, event: Any) -> bytes:
        return self._h11.send(event) or b""

    def _write(self, data: bytes) -> None:
        if self._gone:
            raise PeerGone("the peer went before it had read the response")
        if data and not self._pipe.write(data):
            self._is_full = True

    async def _has_room(self) -> None:
        """Waits until the peer has read on. Raises PeerGone, TooSlow."""
        if self._is_full and not self._gone:
            self._room = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._room
            except TimeoutError:
                raise TooSlow("the peer took too long to read the response") from None


async def pieces_of(body: Any, run: Run | None) -> AsyncGenerator[bytes, None]:
    """The pieces of an iterable, async or not, as bytes; the iterator is closed at the end, whatever happened.

    run: makes each piece in a thread. Raises TypeError for a piece that is neither str nor bytes."""
    iterator = body.__aiter__() if hasattr(body, "__aiter__") else iter(body)
    try:
        while (piece := await next_of(iterator, run)) is not END:
            yield octets(piece)
    finally:
        await closed(iterator, run)


async def next_of(iterator: Any, run: Run | None) -> Any:
    if hasattr(iterator, "__anext__"):
        return await anext(iterator, END)
    if run is None:
        return next(iterator, END)
    return await run(lambda: next(iterator, END))


async def closed(iterator: Any, run: Run | None) -> None:
    """Runs what a generator has to do at its end, rather than whenever it is collected."""
    if hasattr(iterator, "aclose"):
        await iterator.aclose()
    elif inspect.isgenerator(iterator):
        await run(iterator.close) if run is not None else iterator.close()


def octets(piece: Any) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise TypeError(f"a piece of a response is str or bytes, not {type(piece).__name__}")


async def pieces_of_file(file: File, start: int, size: int, run: Run) -> AsyncGenerator[bytes, None]:
    """Exactly `size` bytes of a file. Raises OSError where it has fewer now."""
    end = start + size
    while start < end:
        piece = await run(partial(file.read, start, min(READ_BYTES, end - start)))
        if not piece:
            raise OSError("the file became shorter while it was sent")
        start += len(piece)
        yield piece


def slices(body: bytes) -> Iterator[bytes]:
    return (body[at : at + READ_BYTES] for at in range(0, len(body), READ_BYTES))


def body_of(response: Response) -> bytes | Found | Iterable[Any] | Any:
    """What of a response is to be sent: bytes, an open file, or an iterable. Raises OSError."""
    body = response.body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, Path):
        file = File(body)
        return Found(response, file, 0, file.size)
    return body
