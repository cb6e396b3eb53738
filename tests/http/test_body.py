"""The reader of bodies, where `test_exchange` does not reach."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import h11
import pytest

from tests.http.asking import plain
from tests.pipes import Pipe
from unlimitedws.http.body import Body
from unlimitedws.http.request import BodyLost


class Reading(Pipe):
    """A pipe whose body is read without a stream of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.failed: list[tuple[int, str]] = []
        self.completed = 0

    def write(self, data: bytes) -> bool:
        self.written += data
        return True

    def complete(self) -> None:
        self.completed += 1

    def body(self, *headers: str, limit: int = 100, timeout_s: float = 10.0) -> Body:
        head = plain("POST", "/", *headers)
        body = Body(
            h11.Connection(h11.SERVER), asyncio.get_running_loop(), lambda *why: self.failed.append(why), self.complete,
            limit_bytes=limit, timeout_s=timeout_s,
        )  # fmt: skip
        assert body.begin(self, head, 0)
        return body


def run(scene: Any) -> None:
    asyncio.run(scene())


def test_a_request_without_a_body_is_whole_at_once_and_completes_nothing() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body()
        assert (body.is_complete, body.whole, pipe.completed) == (True, b"", 0)

    run(scene)


def test_wanting_it_twice_asks_for_it_once() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body("Content-Length: 2", "Expect: 100-continue")
        body.want()
        body.want()
        assert pipe.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        body.receive(b"ab")
        await body.wait()
        assert (body.whole, pipe.completed, pipe.failed) == (b"ab", 1, [])

    run(scene)


def test_nothing_is_asked_for_of_a_client_that_sends_already() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body("Content-Length: 2", "Expect: 100-continue")
        body.receive(b"a")
        assert (body.held, pipe.is_paused) == (b"a", True)
        body.want()
        assert not pipe.is_paused
        body.receive(b"b")
        assert body.whole == b"ab"

    run(scene)


def test_what_lies_behind_it_is_kept_and_no_more_is_read() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body("Content-Length: 2")
        body.want()
        body.receive(b"ab")
        body.receive(b"next")
        assert (body.whole, body.held, pipe.is_paused) == (b"ab", b"next", True)

    run(scene)


def test_one_made_of_tiny_chunks_leaves_others_their_turn() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body("Transfer-Encoding: chunked", limit=100_000)
        body.want()
        body.receive(b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\nnext")
        assert pipe.is_paused
        assert not body.is_complete
        turns = 0
        while not body.is_complete:
            await asyncio.sleep(0)
            turns += 1
        assert turns > 2
        assert (body.whole, pipe.completed, pipe.failed) == (b"x" * 20_000, 1, [])
        assert body.rest == b"next"

    run(scene)


def test_one_that_is_lost_between_its_turns_is_read_no_further() -> None:
    async def scene() -> None:
        pipe = Reading()
        body = pipe.body("Transfer-Encoding: chunked", limit=100_000)
        body.want()
        body.receive(b"1\r\nx\r\n" * 20_000)
        body.lost()
        await asyncio.sleep(0.01)
        assert (pipe.completed, pipe.failed) == (0, [])

    run(scene)


@pytest.mark.parametrize("end", [b"0\r\n\n", b"0\r\nA: b\n\n", b"0\r\nA: b\r\n\n"])
def test_a_chunked_body_ends_strictly(end: bytes) -> None:
    async def scene() -> None:
        for cut in range(len(end)):
            pipe = Reading()
            body = pipe.body("Transfer-Encoding: chunked")
            body.want()
            body.receive(b"3\r\nabc\r\n" + end[:cut])
            body.receive(end[cut:] + b"GET /smuggled HTTP/1.1\r\n")
            assert (pipe.completed, [status for status, _ in pipe.failed]) == (0, [400])

    run(scene)


def test_it_is_timed_only_while_it_is_wanted_and_not_whole() -> None:
    async def scene() -> None:
        unwanted, whole, late = Reading(), Reading(), Reading()
        unwanted.body("Content-Length: 2", timeout_s=0.02)
        quick = whole.body("Content-Length: 2", timeout_s=0.02)
        quick.want()
        quick.receive(b"ab")
        late.body("Content-Length: 2", timeout_s=0.02).want()
        await asyncio.sleep(0.06)
        assert (unwanted.failed, whole.failed, late.failed) == ([], [], [(408, "the body did not come within 0.02 s")])

    run(scene)


def test_whoever_waits_is_told_that_it_is_lost_and_nobody_complains_of_those_who_do_not() -> None:
    async def scene() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        pipe = Reading()
        body = pipe.body("Content-Length: 2")
        body.want()
        told, cancelled = (asyncio.ensure_future(body.wait()) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        body.lost()
        with pytest.raises(BodyLost):
            await told
        with pytest.raises(BodyLost):
            await body.wait()
        del told, cancelled, body
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []

    run(scene)
