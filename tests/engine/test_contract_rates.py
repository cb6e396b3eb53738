"""How much one connection may send: messages and bytes a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, PING, PONG, TEXT, Peer, pack, pack_close
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


def send_many(peer: Peer, count: int, size: int = 4) -> None:
    peer.socket.setblocking(True)
    peer.say(pack(BINARY, b"x" * size) * count)
    peer.socket.setblocking(False)


def test_a_burst_is_handled_at_once_and_the_rest_has_to_wait(drive: Drive) -> None:
    driver = drive(messages_per_s=20, rate_burst_s=0.5)
    began = time.monotonic()
    peer = driver.connect()
    send_many(peer, 30)
    driver.until(lambda: len(driver.named("on_message")) >= 10)
    driver.rest()
    assert len(driver.named("on_message")) <= 11 + 20 * (time.monotonic() - began)  # however long it took until here
    driver.until(lambda: len(driver.named("on_message")) == 30, ticking=True)
    assert 0.9 < time.monotonic() - began < 5
    assert driver.only.is_open


def test_the_messages_that_wait_come_in_their_order(drive: Drive) -> None:
    driver = drive(messages_per_s=100, rate_burst_s=0.2)
    peer = driver.connect()
    peer.say(b"".join(pack(TEXT, f"{number}".encode()) for number in range(60)))
    driver.until(lambda: len(driver.named("on_message")) == 60, ticking=True)
    assert driver.named("on_message") == [f"{number}" for number in range(60)]


def test_bytes_are_limited_with_their_framing_whatever_they_are(drive: Drive) -> None:
    driver = drive(bytes_per_s=10_000, rate_burst_s=0.5, receive_bytes=4096)
    began = time.monotonic()
    peer = driver.connect()
    send_many(peer, 1, 5_000)
    driver.until(lambda: driver.named("on_message"))
    peer.say(pack(PONG, b"x" * 100) * 150)
    driver.rest()
    read = driver.count("bytes_in")
    assert read < 5_000 + 3 * 4096 + 10_000 * (time.monotonic() - began)  # however long it took until here
    driver.until(lambda: driver.count("bytes_in") > 20_000, ticking=True)
    assert time.monotonic() - began > 0.8
    assert driver.only.is_open


def test_a_message_larger_than_the_burst_comes_all_the_same(drive: Drive) -> None:
    driver = drive(bytes_per_s=50_000, rate_burst_s=0.1)
    peer = driver.connect()
    send_many(peer, 1, 20_000)
    driver.until(lambda: driver.named("on_message"), ticking=True)
    assert len(driver.named("on_message")[0]) == 20_000


@pytest.mark.parametrize("settings", [{"messages_per_s": 10}, {"bytes_per_s": 100}], ids=["messages", "bytes"])
def test_who_sends_too_much_is_closed_where_the_policy_is_to_close(drive: Drive, settings: dict[str, Any]) -> None:
    driver = drive(rate_policy="close", **settings)
    began = time.monotonic()
    peer = driver.connect()
    send_many(peer, 50)
    driver.until(lambda: peer.closed_with)
    assert peer.closed_with == (1008, "too fast")
    assert len(driver.named("on_message")) <= 11 + 10 * (time.monotonic() - began)
    peer.say(pack_close(1008))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1008, "too fast", Cause.RATE, True)]
    assert driver.count("closes_rate") == 1


def test_who_keeps_to_the_rate_is_never_kept_waiting(drive: Drive) -> None:
    driver = drive(messages_per_s=40, rate_burst_s=0.25, rate_policy="close")
    peer = driver.connect()
    for number in range(30):
        peer.text(str(number))
        driver.until(lambda number=number: len(driver.named("on_message")) == number + 1)
        time.sleep(0.03)
    assert peer.closed_with is None


def test_control_frames_are_no_messages(drive: Drive) -> None:
    driver = drive(messages_per_s=2, rate_policy="close")
    peer = driver.connect()
    peer.say(pack(PING, b"x") * 50)
    driver.until(lambda: sum(frame.opcode == PONG for frame in peer.frames) == 50)
    assert peer.closed_with is None


def test_one_that_waits_for_its_rate_is_neither_lost_nor_idle(drive: Drive) -> None:
    driver = drive(messages_per_s=2, ping_interval_s=0.1, ping_timeout_s=0.1, idle_timeout_s=0.4)
    peer = driver.connect()
    send_many(peer, 4)
    until = time.monotonic() + 0.8
    driver.until(lambda: time.monotonic() > until, ticking=True)
    assert driver.named("on_close") == []
    driver.until(lambda: len(driver.named("on_message")) == 4, ticking=True)


def test_one_that_waits_may_be_closed_and_its_close_is_found_behind_what_waits(drive: Drive) -> None:
    driver = drive(messages_per_s=1)
    peer = driver.connect()
    peer.say(pack(BINARY, b"x") * 20 + pack_close(1000))
    driver.until(lambda: driver.named("on_message"))
    driver.rest()
    driver.only.close(1001)
    driver.ended(peer)
    assert peer.closed_with == (1001, "")
    assert driver.named("on_close") == [Close(1001, "", Cause.APP_CLOSED, True)]


def test_one_that_waits_and_leaves_is_gone(drive: Drive) -> None:
    driver = drive(messages_per_s=1)
    peer, other = driver.connect(), driver.connect()
    send_many(peer, 20)
    driver.until(lambda: driver.named("on_message"))
    peer.reset()
    driver.until(lambda: driver.count("connections_open") == 1)
    other.text("another is not concerned")
    driver.until(lambda: "another is not concerned" in driver.named("on_message"))
