from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from unlimitedws.app import App
from unlimitedws.errors import StartFailed
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.lifespan import Lifespan
from unlimitedws.threads import ThreadPool

WORKER = object()


def lived(given: Any, *, timeout_s: float = 5.0) -> None:
    """Starts and stops the lifespan of an app."""

    async def main() -> None:
        pool = ThreadPool(2, 2)
        pool.attach(asyncio.get_running_loop())
        lifespan = Lifespan(App.of(given), pool)
        try:
            await lifespan.start(WORKER, stop_timeout_s=timeout_s)
            await lifespan.stop(WORKER, timeout_s=timeout_s)
        finally:
            pool.close()

    asyncio.run(main())


def noting(name: str, order: list[str]) -> Handlers:
    handlers = Handlers()
    handlers.on_start = lambda worker: order.append(f"{name} starts")
    handlers.on_stop = lambda worker: order.append(f"{name} stops")
    return handlers


def test_hooks_get_the_worker() -> None:
    seen: list[Any] = []
    handlers = Handlers()
    handlers.on_start = seen.append
    handlers.on_stop = seen.append
    lived(handlers)
    assert seen == [WORKER, WORKER]


def test_each_handlers_starts_once_in_order_and_stops_in_reverse_order() -> None:
    order: list[str] = []
    a, b = noting("a", order), noting("b", order)
    lived({"/a": a, "/b": b, "/also-a": a})
    assert order == ["a starts", "b starts", "b stops", "a stops"]


def test_hooks_may_be_async_or_blocking() -> None:
    order: list[str] = []
    handlers = Handlers()

    @handlers.on_start
    async def start(worker: Any) -> None:
        await asyncio.sleep(0.01)
        order.append("started")

    @handlers.on_stop
    @blocking
    def stop(worker: Any) -> None:
        order.append(threading.current_thread().name)

    lived(handlers)
    assert order == ["started", "unlimitedws-blocking-1"]


def test_the_hooks_are_optional() -> None:
    lived({"/a": Handlers(), "/b": Handlers()})


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
@pytest.mark.parametrize("error", [RuntimeError("no database"), SystemExit("no database")])
def test_a_failing_start_stops_those_before_it_and_reports_where(kind: str, error: BaseException) -> None:
    order: list[str] = []
    broken, never = Handlers(), noting("never", order)

    def connect_database(worker: Any) -> None:
        raise error

    async def coroutine(worker: Any) -> None:
        connect_database(worker)

    broken.on_start = {"plain": connect_database, "async": coroutine, "blocking": blocking(lambda worker: connect_database(worker))}[kind]
    broken.on_stop = lambda worker: order.append("broken stops")
    with pytest.raises(StartFailed, match=r"on_start failed(?s:.*)connect_database(?s:.*)no database"):
        lived({"/a": noting("a", order), "/b": broken, "/c": never})
    assert order == ["a starts", "a stops"]


def test_the_report_of_a_failing_start_shows_no_frames_of_the_server() -> None:
    handlers = Handlers()
    handlers.on_start = lambda worker: 1 / 0
    with pytest.raises(StartFailed) as caught:
        lived(handlers)
    assert "test_lifespan.py" in caught.value.report
    assert "/lifespan.py" not in caught.value.report.replace("test_lifespan.py", "")


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
@pytest.mark.parametrize("error", [RuntimeError("no database"), SystemExit("no database"), TimeoutError("no database")])
def test_a_failing_stop_is_logged_and_the_others_stop_all_the_same(
    kind: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    broken = Handlers()

    def close_database(worker: Any) -> None:
        raise error

    async def coroutine(worker: Any) -> None:
        close_database(worker)

    broken.on_stop = {"plain": close_database, "async": coroutine, "blocking": blocking(lambda worker: close_database(worker))}[kind]
    lived({"/a": noting("a", order), "/b": broken})
    assert order == ["a starts", "a stops"]
    assert "no database" in caplog.text
    assert "in close_database" in caplog.text


def test_a_start_that_is_cancelled_stops_what_had_started() -> None:
    order: list[str] = []
    slow = Handlers()

    @slow.on_start
    async def wait(worker: Any) -> None:
        order.append("waits")
        await asyncio.Event().wait()

    async def main() -> None:
        pool = ThreadPool(1, 0)
        pool.attach(asyncio.get_running_loop())
        lifespan = Lifespan(App.of({"/a": noting("a", order), "/b": slow}), pool)
        start = asyncio.ensure_future(lifespan.start(WORKER, stop_timeout_s=1.0))
        while "waits" not in order:
            await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait([start])
        assert start.cancelled()

    asyncio.run(main())
    assert order == ["a starts", "waits", "a stops"]


def test_a_stop_that_never_ends_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    stuck = Handlers()

    @stuck.on_stop
    async def wait(worker: Any) -> None:
        await asyncio.Event().wait()

    lived({"/a": noting("a", order), "/b": stuck}, timeout_s=0.2)
    assert order == ["a starts", "a stops"]
    assert "took longer than 0.2 s and was given up" in caplog.text
