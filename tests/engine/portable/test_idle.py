"""What an idle connection costs: its row, and nothing else that is kept by its descriptor."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.engine.streams import Told
from tests.peer import BINARY, TEXT, pack
from unlimitedws.wire.deflate import Compressor, Policy

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    made: list[Driver] = []
    yield made
    for driver in made:
        driver.close()


def make(drivers: list[Driver], **given: Any) -> Driver:
    drivers.append(Driver("portable", [], {"on_connect": None, "on_close": None, "on_drain": None, "on_message": echo, **given}))
    return drivers[-1]


def echo(connection: Any, message: Any) -> None:
    connection.send(message)


def kept(driver: Driver) -> dict[str, int]:
    """Every container of the engine that is not empty, and is not there for all connections together."""
    engine: Any = driver.engine
    found = {}
    for owner in (engine, engine.output, engine.hand, engine.deflating, engine.table, *([engine.rates] if engine.rates else [])):
        for name, value in vars(owner).items():
            if isinstance(value, dict | set) and value and name != "compressors":
                found[f"{type(owner).__name__}.{name}"] = len(value)
    return found


def settle(driver: Driver) -> None:
    driver.rest()
    driver.sweep()


def test_an_idle_connection_is_its_row(drivers: list[Driver]) -> None:
    driver = make(drivers)
    peers = [driver.connect() for _ in range(20)]
    for peer in peers:
        peer.say(pack(TEXT, b"hello") + pack(BINARY, b"x" * 70_000))
    driver.until(lambda: all(len(peer.messages) == 2 for peer in peers))
    settle(driver)
    assert kept(driver) == {}


def test_an_idle_connection_with_deflate_is_its_row(drivers: list[Driver]) -> None:
    driver = make(drivers, deflate_threshold_bytes=0)
    driver.front.deflate = Policy()
    peers = [driver.connect("/", OFFER) for _ in range(20)]
    compressed = pack(TEXT, Compressor(12, 3).compress(b"hello " * 500), rsv=4)
    for peer in peers:
        peer.say(compressed + pack(TEXT, b"in pieces")[:5])
    driver.rest()
    assert kept(driver).keys() == {"Engine._readers", "Engine._kept"} or kept(driver).keys() == {"Engine._readers"}
    for peer in peers:
        peer.say(pack(TEXT, b"in pieces")[5:])
    driver.until(lambda: all(len(peer.frames) == 2 for peer in peers))
    settle(driver)
    assert kept(driver) == {}
    assert len(driver.engine.deflating.compressors) == 1


def test_an_idle_connection_with_deflate_costs_what_a_plain_one_does(drivers: list[Driver]) -> None:
    costs = []
    for headers in ((), (OFFER,)):
        driver = make(drivers, deflate_threshold_bytes=0)
        driver.front.deflate = Policy()
        for _ in range(2):  # the first ones make what all share
            driver.connect("/", *headers).text("hello")
        driver.rest()
        gc.collect()
        tracemalloc.start()
        before = engine_bytes()
        peers = [driver.connect("/", *headers) for _ in range(100)]
        for peer in peers:
            peer.text("hello")
        driver.rest()
        driver.sweep()
        driver.front.pipes.clear()  # the test's own
        costs.append((engine_bytes() - before) / len(peers))
        tracemalloc.stop()
    assert max(costs) < 20, costs


def engine_bytes() -> int:
    """What code of this package has allocated and not freed, rows of the table apart."""
    gc.collect()
    ours = [tracemalloc.Filter(True, "*/unlimitedws/*"), tracemalloc.Filter(False, "*/portable/table.py")]
    snapshot = tracemalloc.take_snapshot().filter_traces(ours)
    return sum(trace.size for trace in snapshot.traces)


def test_an_idle_unix_connection_is_its_row(drivers: list[Driver], tmp_path: Path) -> None:
    driver = make(drivers)
    driver.listen(socket.AF_UNIX, str(tmp_path / "socket"))
    for _ in range(5):
        driver.connect()
    settle(driver)
    assert kept(driver) == {}


def test_a_connection_within_its_rates_is_its_row(drivers: list[Driver]) -> None:
    driver = make(drivers, messages_per_s=1000, bytes_per_s=1e6, rate_burst_s=0.05)
    peer = driver.connect()
    peer.text("hello")
    driver.until(lambda: peer.messages)
    driver.until(lambda: kept(driver) == {}, ticking=True)


def test_after_its_requests_a_connection_is_its_row(drivers: list[Driver]) -> None:
    driver = make(drivers)
    driver.front.streams[b"/stream"] = lambda: Told(begin=lambda pipe: (pipe.write(b"x" * 1000), pipe.restart()))
    peer = driver.dial()
    peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
    driver.until(lambda: len(peer.received) == 5000)
    settle(driver)
    assert kept(driver) == {}


def test_whoever_was_cut_leaves_nothing(drivers: list[Driver]) -> None:
    driver = make(drivers, sndbuf_bytes=4096)
    driver.front.deflate = Policy(takeover=True)
    driver.front.streams[b"/stream"] = lambda: Told(begin=lambda pipe: (pipe.write(bytes(200_000)), pipe.pause()))
    peers = [driver.dial(receive_bytes=4096) for _ in range(3)]
    for peer in peers:
        peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\nmore")
    peers.append(driver.connect("/", OFFER))
    driver.only.send(os_noise())
    driver.rest()
    assert kept(driver)
    for peer in peers:
        peer.reset()
    driver.until(lambda: driver.count("handshakes_pending") == driver.count("connections_open") == 0)
    settle(driver)
    assert kept(driver) == {}


def os_noise() -> bytes:
    return bytes(range(256)) * 4000
