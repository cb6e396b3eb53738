"""What the front is told of every WebSocket at its end, where the access log is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.engine.driver import Driver
from tests.peer import BINARY, PING, TEXT, pack, pack_close, request
from unlimitedws.wire.closing import Cause

Drive = Callable[..., Driver]


def test_the_front_is_told_of_the_end_once_and_before_on_close(drive: Drive) -> None:
    order: list[Any] = []
    driver = drive(on_close=lambda connection, close: order.append(("on_close", connection, close)), access_log=True)
    driver.front.ended = lambda *told: order.append(("ended", *told))  # type: ignore[method-assign]
    peer = driver.connect("/other?token=secret")
    connection = driver.only
    peer.say(pack_close(3000, "bye"))
    driver.ended(peer)
    ended, closed = order
    assert ended[:2] == ("ended", connection)
    assert closed[:2] == ("on_close", connection)
    assert ended[2] == closed[2]
    assert (ended[2].code, ended[2].cause) == (3000, Cause.PEER_CLOSED)
    assert (connection.path, connection.remote_address) == ("/other", peer.socket.getsockname())


def test_bytes_are_those_of_the_websocket_with_their_framing(drive: Drive) -> None:
    driver = drive(on_message=lambda connection, message: connection.send(message * 2), access_log=True)
    peer = driver.dial()
    early, late = pack(TEXT, b"early"), pack(BINARY, b"x" * 300) + pack(PING, b"?")
    peer.say(request() + early)
    driver.until(lambda: len(peer.frames) == 1)
    peer.say(late)
    driver.until(lambda: len(peer.frames) == 3)
    peer.say(pack_close(1000))
    driver.ended(peer)
    ((_, close, received, sent, _),) = driver.front.ends
    assert close.cause == Cause.PEER_CLOSED
    assert received == len(early + late + pack_close(1000))
    assert sent == (2 + 10) + (4 + 600) + (2 + 1) + (2 + 2)


def test_the_duration_begins_with_the_handshake(drive: Drive) -> None:
    driver = drive(access_log=True)
    peer = driver.dial()
    time.sleep(0.3)
    began = time.monotonic()
    peer.say(request())
    driver.until(lambda: peer.is_upgraded)
    time.sleep(0.2)
    peer.say(pack(TEXT, b"a message"))
    driver.until(lambda: driver.named("on_message"))
    peer.close()
    driver.until(lambda: driver.front.ends)
    assert 0.15 < driver.front.ends[0][4] <= time.monotonic() - began + 0.05


def test_every_end_is_told_and_what_never_opened_is_not(drive: Drive) -> None:
    driver = drive({"on_close": None, "on_connect": None, "on_message": None, "on_drain": None}, access_log=True)
    driver.dial().say(b"garbage\r\n\r\n")
    driver.connect().reset()
    driver.connect().say(b"\xff\xff")
    driver.connect().end()
    driver.connect()
    driver.until(lambda: len(driver.front.ends) == 3)
    driver.only.abort()
    driver.until(lambda: len(driver.front.ends) == 4)
    causes = {told[1].cause for told in driver.front.ends}
    assert causes == {Cause.PEER_RESET, Cause.PROTOCOL_ERROR, Cause.PEER_EOF, Cause.APP_ABORTED}


def test_the_close_of_an_engine_is_told(drive: Drive) -> None:
    driver = drive(access_log=True)
    driver.connect()
    driver.engine.close()
    assert [told[1].cause for told in driver.front.ends] == [Cause.DRAIN]


def test_nothing_is_told_where_the_log_is_off(drive: Drive) -> None:
    driver = drive()
    driver.connect().close()
    driver.until(lambda: driver.named("on_close"))
    assert driver.front.ends == []
