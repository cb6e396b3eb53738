"""Methods of a connection called from other threads: done by the loop, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import PING, Frame, pack_close
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


def elsewhere(function: Callable[[], Any]) -> Any:
    """What `function` gives, or raises, in another thread."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = function()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def test_send_from_another_thread_arrives_and_counts_bytes_on_their_way(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    assert elsewhere(lambda: connection.send("hello")) is True
    assert connection.queued_bytes >= 5
    assert not peer.read()
    driver.until(lambda: peer.messages == ["hello"])
    assert connection.queued_bytes == 0


def test_sends_of_one_thread_keep_their_order(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    elsewhere(lambda: [connection.send(f"{i}") for i in range(500)])
    driver.until(lambda: len(peer.messages) == 500)
    assert peer.messages == [str(i) for i in range(500)]


def test_send_from_another_thread_is_false_over_high_water(drive: Drive) -> None:
    driver = drive(low_water_bytes=1000, high_water_bytes=5000)
    peer = driver.connect()
    connection = driver.only
    results = elsewhere(lambda: [connection.send(b"x" * 1000) for _ in range(10)])
    assert results[0] is True
    assert results[-1] is False
    driver.until(lambda: len(peer.messages) == 10)
    assert elsewhere(lambda: connection.send("under again")) is True


def test_what_send_raises_it_raises_in_the_calling_thread(drive: Drive) -> None:
    driver = drive()
    driver.connect()
    connection = driver.only
    with pytest.raises(TypeError):
        elsewhere(lambda: connection.send(7))
    with pytest.raises(ValueError, match="UTF-8"):
        elsewhere(lambda: connection.send(b"\xff", text=True))
    with pytest.raises(ValueError, match="1005"):
        elsewhere(lambda: connection.close(1005))
    with pytest.raises(ValueError, match="125"):
        elsewhere(lambda: connection.ping(b"x" * 126))
    assert connection.queued_bytes == 0


def test_a_bytearray_sent_from_another_thread_may_change_afterwards(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    message = bytearray(b"before")
    elsewhere(lambda: connection.send(message))
    message[:] = b"after!"
    driver.until(lambda: peer.messages == [b"before"])


def test_close_ping_and_abort_from_another_thread(drive: Drive) -> None:
    driver = drive()
    peer, other = driver.connect(), driver.connect()
    first, second = driver.engine.connections()
    elsewhere(lambda: (first.ping(b"p"), first.send("last"), first.close(4000, "done")))
    driver.until(lambda: peer.closed_with == (4000, "done"))
    assert peer.frames[0] == Frame(PING, b"p")
    assert peer.messages == ["last"]
    peer.say(pack_close(4000))
    driver.ended(peer)
    elsewhere(second.abort)
    driver.ended(other)
    driver.until(lambda: len(driver.named("on_close")) == 2)
    assert driver.named("on_close") == [Close(4000, "done", Cause.APP_CLOSED, True), Close(1006, "", Cause.APP_ABORTED, False)]


def test_a_send_that_arrives_after_the_close_is_nothing(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    elsewhere(lambda: connection.send("on its way"))
    connection.abort()
    driver.ended(peer)
    driver.rest()
    assert peer.messages == []
    assert connection.queued_bytes == 0
    assert elsewhere(lambda: connection.send("late")) is False


def test_attributes_can_be_read_from_another_thread(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    facts = elsewhere(lambda: (connection.path, connection.subprotocol, connection.remote_address, connection.is_open))
    assert facts == ("/", None, peer.socket.getsockname(), True)


def test_after_the_loop_has_ended_methods_do_nothing(drive: Drive) -> None:
    driver = drive()
    driver.connect()
    connection = driver.only

    driver.engine.close()
    assert elsewhere(lambda: connection.send("late")) is False
    elsewhere(lambda: (connection.close(), connection.abort(), connection.ping()))
    assert not connection.is_open


def test_many_threads_send_at_once_and_nothing_is_lost(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only

    def talk(name: int) -> None:
        for i in range(100):
            connection.send(f"{name} {i}")

    threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    driver.until(lambda: len(peer.messages) == 800)
    for thread in threads:
        thread.join()
    for name in range(8):
        assert [m for m in peer.messages if str(m).startswith(f"{name} ")] == [f"{name} {i}" for i in range(100)]
    assert connection.queued_bytes == 0
