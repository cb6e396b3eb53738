"""One plain HTTP request and its response, on h11.

h11 sees a single request: the connection then goes back to the engine (`Pipe.restart`), where the next head passes the
strict check of `wire.head` like the first one. A connection whose request was not read to its end is closed instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import h11

from unlimitedws import access
from unlimitedws.config import Config
from unlimitedws.dispatch import Dispatch
from unlimitedws.engine.contract import Pipe, Refusal
from unlimitedws.http.body import Body
from unlimitedws.http.reply import Reply, TooSlow, body_of, pieces_of, pieces_of_file, slices
from unlimitedws.http.request import BodyLost, HttpRequest
from unlimitedws.http.response import TEXT, Response, response_of
from unlimitedws.http.routes import Route
from unlimitedws.http.static import Found
from unlimitedws.logs import PATH_CHARACTERS, clean
from unlimitedws.turns import Turns

log = logging.getLogger("unlimitedws.handlers")

FAILED = Response("the server failed; its log says why\n", TEXT, 500)
WHOLE_BYTES = 64 * 1024
"""A body in memory up to this size leaves in one write; a larger one waits for its reader in between."""


class House(NamedTuple):
    """What all exchanges of a worker share."""

    config: Config
    work: Dispatch
    turns: Turns
    is_draining: Callable[[], bool]


class Exchange:
    """A `contract.Stream`. missing: the answer where the route returns None; without it, that is the route's mistake."""

    def __init__(self, head: bytes, path: str, origin: Any, route: Route, house: House, missing: Refusal | None = None) -> None:
        self._head = head
        self._path = path
        self._origin = origin
        self._route = route
        self._house = house
        self._missing = missing
        self._h11 = h11.Connection(h11.SERVER)
        self._pipe: Pipe | None = None
        self._half_closed = False
        self._start, self._goes_on = self._started, self._went_on  # bound once, because `turns` knows us by them
        self._is_running = False
        self._has_turn = False
        self._turn: asyncio.Future[None] | None = None

    # ---- the engine's side

    def begin(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._began = time.monotonic()
        config, work = self._house.config, self._house.work
        self._request = HttpRequest(
            self._head, remote_address=self._origin.address, tls=pipe.tls, path=self._path,
            scheme=self._origin.scheme or None, read=self._read,
        )  # fmt: skip
        bodiless = self._request.method == "HEAD"
        self._reply = Reply(pipe, self._h11, bodiless=bodiless, timeout_s=config.http_timeout_s, run=work.run)
        self._body = Body(
            self._h11, work.loop, self._fail, self._completed, limit_bytes=config.http_body_bytes, timeout_s=config.http_timeout_s
        )
        if not self._body.begin(pipe, self._head, self._announced()):
            return
        if self._body.is_complete or self._route.kind == "async":
            self._proceed()
        else:
            self._body.want()

    def received(self, data: bytes) -> None:
        self._body.receive(data)

    def drained(self) -> None:
        self._reply.drained()

    def ended(self) -> None:
        self._half_closed = True
        if not self._body.is_complete and self._pipe is not None:
            self._pipe.abort()

    def lost(self) -> None:
        self._pipe = None
        self._body.lost()
        self._reply.lost()
        if not self._is_running:
            self._house.turns.leave(self._start)

    # ---- the request

    def _announced(self) -> int:
        """The Content-Length, which may come twice if it says the same."""
        lengths = self._request.headers.get_all("content-length")
        return int(lengths[0]) if lengths else 0

    async def _read(self) -> bytes:
        """What `HttpRequest.body` gives to an async route."""
        if not self._body.is_complete:
            self._body.want()
        if not self._body.is_complete:
            self._give_turn_back()  # whoever sends slowly waits on his own time
            await self._body.wait()
            await self._take_turn()
        return self._body.whole

    def _completed(self) -> None:
        if self._route.kind != "async":  # which has begun already
            self._proceed()

    # ---- the route

    def _proceed(self) -> None:
        if self._route.kind != "async":
            self._request.body_bytes = self._body.whole
        if self._route.kind == "plain":
            self._answer_inline()
        else:
            self._house.turns.take(self._start)

    def _answer_inline(self) -> None:
        try:
            result = self._route.call(self._request)
            if not self._answer_at_once(result):
                self._house.work.spawn(self._answer(result))
        except (Exception, SystemExit) as error:
            self._route_failed(error)

    def _started(self) -> None:
        self._is_running = self._has_turn = True
        self._house.work.spawn(self._called()).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._house.turns.leave(self._goes_on)
        self._give_turn_back()

    def _give_turn_back(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._house.turns.give_back()

    async def _take_turn(self) -> None:
        """Waits for a turn once more; once for all that a route reads its body at the same time."""
        if self._turn is None:
            self._turn = self._house.work.loop.create_future()
            self._house.turns.take(self._goes_on)
        await asyncio.shield(self._turn)

    def _went_on(self) -> None:
        self._has_turn = True
        if self._turn is not None:
            self._turn.set_result(None)

    async def _called(self) -> None:
        call = self._route.call
        try:
            result = await (call(self._request) if self._route.kind == "async" else self._house.work.run(lambda: call(self._request)))
        except (Exception, SystemExit) as error:
            self._route_failed(error)
        else:
            self._give_turn_back()  # whoever reads slowly, too
            await self._answer(result)

    async def _answer(self, result: Any) -> None:
        try:
            if not self._answer_at_once(result):
                found = result if isinstance(result, Found) else response_of(result)
                await self._stream(found)
                self._finish(found)
        except (Exception, SystemExit) as error:
            self._route_failed(error)

    # ---- the response

    def _answer_at_once(self, result: Any) -> bool:
        """Sends what is small and in memory; False: it is to be streamed. Raises TypeError, ValueError."""
        if self._pipe is None:
            discard(result)
            return True
        if result is None and self._missing is not None:
            if self._house.config.access_log:
                access.refused(self._head, self._request.remote_address, self._missing, time.monotonic() - self._began)
            self._pipe.answer(self._missing)
            return True
        if isinstance(result, Found):
            return False
        response = response_of(result)
        body = response.body.encode() if isinstance(response.body, str) else response.body
        if not isinstance(body, bytes) or len(body) > WHOLE_BYTES:
            return False
        self._reply.whole(response, body, closes=self._closes)
        self._finish(response)
        return True

    async def _stream(self, result: Response | Found) -> None:
        body = result if isinstance(result, Found) else body_of(result)
        run = self._house.work.run
        if isinstance(body, Found):
            try:
                pieces = pieces_of_file(body.file, body.start, body.size, run)
                await self._reply.stream(body.response, pieces, size=body.size, closes=self._closes)
            finally:
                body.file.close()
            return
        assert isinstance(result, Response)
        if isinstance(body, bytes):
            await self._reply.stream(result, pieces_of(slices(body), None), size=len(body), closes=self._closes)
        else:
            pieces = pieces_of(body, run if self._route.kind == "blocking" else None)
            await self._reply.stream(result, pieces, size=None, closes=self._closes)

    @property
    def _closes(self) -> bool:
        """Whether this connection ends with its response."""
        return not self._body.is_complete or self._half_closed or self._house.is_draining()

    def _finish(self, result: Response | Found) -> None:
        pipe = self._pipe
        if pipe is None:
            return
        response = result.response if isinstance(result, Found) else result
        if self._house.config.access_log:
            seconds = time.monotonic() - self._began
            access.http_answered(self._request.method, self._path, self._request.remote_address, response.status, self._reply.sent, seconds)
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            pipe.restart(self._body.rest)
        else:
            pipe.close()

    def _route_failed(self, error: BaseException) -> None:
        if isinstance(error, BodyLost) or self._pipe is None:
            return
        if isinstance(error, TooSlow):
            self._pipe.abort()
            return
        log.error("%s %s (%s) failed", self._request.method, clean(self._path[:PATH_CHARACTERS]), self._route.name, exc_info=error)
        if self._reply.is_begun:
            self._pipe.abort()  # half a response: the peer must not take it for a whole one
        else:
            self._reply.whole(FAILED, FAILED.body.encode(), closes=self._closes)  # type: ignore[union-attr]  # it is str
            self._finish(FAILED)

    def _fail(self, status: int, why: str) -> None:
        """Answers a request that cannot be read on, and ends the connection."""
        if self._pipe is None:
            return
        if self._reply.is_begun:
            self._pipe.abort()
            return
        response = Response(why + "\n", TEXT, status)
        self._reply.whole(response, (why + "\n").encode(), closes=True)
        self._finish(response)


def discard(result: Any) -> None:
    if isinstance(result, Found):
        result.file.close()
