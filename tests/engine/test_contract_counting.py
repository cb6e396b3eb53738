"""What both engines count beyond single numbers: the time of messages, and the last closes."""

from __future__ import annotations

import time
from typing import Any

from tests.engine.driver import Driver
from tests.peer import pack_close
from unlimitedws.engine import closes, counters
from unlimitedws.wire.closing import Cause


def histogram(driver: Driver) -> dict[str, int]:
    return {field.label: driver.row[counters.INDEX[field.name]] for field in counters.MESSAGE_HANDLING.fields}


def test_every_message_of_a_turn_is_in_the_histogram(drive: Any) -> None:
    driver = drive()
    assert set(histogram(driver).values()) == {0}
    one, other = driver.connect(), driver.connect()
    for peer in (one, other):
        for _ in range(20):
            peer.text("hello")
    driver.until(lambda: driver.count("messages_in") == 40)
    driver.rest()
    counted = histogram(driver)
    assert counted.pop("sum") > 0
    assert sum(counted.values()) == 40


def test_a_slow_handler_is_seen_and_the_messages_of_its_turn_share_its_time(drive: Any) -> None:
    driver = drive(on_message=lambda connection, message: time.sleep(0.03))
    peer = driver.connect()
    peer.text("hello")
    driver.until(lambda: driver.count("messages_in") == 1)
    driver.rest()
    counted = histogram(driver)
    assert counted["sum"] >= 30_000_000
    assert sum(n for label, n in counted.items() if label in ("more", "sum") or int(label) >= 50_000_000) - counted["sum"] == 1


def test_a_turn_without_messages_counts_nothing(drive: Any) -> None:
    driver = drive()
    driver.connect().close()
    driver.until(lambda: driver.count("connections_open") == 0)
    assert set(histogram(driver).values()) == {0}


def test_the_end_of_a_websocket_is_noted_with_id_code_cause_and_time(drive: Any) -> None:
    driver = drive()
    before_ms = time.monotonic_ns() // 1_000_000
    polite, broken = driver.connect(), driver.connect()
    polite_id, broken_id = sorted(connection.id for connection in driver.engine.connections())
    polite.say(pack_close(1000))
    driver.until(lambda: driver.count("closes_peer_closed"))
    broken.say(b"\xff" * 8)
    driver.until(lambda: driver.count("closes_protocol_error"))
    after_ms = time.monotonic_ns() // 1_000_000
    noted = closes.last(driver.row)
    assert [(close.id, close.code, close.cause) for close in noted] == [
        (polite_id, 1000, Cause.PEER_CLOSED),
        (broken_id, 1002, Cause.PROTOCOL_ERROR),
    ]
    assert all((close.at_ms - before_ms + 1000) % closes.WRAP_MS <= after_ms - before_ms + 2000 for close in noted)


def test_a_request_that_is_refused_takes_no_place_among_the_closes(drive: Any) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.until(lambda: driver.count("handshake_failures") + driver.count("http_requests"))
    assert closes.last(driver.row) == []
