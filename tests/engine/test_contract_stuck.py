"""A peer that does not read, and one that reads slowly."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.engine.driver import Driver
from tests.engine.streams import Told
from tests.peer import BINARY, pack
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


def test_one_that_reads_nothing_of_what_waits_is_cut(drive: Drive) -> None:
    driver = drive(stuck_timeout_s=0.3, sndbuf_bytes=4096, ping_interval_s=0.1, ping_timeout_s=0.1)
    peer = driver.connect(receive_bytes=4096)
    driver.only.send(bytes(300_000))
    driver.until(lambda: driver.count("queued_bytes"), reading=False)
    driver.until(lambda: driver.named("on_close"), ticking=True, reading=False)
    assert driver.named("on_close") == [Close(1006, "", Cause.SLOW_CONSUMER, False)]
    assert (driver.count("closes_slow_consumer"), driver.count("queued_bytes")) == (1, 0)
    driver.ended(peer)


def test_one_that_goes_on_sending_and_never_reads_the_answers_is_cut(drive: Drive) -> None:
    driver = drive(
        on_message=lambda connection, message: connection.send(message),
        stuck_timeout_s=0.3, sndbuf_bytes=4096, low_water_bytes=10_000, high_water_bytes=50_000,
    )  # fmt: skip
    peer = driver.connect(receive_bytes=4096)
    frame = pack(BINARY, bytes(1000))  # once: a clock that stands still for long is forgiven

    def flood() -> bool:
        try:
            while True:
                peer.socket.send(frame)
        except BlockingIOError:
            return bool(driver.named("on_close"))
        except OSError:
            return True

    driver.until(flood, ticking=True, reading=False)
    driver.until(lambda: driver.named("on_close"), reading=False)
    assert driver.named("on_close") == [Close(1006, "", Cause.SLOW_CONSUMER, False)]


def test_one_that_reads_a_little_all_the_time_stays(drive: Drive) -> None:
    driver = drive(stuck_timeout_s=0.3, sndbuf_bytes=200_000, ping_interval_s=0)
    peer = driver.connect(receive_bytes=4096)
    connection = driver.only
    connection.send(bytes(900_000))
    driver.until(lambda: driver.count("queued_bytes"), reading=False)
    queued = driver.count("queued_bytes")
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        peer.read(4096)  # too little for the kernel to tell us of room in its buffer
        driver.turn()
        driver.sweep()
        time.sleep(0.02)
    assert queued - driver.count("queued_bytes") < 500_000
    assert connection.is_open


def test_nothing_waits_for_an_idle_peer_that_reads_nothing(drive: Drive) -> None:
    driver = drive(stuck_timeout_s=0.1, ping_interval_s=0)
    driver.connect()
    driver.only.send(b"fits into the kernel's buffer")
    until = time.monotonic() + 0.4
    driver.until(lambda: time.monotonic() > until, ticking=True, reading=False)
    assert driver.only.is_open


def test_a_timeout_of_0_waits_forever(drive: Drive) -> None:
    driver = drive(stuck_timeout_s=0, sndbuf_bytes=4096, ping_interval_s=0)
    driver.connect(receive_bytes=4096)
    driver.only.send(bytes(300_000))
    until = time.monotonic() + 0.4
    driver.until(lambda: time.monotonic() > until, ticking=True, reading=False)
    assert driver.only.is_open


def test_a_stream_whose_peer_reads_nothing_is_lost(drive: Drive) -> None:
    stream = Told(begin=lambda pipe: pipe.write(bytes(300_000)))
    driver = drive(stuck_timeout_s=0.3, sndbuf_bytes=4096)
    driver.front.streams[b"/stream"] = lambda: stream
    peer = driver.dial(receive_bytes=4096)
    peer.say(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.until(lambda: "lost" in stream.names, ticking=True, reading=False)
    assert (driver.count("closes_slow_consumer"), driver.count("handshake_failures")) == (1, 1)
    driver.ended(peer)
