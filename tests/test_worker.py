from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from websockets.exceptions import ConnectionClosed

from tests.serving import WAIT_S, close_code, descriptors, eventually, masked, running_loop, served, upgrade
from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.engine.contract import TICKS_PER_S
from unlimitedws.engine.counters import ROW_BYTES
from unlimitedws.errors import StartFailed
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.listener import Listening, listen
from unlimitedws.wire.closing import Cause
from unlimitedws.worker import Worker


def echoing() -> Handlers:
    handlers = Handlers()
    handlers.on_message = lambda conn, message: conn.send(message)
    return handlers


def new_row() -> memoryview:
    return memoryview(bytearray(ROW_BYTES)).cast("q")


@contextmanager
def listening() -> Iterator[socket.socket]:
    with listen("127.0.0.1", 0, config=Config()) as listener:
        yield listener


@pytest.fixture(scope="module", autouse=True)
def _libuv_is_set_up() -> None:
    uvloop.run(asyncio.sleep(0))  # its first loop opens descriptors that stay with the process


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_worker_serves_on_either_loop(engine_name: str, loop_factory: Any) -> None:
    with served(echoing(), engine=engine_name, loop_factory=loop_factory) as there, there.client() as client:
        client.send("hello")
        assert client.recv(timeout=WAIT_S) == "hello"
        assert there.server.worker.engine_name == engine_name
        assert there.counters["native"] == (engine_name == "native")


def test_ids_carry_the_serial_of_the_worker(engine_name: str) -> None:
    opened: list[Any] = []
    handlers = Handlers()
    handlers.on_connect = opened.append
    with listening() as listener, running_loop() as loop:
        worker = Worker(App.of(handlers), Config(engine=engine_name))
        asyncio.run_coroutine_threadsafe(worker.start([Listening(listener.fileno())], row=new_row(), serial=5), loop).result(WAIT_S)
        with socket.create_connection(listener.getsockname()) as peer:
            upgrade(peer)
            eventually(lambda: opened)
        asyncio.run_coroutine_threadsafe(worker.stop(), loop).result(WAIT_S)
    assert [conn.id for conn in opened] == [(5 << 40) + 1]


def test_a_listener_stays_its_owners(engine_name: str) -> None:
    with listening() as listener, running_loop() as loop:
        worker = Worker(App.of(echoing()), Config(engine=engine_name))
        asyncio.run_coroutine_threadsafe(worker.start([Listening(listener.fileno())], row=new_row()), loop).result(WAIT_S)
        asyncio.run_coroutine_threadsafe(worker.stop(), loop).result(WAIT_S)
        with socket.create_connection(listener.getsockname()):  # queued in the kernel for a successor
            listener.settimeout(WAIT_S)
            listener.accept()[0].close()


def test_on_start_completes_before_the_worker_accepts(engine_name: str) -> None:
    order: list[str] = []
    handlers = Handlers()

    @handlers.on_start
    async def start(worker: Any) -> None:
        await asyncio.sleep(0.05)
        order.append("started")

    handlers.on_connect = lambda conn: order.append("connected")
    with listening() as listener, socket.create_connection(listener.getsockname()) as early, running_loop() as loop:
        early.settimeout(WAIT_S)
        worker = Worker(App.of(handlers), Config(engine=engine_name))
        asyncio.run_coroutine_threadsafe(worker.start([Listening(listener.fileno())], row=new_row()), loop).result(WAIT_S)
        upgrade(early)
        eventually(lambda: len(order) == 2)
        asyncio.run_coroutine_threadsafe(worker.stop(), loop).result(WAIT_S)
    assert order == ["started", "connected"]


def test_a_start_that_fails_leaves_nothing_behind(engine_name: str) -> None:
    handlers = Handlers()
    handlers.on_start = lambda worker: 1 / 0
    gc.collect()
    before = descriptors(), threading.active_count()
    with listening() as listener, running_loop() as loop:
        worker = Worker(App.of(handlers), Config(engine=engine_name))
        with pytest.raises(StartFailed, match="ZeroDivisionError"):
            asyncio.run_coroutine_threadsafe(worker.start([Listening(listener.fileno())], row=new_row()), loop).result(WAIT_S)
    del worker
    gc.collect()
    assert (descriptors(), threading.active_count()) == before


def test_on_stop_comes_after_the_last_on_close(engine_name: str) -> None:
    order: list[str] = []
    handlers = Handlers()

    @handlers.on_close
    async def close(conn: Any, close: Any) -> None:
        await asyncio.sleep(0.02)
        order.append("on_close")

    handlers.on_stop = lambda worker: order.append(f"on_stop, {len(worker.connections)} open, {worker.broadcast('bye')} reached")
    with served(handlers, engine=engine_name) as there, there.clients(3):
        there.run(there.server.stop())
    assert order == ["on_close"] * 3 + ["on_stop, 0 open, 0 reached"]


def test_a_stop_closes_everyone_with_1001_and_refuses_newcomers(engine_name: str) -> None:
    closes: list[Any] = []
    handlers = echoing()
    handlers.on_close = lambda conn, close: closes.append((close.code, close.reason, close.cause, close.clean))
    with served(handlers, engine=engine_name) as there, there.clients(10) as clients:
        there.run(there.server.stop())
        for client in clients:
            client.close()
            assert (client.close_code, client.close_reason) == (1001, "server is stopping, retry in 1 s")
        with pytest.raises(ConnectionRefusedError):
            there.socket()
    assert closes == [(1001, "server is stopping, retry in 1 s", Cause.DRAIN, True)] * 10


def test_a_worker_that_stops_listening_keeps_its_connections(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there, there.client() as client, socket.socket() as late:
        there.call(there.server.worker.stop_listening)
        late.settimeout(0.2)
        late.connect(("127.0.0.1", there.port))  # into the kernel's queue, where it waits
        late.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            late.recv(1)
        client.send("still served")
        assert client.recv(timeout=WAIT_S) == "still served"


def test_a_stop_goes_in_paced_batches(engine_name: str) -> None:
    ended: list[float] = []
    handlers = Handlers()
    handlers.on_close = lambda conn, close: ended.append(time.monotonic())
    with served(handlers, engine=engine_name, drain_batch=2, drain_pause_s=0.1) as there, there.clients(6):
        began = time.monotonic()
        there.run(there.server.stop())
    assert len(ended) == 6
    assert ended[2] - began >= 0.1  # the second batch waits one pause, the third two
    assert ended[4] - began >= 0.2


def test_what_a_peer_has_still_to_get_leaves_before_the_close(engine_name: str) -> None:
    with served(Handlers(), engine=engine_name) as there, there.client() as client:
        payload = b"x" * 500_000

        async def say_and_stop() -> None:
            there.server.worker.broadcast(payload)
            await there.server.stop()

        future = asyncio.run_coroutine_threadsafe(say_and_stop(), there.loop)
        assert client.recv(timeout=WAIT_S) == payload
        future.result(WAIT_S)


@contextmanager
def deaf_peers(there: Any, number: int) -> Iterator[list[socket.socket]]:
    """Peers that are open and never answer a Close."""
    peers = [there.socket() for _ in range(number)]
    for peer in peers:
        upgrade(peer)
    try:
        yield peers
    finally:
        for peer in peers:
            peer.close()


def test_a_stop_has_a_finite_deadline_however_deaf_the_peers(engine_name: str) -> None:
    closes: list[Any] = []
    handlers = Handlers()
    handlers.on_close = lambda conn, close: closes.append(close.cause)
    with served(handlers, engine=engine_name, stop_timeout_s=0.3, close_timeout_s=60.0) as there, deaf_peers(there, 3) as peers:
        there.run(there.server.stop())
        assert closes == [Cause.DRAIN] * 3
        assert [close_code(peer) for peer in peers] == [1001] * 3


def test_cut_abandons_the_paced_drain_and_still_tells_everyone(engine_name: str) -> None:
    closes: list[Any] = []
    handlers = Handlers()
    handlers.on_close = lambda conn, close: closes.append(close.cause)
    with (
        served(handlers, engine=engine_name, drain_batch=1, drain_pause_s=60.0, stop_timeout_s=120.0, close_timeout_s=60.0) as there,
        deaf_peers(there, 3) as peers,
    ):
        stopping = asyncio.run_coroutine_threadsafe(there.server.stop(), there.loop)
        assert close_code(peers[0]) == 1001
        assert not stopping.done()
        there.call(there.server.worker.cut)
        stopping.result(WAIT_S)
        assert closes == [Cause.DRAIN] * 3
        assert [close_code(peer) for peer in peers[1:]] == [1001] * 2


def test_a_stop_waits_for_what_is_pending(engine_name: str) -> None:
    order: list[str] = []
    handlers = Handlers()

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        order.append("begins")
        await asyncio.sleep(0.2)
        order.append("ends")

    handlers.on_close = lambda conn, close: order.append("on_close")
    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("x")
        eventually(lambda: order)
        there.run(there.server.stop())
    assert order == ["begins", "ends", "on_close"]


def test_a_coroutine_that_is_pending_at_the_deadline_is_cancelled_before_on_close(engine_name: str) -> None:
    order: list[str] = []
    handlers = Handlers()

    @handlers.on_message
    async def work(conn: Any, message: Any) -> None:
        order.append("begins")
        try:
            await asyncio.Event().wait()
        finally:
            order.append("cancelled")

    handlers.on_close = lambda conn, close: order.append("on_close")
    with served(handlers, engine=engine_name, stop_timeout_s=0.2) as there, there.client(close_timeout=1) as client:
        client.send("x")
        client.send("never begun")
        eventually(lambda: order)
        there.run(there.server.stop())
        assert there.counters["handler_errors"] == 0
    assert order == ["begins", "cancelled", "on_close"]


def test_a_thread_that_is_stuck_does_not_keep_the_worker_from_stopping(engine_name: str, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    go = threading.Event()
    handlers = Handlers()

    @handlers.on_message
    @blocking
    def work(conn: Any, message: Any) -> None:
        order.append("begins")
        go.wait(WAIT_S)

    handlers.on_close = lambda conn, close: order.append("on_close")
    with served(handlers, engine=engine_name, stop_timeout_s=0.2) as there, there.client(close_timeout=1) as client:
        client.send("x")
        eventually(lambda: order)
        there.run(there.server.stop())
        assert order == ["begins", "on_close"]
        go.set()
    assert "1 blocking calls had not finished" in caplog.text


def test_a_broadcast_reaches_everyone_once(engine_name: str) -> None:
    with served(Handlers(), engine=engine_name) as there, there.clients(5) as clients:
        assert there.call(lambda: there.server.worker.broadcast("news")) == 5
        assert there.call(lambda: there.server.worker.broadcast(b"news".upper(), text=True)) == 5
        assert [[client.recv(timeout=WAIT_S) for _ in range(2)] for client in clients] == [["news", "NEWS"]] * 5


def test_a_broadcast_to_some_passes_the_others_and_the_closed_over(engine_name: str) -> None:
    opened: list[Any] = []
    handlers = Handlers()
    handlers.on_connect = opened.append
    with served(handlers, engine=engine_name) as there, there.clients(3) as (one, other, gone):
        eventually(lambda: len(opened) == 3)
        gone.close()
        eventually(lambda: not opened[2].is_open)
        assert there.call(lambda: there.server.worker.broadcast("for you", [opened[0], opened[2]])) == 1
        assert there.call(lambda: there.server.worker.broadcast("for all")) == 2
        assert [one.recv(timeout=WAIT_S) for _ in range(2)] == ["for you", "for all"]
        assert other.recv(timeout=WAIT_S) == "for all"


def test_a_blocking_handler_may_broadcast_and_look_at_the_connections(engine_name: str) -> None:
    handlers = Handlers()
    workers: list[Any] = []
    counts: list[int] = []
    handlers.on_start = workers.append

    @handlers.on_message
    @blocking
    def publish(conn: Any, message: Any) -> None:
        counts.append(len(workers[0].connections))
        counts.append(workers[0].broadcast(message))
        with pytest.raises(TypeError):
            workers[0].broadcast(3)

    with served(handlers, engine=engine_name) as there, there.client() as one, there.client() as other:
        one.send("hello")
        assert (one.recv(timeout=WAIT_S), other.recv(timeout=WAIT_S)) == ("hello", "hello")
        eventually(lambda: counts == [2, 2])


def test_the_row_shows_that_the_loop_turns_and_how_late_it_was(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there:
        beat = there.counters["beat_ns"]
        eventually(lambda: there.counters["beat_ns"] > beat)
        there.loop.call_soon_threadsafe(time.sleep, 0.4)  # the loop hangs
        eventually(lambda: there.counters["loop_lag_max_us"] >= (0.4 - 1 / TICKS_PER_S) * 1e6)
        latest = there.counters["loop_lag_max_us"]
        eventually(lambda: there.counters["loop_lag_us"] < latest)
        assert there.counters["loop_lag_max_us"] >= latest


def test_ticks_keep_their_rate_and_missed_ones_are_left_out(engine_name: str) -> None:
    with served(echoing(), engine=engine_name) as there:
        worker = there.server.worker
        due: list[float] = []
        there.loop.call_soon_threadsafe(time.sleep, 0.5)
        eventually(lambda: due.append(worker._due) or due[-1] > due[0] + 0.75)  # type: ignore[func-returns-value]
        steps = [(time_due - due[0]) * TICKS_PER_S for time_due in due]
        assert all(abs(step - round(step)) < 1e-6 for step in steps), "the ticks drift"


def test_the_row_shows_the_blocking_calls(engine_name: str) -> None:
    go = threading.Event()
    handlers = Handlers()
    handlers.on_message = blocking(lambda conn, message: go.wait(WAIT_S))
    with served(handlers, engine=engine_name) as there, there.client() as client:
        client.send("x")
        eventually(lambda: there.counters["threads_busy"] == 1)
        go.set()
        eventually(lambda: there.counters["threads_busy"] == 0)


def test_a_handler_that_raises_on_the_way_out_does_not_stop_the_stop(engine_name: str, caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()

    @handlers.on_close
    async def broken(conn: Any, close: Any) -> None:
        raise ValueError("on the way out")

    caplog.set_level(logging.ERROR)
    with served(handlers, engine=engine_name, close_timeout_s=0.3) as there, there.socket() as peer:
        upgrade(peer)
        peer.sendall(masked(b"x"))
        eventually(lambda: there.counters["messages_in"])
        there.run(there.server.stop())
    assert "ValueError: on the way out" in caplog.text


def test_an_async_on_close_that_comes_with_the_deadline_is_called_all_the_same(engine_name: str) -> None:
    called: list[str] = []
    handlers = Handlers()

    @handlers.on_close
    async def last_words(conn: Any, close: Any) -> None:
        called.append(close.cause)

    with served(handlers, engine=engine_name) as there, there.socket() as peer:
        upgrade(peer)
        eventually(lambda: there.counters["connections_open"])
        worker = there.server.worker

        async def stop_at_once() -> None:
            worker.cut()
            worker.connections[0].abort()
            await there.server.stop()

        there.run(stop_at_once())
    assert called == [Cause.APP_ABORTED]


@pytest.mark.parametrize("from_loop", [True, False])
def test_any_connection_can_be_given_a_time_from_any_thread(engine_name: str, from_loop: bool) -> None:
    with served(echoing(), engine=engine_name) as there, there.clients(2) as (leaving, staying):
        worker = there.server.worker

        def expire() -> None:
            first = min(worker.connections, key=lambda conn: conn.id)
            worker.expire_at(first, time.time() - 1)

        there.call(expire) if from_loop else expire()
        with pytest.raises(ConnectionClosed) as caught:
            leaving.recv(timeout=WAIT_S)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "expired")
        staying.send("x")
        assert staying.recv(timeout=WAIT_S) == "x"
        eventually(lambda: there.counters["closes_expired"] == 1)
