from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from unlimitedws.threads import ThreadPool

WAIT_S = 30.0


def on_loop(test: Callable[[ThreadPool], Any], *, threads: int = 2, queue: int = 2) -> None:
    """Runs a coroutine function with a pool on a fresh loop."""

    async def main() -> None:
        pool = ThreadPool(threads, queue)
        pool.attach(asyncio.get_running_loop())
        before = threading.active_count()
        try:
            await asyncio.wait_for(test(pool), WAIT_S)
        finally:
            pool.close()
        while threading.active_count() > before:
            await asyncio.sleep(0.005)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_call_runs_in_a_thread_and_its_result_comes_back_on_the_loop() -> None:
    seen: list[Any] = []

    async def test(pool: ThreadPool) -> None:
        pool.submit(threading.current_thread, lambda result, error: seen.append((result, error, threading.current_thread())))
        await until(lambda: bool(seen))

    on_loop(test)
    (worker, error, here) = seen[0]
    assert worker.name.startswith("unlimitedws-blocking")
    assert (error, here) == (None, threading.main_thread())


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), StopIteration()])
def test_what_a_call_raises_comes_back_whatever_it_is(error: BaseException) -> None:
    seen: list[Any] = []

    def fail() -> None:
        raise error

    async def test(pool: ThreadPool) -> None:
        pool.submit(fail, lambda *ended: seen.append(ended))
        await until(lambda: bool(seen))
        assert await pool.run(lambda: "the thread lives") == "the thread lives"

    on_loop(test, threads=1)
    assert seen == [(None, error)]


def test_a_future_has_the_result_or_the_error() -> None:
    def fail(error: BaseException) -> None:
        raise error

    async def test(pool: ThreadPool) -> None:
        assert await pool.run(lambda: 42) == 42
        with pytest.raises(KeyError):
            await pool.run(lambda: fail(KeyError("x")))
        for unfit in (SystemExit(1), StopIteration()):  # the first would end the loop, the second no future takes
            with pytest.raises(RuntimeError, match=type(unfit).__name__):
                await pool.run(partial(fail, unfit))

    on_loop(test)


def test_a_cancelled_future_does_not_mind_the_late_result() -> None:
    go = threading.Event()

    async def test(pool: ThreadPool) -> None:
        future = pool.run(lambda: go.wait(WAIT_S))
        future.cancel()
        go.set()
        await until(lambda: pool.pending == 0)

    on_loop(test)


def test_threads_start_when_needed_and_no_more_than_allowed() -> None:
    go = threading.Event()
    names: set[str] = set()

    def work() -> None:
        names.add(threading.current_thread().name)
        go.wait(WAIT_S)

    async def test(pool: ThreadPool) -> None:
        before = threading.active_count()
        calls = [pool.run(work)]
        assert threading.active_count() == before + 1
        calls += [pool.run(work) for _ in range(9)]
        assert threading.active_count() == before + 3
        go.set()
        await asyncio.gather(*calls)

    on_loop(test, threads=3)
    assert len(names) <= 3


def test_it_goes_on_with_the_threads_there_are_when_the_machine_gives_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.endswith("-2"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)

    async def test(pool: ThreadPool) -> None:
        assert await asyncio.gather(*(pool.run(partial(int, i)) for i in range(5))) == list(range(5))

    on_loop(test, threads=3)
    assert caplog.text.count("going on with 1 of 3") == 1


def test_without_a_single_thread_the_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def test(pool: ThreadPool) -> None:
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(lambda: 1, lambda *_: None)
        assert pool.pending == 0

    on_loop(test)


def test_calls_begin_in_the_order_in_which_they_were_given() -> None:
    order: list[int] = []

    async def test(pool: ThreadPool) -> None:
        await asyncio.gather(*(pool.run(partial(order.append, i)) for i in range(50)))

    on_loop(test, threads=1)
    assert order == list(range(50))


def test_the_pool_is_full_at_threads_plus_queue_and_tells_when_it_is_not() -> None:
    go = threading.Event()

    async def test(pool: ThreadPool) -> None:
        fullness = []
        calls = []
        for _ in range(5):
            calls.append(pool.run(lambda: go.wait(WAIT_S)))
            fullness.append(pool.is_full)
        assert fullness == [False, False, False, True, True]
        assert pool.pending == 5
        go.set()
        await asyncio.gather(*calls)
        assert (pool.pending, pool.is_full) == (0, False)

    on_loop(test, threads=2, queue=2)


def test_nothing_finished_is_left_unseen_when_many_threads_finish_at_once() -> None:
    async def test(pool: ThreadPool) -> None:
        for _ in range(20):
            assert await asyncio.gather(*(pool.run(partial(int, i)) for i in range(100))) == list(range(100))
        assert pool.pending == 0

    on_loop(test, threads=8, queue=100)


def test_a_failing_continuation_is_logged_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def broken(result: Any, error: Any) -> None:
        raise RuntimeError("continuation")

    async def test(pool: ThreadPool) -> None:
        pool.submit(lambda: 1, broken)
        assert await pool.run(lambda: 2) == 2

    on_loop(test, threads=1)
    assert "continuation" in caplog.text


def test_an_idle_thread_keeps_nothing_of_its_last_call_alive() -> None:
    class Thing: ...

    async def test(pool: ThreadPool) -> None:
        thing = Thing()
        gone = weakref.ref(thing)
        await pool.run(partial(id, thing))
        del thing
        await until(lambda: gone() is None)

    on_loop(test)


def test_closing_forgets_what_is_queued_and_tells_how_many_never_finished() -> None:
    go = threading.Event()
    ran: list[str] = []

    async def test(pool: ThreadPool) -> None:
        pool.submit(lambda: go.wait(WAIT_S), lambda *_: None)
        pool.submit(lambda: ran.append("queued"), lambda *_: None)
        assert pool.close() == 2
        go.set()
        with pytest.raises(RuntimeError, match="closed"):
            pool.submit(lambda: None, lambda *_: None)

    on_loop(test, threads=1)
    assert ran == []


def test_a_call_that_outlives_the_loop_ends_in_silence() -> None:
    go = threading.Event()

    async def main() -> None:
        pool = ThreadPool(1, 0)
        pool.attach(asyncio.get_running_loop())
        pool.submit(lambda: go.wait(WAIT_S), lambda *_: None)
        pool.close()

    before = threading.active_count()
    asyncio.run(main())
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("unlimitedws-blocking")]
    go.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert threading.active_count() <= before
