"""Handshakes whose hook takes its time."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.fronts import WAIT_S, House
from tests.peer import request
from unlimitedws.deciding import Deciding
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.request import Request
from unlimitedws.wire.closing import Cause


class Door:
    """An async hook that waits until it is opened, and counts."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = self.most = self.ended = 0
        self.order: list[str] = []

    async def __call__(self, request: Request) -> None:
        self.order.append(request.path)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.open.wait()
        finally:
            self.running -= 1
            self.ended += 1


def run(scene: Callable[[House, Door], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def play() -> None:
        handlers, door = Handlers(), Door()
        handlers.on_upgrade = door
        house = House(handlers, **settings)
        await scene(house, door)
        door.open.set()
        await house.idle()
        house.pool.close()

    asyncio.run(play())


def test_reading_stops_and_what_came_already_is_handed_on() -> None:
    async def scene(house: House, door: Door) -> None:
        pipe = house.answer(request("/"), b"first ", b"frames")
        assert (pipe.is_paused, pipe.ending) == (True, None)
        door.open.set()
        await house.until(lambda: pipe.ending)
        assert (pipe.ending, pipe.rest) == ("answer", b"first frames")
        assert pipe.verdict.response.startswith(b"HTTP/1.1 101 ")

    run(scene)


def test_no_more_run_at_once_than_the_setting_says_and_the_rest_in_their_order() -> None:
    async def scene(house: House, door: Door) -> None:
        pipes = [house.answer(request(f"/{number}")) for number in range(10)]
        await house.until(lambda: door.running == 3)
        door.open.set()
        await house.until(lambda: all(pipe.ending for pipe in pipes))
        assert (door.most, door.order) == (3, [f"/{number}" for number in range(10)])
        assert {pipe.ending for pipe in pipes} == {"answer"}

    run(scene, handshakes_deciding=3)


def test_a_peer_that_goes_takes_its_hook_with_it() -> None:
    async def scene(house: House, door: Door) -> None:
        pipe = house.answer(request("/"))
        await house.until(lambda: door.running)
        pipe.lose()
        await house.until(lambda: door.ended)
        await house.idle()
        assert pipe.verdict is None

    run(scene)


def test_a_peer_that_goes_while_it_waits_is_never_asked_about() -> None:
    async def scene(house: House, door: Door) -> None:
        first, second, third = (house.answer(request(path)) for path in ("/1", "/2", "/3"))
        second.lose()
        door.open.set()
        await house.until(lambda: first.ending and third.ending)
        assert door.order == ["/1", "/3"]

    run(scene, handshakes_deciding=1)


def test_a_peer_that_ends_its_side_is_gone() -> None:
    async def scene(house: House, door: Door) -> None:
        pipe = house.answer(request("/"))
        pipe.stream.ended()
        assert pipe.ending == "abort"
        await house.until(lambda: door.ended or not door.order)

    run(scene)


@pytest.mark.parametrize("at_once", [1, 10])
def test_beyond_the_deadline_there_is_an_answer_and_the_hook_is_cancelled(at_once: int) -> None:
    async def scene(house: House, door: Door) -> None:
        pipes = [house.answer(request("/")) for _ in range(2)]
        await house.until(lambda: all(pipe.ending for pipe in pipes))
        await house.idle()
        for pipe in pipes:
            assert pipe.verdict.response.startswith(b"HTTP/1.1 503 ")
            assert pipe.verdict.cause is Cause.HANDSHAKE_TIMEOUT
        assert door.running == 0

    run(scene, handshake_timeout_s=0.1, handshakes_deciding=at_once)


def test_the_deadline_counts_from_the_connections_first_moment() -> None:
    async def scene(house: House, door: Door) -> None:
        late, early = (house.answer(request("/"), waited_s=waited_s) for waited_s in (3600.0, 0.0))
        await house.until(lambda: late.ending)
        assert late.verdict.cause is Cause.HANDSHAKE_TIMEOUT
        assert early.ending is None

    run(scene, handshake_timeout_s=3600.0)


def test_a_blocking_hook_runs_beside_the_loop_and_keeps_its_turn_to_the_end() -> None:
    async def play() -> None:
        go = threading.Event()
        seen: list[str] = []
        handlers = Handlers()

        @handlers.on_upgrade
        @blocking
        def hook(request: Request) -> None:
            seen.append(request.path)
            assert go.wait(WAIT_S)

        house = House(handlers, handshakes_deciding=1)
        first, second = house.answer(request("/1")), house.answer(request("/2"))
        await house.until(lambda: seen == ["/1"])
        first.lose()  # a thread cannot be cancelled: its turn is not over
        await asyncio.sleep(0.02)
        assert seen == ["/1"]
        go.set()
        await house.until(lambda: second.ending)
        assert seen == ["/1", "/2"]
        await house.idle()
        house.pool.close()

    asyncio.run(play())


def test_nothing_of_a_request_is_kept_once_it_is_answered() -> None:
    async def scene(house: House, door: Door) -> None:
        before = kept_of_requests(set())  # by what other tests of this process failed with
        pipe = house.answer(request("/"))
        await house.until(lambda: door.running)
        assert len(kept_of_requests(before)) == 2
        door.open.set()
        await house.until(lambda: pipe.ending)
        await house.idle()
        assert kept_of_requests(before) == set()

    run(scene)


def kept_of_requests(known: set[int]) -> set[int]:
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if isinstance(thing, Request | Deciding)} - known


def test_five_thousand_wait_together_without_loss() -> None:
    async def play() -> None:
        handlers = Handlers()

        @handlers.on_upgrade
        async def hook(request: Request) -> None:
            await asyncio.sleep(0.01)

        house = House(handlers)
        pipes = [house.answer(request("/")) for _ in range(5000)]
        await house.until(lambda: all(pipe.ending for pipe in pipes))
        assert {(pipe.ending, pipe.verdict.response[:12]) for pipe in pipes} == {("answer", b"HTTP/1.1 101")}

    asyncio.run(play())
