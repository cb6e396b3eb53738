from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from tests.serving import WAIT_S, Served, close_code, eventually, flood, masked, served, upgrade
from unlimitedws.app import App
from unlimitedws.dispatch import Dispatch
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.threads import ThreadPool
from unlimitedws.wire.closing import Cause, Close

# -- alone, on an engine that only keeps count ---------------------------------------------------------------------


class FakeConnection:
    def __init__(self, number: int) -> None:
        self.id = number
        self.is_open = True


class FakeEngine:
    """Holds, releases and stalls as the contract says, and writes down what it was told."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.dispatch = dispatch
        self.held: dict[int, int] = {}
        self.stalled: set[int] = set()
        self.waiting: deque[tuple[int, FakeConnection, str]] = deque()
        self.failed: list[tuple[int, str, BaseException]] = []
        self.told: list[tuple[str, int]] = []
        dispatch.serve(self)

    def message(self, connection: FakeConnection, message: str, endpoint: int = 0) -> None:
        if self.held.get(connection.id) or endpoint in self.stalled:
            self.waiting.append((endpoint, connection, message))
        else:
            hook = self.dispatch.endpoints[endpoint].on_message
            assert hook is not None
            hook(connection, message)

    def retry(self) -> None:
        for _ in range(len(self.waiting)):
            endpoint, connection, message = self.waiting.popleft()
            self.message(connection, message, endpoint)

    def hold(self, connection: FakeConnection) -> None:
        self.held[connection.id] = self.held.get(connection.id, 0) + 1

    def release(self, connection: FakeConnection) -> None:
        self.held[connection.id] -= 1
        self.retry()

    def fail(self, connection: FakeConnection, hook: str, error: BaseException) -> None:
        self.failed.append((connection.id, hook, error))

    def stall(self, endpoint: int) -> None:
        self.told.append(("stall", endpoint))
        self.stalled.add(endpoint)

    def unstall(self, endpoint: int) -> None:
        self.told.append(("unstall", endpoint))
        self.stalled.discard(endpoint)
        self.retry()


def dispatched(given: Any, test: Callable[[Dispatch, FakeEngine], Any], *, threads: int = 2, queue: int = 2) -> None:
    """Runs a coroutine function with the dispatch of an app on a fake engine."""

    async def main() -> None:
        pool = ThreadPool(threads, queue)
        dispatch = Dispatch(App.of(given), pool)
        dispatch.attach(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(test(dispatch, FakeEngine(dispatch)), WAIT_S)
        finally:
            pool.close()

    asyncio.run(main())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_a_plain_function_is_given_to_the_engine_itself() -> None:
    def echo(conn: Any, message: Any) -> None: ...

    handlers = Handlers()
    handlers.on_message = echo

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        endpoint = dispatch.endpoints[0]
        assert endpoint.on_message is echo
        assert (endpoint.on_connect, endpoint.on_close, endpoint.on_drain) == (None, None, None)

    dispatched(handlers, test)


def test_endpoints_are_in_the_order_of_the_app() -> None:
    first, second = Handlers(), Handlers()
    first.on_message = lambda conn, message: "first"
    second.on_message = lambda conn, message: "second"

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        assert [endpoint.on_message(1, "") for endpoint in dispatch.endpoints if endpoint.on_message] == ["first", "second"]

    dispatched({"/a": first, "/b": second}, test)


def test_a_connection_is_held_while_its_coroutine_is_pending() -> None:
    handlers, order = Handlers(), []
    go = asyncio.Event()

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        order.append(f"{message} begins")
        await go.wait()
        order.append(f"{message} ends")

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        conn = FakeConnection(1)
        for message in "abc":
            engine.message(conn, message)
        assert engine.held == {1: 1}
        await until(lambda: order)
        assert not dispatch.is_idle
        go.set()
        await until(lambda: len(order) == 6)
        await until(lambda: dispatch.is_idle)
        assert engine.held == {1: 0}

    dispatched(handlers, test)
    assert order == [f"{message} {what}" for message in "abc" for what in ("begins", "ends")]


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_what_a_pending_handler_raises_fails_its_connection_before_it_is_released(kind: str) -> None:
    handlers = Handlers()

    async def raises(conn: Any, message: Any) -> None:
        raise ValueError("no")

    @blocking
    def raises_in_thread(conn: Any, message: Any) -> None:
        raise ValueError("no")

    handlers.on_message = raises if kind == "async" else raises_in_thread

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        held_at_failure: list[int] = []
        fail = engine.fail

        def noting(connection: FakeConnection, hook: str, error: BaseException) -> None:
            held_at_failure.append(engine.held[1])
            fail(connection, hook, error)

        engine.fail = noting  # type: ignore[method-assign]
        engine.message(FakeConnection(1), "a")
        await until(lambda: engine.held == {1: 0})
        [(number, hook, error)] = engine.failed
        assert (number, hook, str(error), held_at_failure) == (1, "on_message", "no", [1])

    dispatched(handlers, test)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
def test_a_coroutine_that_ends_in_an_unusual_way_fails_only_its_connection(error: BaseException) -> None:
    handlers = Handlers()

    @handlers.on_message
    async def leave(conn: Any, message: Any) -> None:
        raise error

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        engine.message(FakeConnection(1), "a")
        await until(lambda: engine.held == {1: 0})
        assert len(engine.failed) == 1

    dispatched(handlers, test)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_coroutine_cancelled_by_the_stop_is_no_error_and_releases_only_what_is_closed(is_open: bool) -> None:
    handlers, cancelled = Handlers(), []

    @handlers.on_message
    async def wait(conn: Any, message: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(message)
            raise

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        conn = FakeConnection(1)
        engine.message(conn, "a")
        await asyncio.sleep(0)
        conn.is_open = is_open
        dispatch.cancel()
        await until(lambda: dispatch.is_idle)
        assert (engine.failed, engine.held, cancelled) == ([], {1: 1 if is_open else 0}, ["a"])

    dispatched(handlers, test)


def test_what_fails_after_the_engine_has_gone_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    go = threading.Event()

    @handlers.on_message
    @blocking
    def late(conn: Any, message: Any) -> None:
        go.wait(WAIT_S)
        raise ValueError("too late")

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        engine.message(FakeConnection(7), "a")
        dispatch.end()
        go.set()
        await until(lambda: dispatch.is_idle)
        assert engine.failed == []

    dispatched(handlers, test)
    assert "on_message of connection 7 failed after the stop" in caplog.text
    assert "ValueError: too late" in caplog.text


@pytest.mark.parametrize("name", ["on_close", "on_drain"])
def test_hooks_that_nothing_follows_hold_nothing(name: str) -> None:
    handlers, seen = Handlers(), []

    async def pending(conn: Any, *_: Any) -> None:
        seen.append("async")

    setattr(handlers, name, pending)

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        hook = getattr(dispatch.endpoints[0], name)
        hook(FakeConnection(1), *([Close(1000, "", Cause.PEER_CLOSED, True)] if name == "on_close" else []))
        await until(lambda: seen)
        assert engine.held == {}

    dispatched(handlers, test)


def test_a_wrapper_that_runs_its_coroutine_itself_is_done_when_it_returns() -> None:
    handlers, seen = Handlers(), []

    async def work(conn: Any, message: Any) -> None: ...

    def in_its_own_way(conn: Any, message: Any) -> None:
        seen.append(message)

    in_its_own_way.__wrapped__ = work  # type: ignore[attr-defined]  # as functools.wraps does
    handlers.on_message = in_its_own_way

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        engine.message(FakeConnection(1), "a")
        assert (seen, engine.held, dispatch.is_idle) == (["a"], {}, True)

    dispatched(handlers, test)


def test_no_context_leaks_from_one_message_into_the_next() -> None:
    handlers, seen = Handlers(), []
    user: ContextVar[str] = ContextVar("user", default="nobody")

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        seen.append(user.get())
        user.set(message)

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        for message in "abc":
            engine.message(FakeConnection(1), message)
        await until(lambda: len(seen) == 3)

    dispatched(handlers, test)
    assert seen == ["nobody"] * 3


def test_a_full_pool_stalls_every_blocking_endpoint_and_room_unstalls_them() -> None:
    go = threading.Semaphore(0)
    chat, news, plain = Handlers(), Handlers(), Handlers()

    @blocking
    def work(conn: Any, message: Any) -> None:
        assert go.acquire(timeout=WAIT_S)

    chat.on_message = work
    news.on_message = work
    plain.on_message = lambda conn, message: None

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        for number in range(8):
            engine.message(FakeConnection(number), "x", endpoint=number % 2)
        assert engine.told == [("stall", 0), ("stall", 1)]
        assert (dispatch.pool.pending, len(engine.waiting)) == (4, 4)
        for _ in range(8):
            go.release()
        await until(lambda: dispatch.is_idle)
        assert (engine.stalled, len(engine.waiting)) == (set(), 0)

    dispatched({"/chat": chat, "/news": news, "/plain": plain}, test, threads=2, queue=2)


def test_a_flood_never_queues_more_than_the_pool_takes() -> None:
    handlers = Handlers()
    deepest = 0
    done = []

    @handlers.on_message
    @blocking
    def work(conn: Any, message: Any) -> None:
        done.append(conn.id)

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        nonlocal deepest
        for number in range(500):
            engine.message(FakeConnection(number), "x")
            deepest = max(deepest, dispatch.pool.pending)
        while not dispatch.is_idle or engine.waiting:
            deepest = max(deepest, dispatch.pool.pending)
            await asyncio.sleep(0)

    dispatched(handlers, test, threads=3, queue=5)
    assert deepest == 8
    assert sorted(done) == list(range(500))


def test_the_endpoints_take_turns_when_there_is_room_again() -> None:
    first, second = Handlers(), Handlers()
    served_by: list[str] = []

    def worker(name: str) -> Any:
        return blocking(lambda conn, message: served_by.append(name))

    first.on_message, second.on_message = worker("first"), worker("second")

    async def test(dispatch: Dispatch, engine: FakeEngine) -> None:
        # An engine whose first endpoint always has more: each unstall of it fills the pool at once.
        engine.retry = lambda: None  # type: ignore[method-assign]
        told: list[int] = []

        def unstall(endpoint: int) -> None:
            told.append(endpoint)
            if len(told) < 6:
                engine.dispatch.endpoints[endpoint].on_message(FakeConnection(len(told)), "x")  # type: ignore[misc]

        engine.unstall = unstall  # type: ignore[method-assign]
        engine.message(FakeConnection(0), "x")
        await until(lambda: len(told) >= 6)
        assert told[:4] == [0, 1, 0, 1]

    dispatched({"/a": first, "/b": second}, test, threads=1, queue=0)
    assert {"first", "second"} <= set(served_by)


# -- on both engines, with real peers -------------------------------------------------------------------------------


def messages_of(client: Any, number: int) -> list[Any]:
    return [client.recv(timeout=WAIT_S) for _ in range(number)]


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
def test_messages_of_one_connection_stay_in_order(engine_name: str, kind: str) -> None:
    handlers = Handlers()

    def plain(conn: Any, message: Any) -> None:
        conn.send(message)

    async def coroutine(conn: Any, message: Any) -> None:
        if int(message) % 3:
            await asyncio.sleep(0.0005 * (int(message) % 5))
        conn.send(message)

    @blocking
    def thread(conn: Any, message: Any) -> None:
        time.sleep(0.0005 * (int(message) % 3))
        conn.send(message)

    handlers.on_message = {"plain": plain, "async": coroutine, "blocking": thread}[kind]
    with served(handlers, engine=engine_name, threads=4, thread_queue=2) as there, there.client() as a, there.client() as b:
        for i in range(100):
            a.send(str(i))
            b.send(str(i))
        expected = [str(i) for i in range(100)]
        assert messages_of(a, 100) == expected
        assert messages_of(b, 100) == expected


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_a_slow_connection_keeps_no_other_waiting(engine_name: str, kind: str) -> None:
    handlers = Handlers()
    go = threading.Event()

    async def coroutine(conn: Any, message: Any) -> None:
        if message == "slow":
            while not go.is_set():
                await asyncio.sleep(0.002)
        conn.send(message)

    @blocking
    def thread(conn: Any, message: Any) -> None:
        if message == "slow":
            go.wait(WAIT_S)
        conn.send(message)

    handlers.on_message = coroutine if kind == "async" else thread
    with served(handlers, engine=engine_name) as there, there.client() as slow, there.client() as quick:
        slow.send("slow")
        slow.send("after")
        for i in range(5):
            quick.send(str(i))
        assert messages_of(quick, 5) == list("01234")
        go.set()
        assert messages_of(slow, 2) == ["slow", "after"]


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_reads_pause_while_a_handler_is_pending_so_memory_stays_bounded(engine_name: str, kind: str) -> None:
    """A peer that sends without end fills its own kernel buffers, not ours."""
    handlers = Handlers()
    go = threading.Event()
    received = 0

    async def coroutine(conn: Any, message: Any) -> None:
        nonlocal received
        while not go.is_set():
            await asyncio.sleep(0.002)
        received += 1

    @blocking
    def thread(conn: Any, message: Any) -> None:
        nonlocal received
        go.wait(WAIT_S)
        received += 1

    handlers.on_message = coroutine if kind == "async" else thread
    with served(handlers, engine=engine_name, receive_bytes=65536) as there, there.socket() as peer:
        upgrade(peer)
        sent = flood(peer, masked(b"x" * 1000))
        read = there.counters["bytes_in"]
        assert sent > 10 * read, f"{read} of {sent} bytes were read while the first message was pending"
        assert there.counters["messages_in"] <= 1 + 65536 // 1000
        go.set()
        peer.settimeout(WAIT_S)
        eventually(lambda: received == sent // len(masked(b"x" * 1000)), "messages were lost")


def test_a_flood_on_many_connections_waits_for_the_pool(engine_name: str) -> None:
    handlers = Handlers()
    go = threading.Event()
    lock = threading.Lock()
    received = 0

    @handlers.on_message
    @blocking
    def work(conn: Any, message: Any) -> None:
        nonlocal received
        go.wait(WAIT_S)
        with lock:
            received += 1

    with served(handlers, engine=engine_name, threads=2, thread_queue=3) as there:
        peers = [there.socket() for _ in range(20)]
        for peer in peers:
            upgrade(peer)
            peer.sendall(masked(b"hello") * 10)
        eventually(lambda: pending(there) == 5)
        for _ in range(5):
            assert there.call(lambda: pending(there)) == 5
        go.set()
        eventually(lambda: received == 200, "messages were lost")
        for peer in peers:
            peer.close()
        eventually(lambda: there.counters["connections_open"] == 0)


def test_a_flood_into_a_full_pool_stays_in_the_kernel(engine_name: str) -> None:
    handlers = Handlers()
    go = threading.Event()
    received = 0

    @handlers.on_message
    @blocking
    def work(conn: Any, message: Any) -> None:
        nonlocal received
        go.wait(WAIT_S)
        received += 1

    frame = masked(b"x" * 1000)
    with served(handlers, engine=engine_name, threads=1, thread_queue=0) as there, there.socket() as first, there.socket() as other:
        upgrade(first)
        upgrade(other)
        first.sendall(masked(b"takes the only thread"))
        eventually(lambda: pending(there) == 1)
        read = there.counters["bytes_in"]
        sent = flood(other, frame)
        read = there.counters["bytes_in"] - read
        assert sent > 10 * read, f"{read} of {sent} bytes were read while the pool was full"
        assert pending(there) == 1
        go.set()
        eventually(lambda: received == 1 + sent // len(frame), "messages were lost")


def pending(there: Served) -> int:
    return there.server.worker._pool.pending


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
@pytest.mark.parametrize("hook", ["on_connect", "on_message"])
def test_a_handler_that_raises_is_logged_counted_and_its_connection_closed_with_1011(
    engine_name: str, kind: str, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    handlers, closes = Handlers(), []

    def plain(conn: Any, *_: Any) -> None:
        raise ValueError("a mistake of the app")

    async def coroutine(conn: Any, *_: Any) -> None:
        plain(conn)

    setattr(handlers, hook, {"plain": plain, "async": coroutine, "blocking": blocking(lambda conn, *_: plain(conn))}[kind])
    handlers.on_close = lambda conn, close: closes.append(close)
    with served(handlers, engine=engine_name) as there:
        with there.socket() as peer:
            upgrade(peer, "/where")
            peer.sendall(masked(b"x"))
            assert close_code(peer) == 1011
        with there.socket() as other:  # the worker lives
            upgrade(other, "/where")
        eventually(lambda: len(closes) == 2)
        assert there.counters["handler_errors"] == (1 if hook == "on_message" else 2)
    assert (closes[0].code, closes[0].cause) == (1011, Cause.HANDLER_ERROR)
    assert f"{hook} of connection 1 on /where from 127.0.0.1:" in caplog.text
    assert "failed; it is closed with 1011" in caplog.text
    assert "ValueError: a mistake of the app" in caplog.text


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
@pytest.mark.parametrize("hook", ["on_connect", "on_message", "on_close"])
def test_on_close_comes_exactly_once_and_after_everything_else(engine_name: str, kind: str, hook: str) -> None:
    """The peer leaves while a handler is at work: it is not cancelled, and on_close follows it."""
    handlers: Handlers = Handlers()
    order: list[str] = []
    go = threading.Event()

    def wrapped(name: str) -> Any:
        def plain(conn: Any, *_: Any) -> None:
            order.append(name)

        async def coroutine(conn: Any, *_: Any) -> None:
            order.append(f"{name} begins")
            while not go.is_set():
                await asyncio.sleep(0.002)
            order.append(name)

        @blocking
        def thread(conn: Any, *_: Any) -> None:
            order.append(f"{name} begins")
            go.wait(WAIT_S)
            order.append(name)

        return {"plain": plain, "async": coroutine, "blocking": thread}[kind] if name == hook else plain

    for name in ("on_connect", "on_message", "on_close"):
        setattr(handlers, name, wrapped(name))
    with served(handlers, engine=engine_name) as there:
        with there.socket() as peer:
            upgrade(peer)
            peer.sendall(masked(b"x"))
            eventually(lambda: order)
            if hook == "on_message":
                eventually(lambda: len(order) == 2)
        if kind != "plain" and hook != "on_close":
            there.call(lambda: None)
            assert "on_close" not in order
        go.set()
        eventually(lambda: "on_close" in order)
        for _ in range(3):
            there.call(lambda: None)
    assert [name for name in order if "begins" not in name] == ["on_connect", "on_message", "on_close"]


def test_a_coroutine_can_still_use_its_connection_after_the_peer_left(engine_name: str) -> None:
    handlers, results = Handlers(), []
    go = threading.Event()

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        while conn.is_open:  # a stream of news, as long as somebody is there
            conn.send("news")
            await asyncio.sleep(0.002)
        results.append((conn.send("nobody hears it"), conn.path, conn.id, conn.queued_bytes))
        conn.close()
        go.set()

    with served(handlers, engine=engine_name) as there:
        with there.socket() as peer:
            upgrade(peer, "/here")
            peer.sendall(masked(b"x"))
            assert peer.recv(100)
        assert go.wait(WAIT_S)
    assert results == [(False, "/here", 1, 0)]


def test_the_first_message_waits_for_an_async_on_connect(engine_name: str) -> None:
    handlers, order = Handlers(), []

    @handlers.on_connect
    async def greet(conn: Any) -> None:
        await asyncio.sleep(0.05)
        order.append("connected")

    @handlers.on_message
    def message(conn: Any, message: Any) -> None:
        order.append(message)
        conn.send(message)

    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("one")
        assert client.recv(timeout=WAIT_S) == "one"
    assert order == ["connected", "one"]


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
def test_on_drain_comes_when_a_slow_peer_has_read(engine_name: str, kind: str) -> None:
    handlers = Handlers()
    drained = threading.Event()
    over = threading.Event()

    @handlers.on_message
    def fill(conn: Any, message: Any) -> None:
        while conn.send(b"x" * 65536):
            pass
        over.set()

    async def coroutine(conn: Any) -> None:
        drained.set()

    handlers.on_drain = {
        "plain": lambda conn: drained.set(), "async": coroutine, "blocking": blocking(lambda conn: drained.set()),
    }[kind]  # fmt: skip
    with served(handlers, engine=engine_name, queue_bytes=8 << 20) as there, there.socket() as peer:
        upgrade(peer)
        peer.sendall(masked(b"go"))
        assert over.wait(WAIT_S)
        assert not drained.is_set()
        peer.settimeout(0.02)
        eventually(lambda: read_some(peer) and drained.is_set())


def read_some(peer: Any) -> bool:
    with suppress(TimeoutError):
        while peer.recv(1 << 20):
            pass
    return True


def test_hooks_may_be_partials_methods_and_callable_objects(engine_name: str) -> None:
    class Counter:
        def __init__(self) -> None:
            self.seen = 0

        async def __call__(self, conn: Any, message: Any) -> None:
            self.seen += 1
            await asyncio.sleep(0)
            conn.send(f"{self.seen}")

        async def closed(self, prefix: str, conn: Any, close: Any) -> None:
            self.ending = prefix + str(close.code)

    counter, handlers = Counter(), Handlers()
    handlers.on_message = counter
    handlers.on_close = partial(counter.closed, "code ")
    with served(handlers, engine=engine_name) as there:
        with there.client() as client:
            client.send("a")
            client.send("b")
            assert messages_of(client, 2) == ["1", "2"]
        eventually(lambda: getattr(counter, "ending", None) == "code 1000")
