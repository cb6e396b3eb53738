"""How connections end, and what on_close is told."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, pack, pack_close, request
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999])
def test_a_close_is_answered_with_its_code(drive: Drive, code: int) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack_close(code, "grüße"))
    assert driver.ended(peer) == "eof"
    assert peer.frames == [Frame(CLOSE, code.to_bytes(2, "big"))]
    assert driver.named("on_close") == [Close(code, "grüße", Cause.PEER_CLOSED, True)]
    assert driver.count("closes_peer_closed") == 1


def test_a_close_without_a_code_is_answered_without_one(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(CLOSE))
    driver.ended(peer)
    assert peer.frames == [Frame(CLOSE, b"")]
    assert driver.named("on_close") == [Close(1005, "", Cause.PEER_CLOSED, True)]


def test_nothing_after_a_close_is_handled(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack_close(1000) + pack(TEXT, b"late") + pack(PING, b"late"))
    driver.ended(peer)
    assert driver.named("on_message") == []
    assert [frame.opcode for frame in peer.frames] == [CLOSE]


def test_a_close_inside_a_fragmented_message_ends_it(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"half", fin=False) + pack_close(1001))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1001, "", Cause.PEER_CLOSED, True)]


def test_what_was_sent_before_arrives_before_the_answer_to_a_close(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.send("first")
    driver.only.send("second")
    peer.say(pack_close(1000))
    driver.ended(peer)
    assert peer.messages == ["first", "second"]
    assert peer.frames[-1].opcode == CLOSE


def test_a_pong_that_crosses_a_close_does_not_reset_the_connection(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.ping(b"question")
    peer.say(pack_close(1000))  # it has not read the Ping yet, which it owes an answer all the same (RFC 6455, section 5.5.2)
    assert driver.ended(peer) == "eof"
    assert [frame.opcode for frame in peer.frames] == [PING, CLOSE]
    peer.say(pack(PONG, b"question"))
    assert peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # a reset comes at once on loopback


def test_a_heartbeat_that_crosses_a_close_does_not_reset_the_connection(drive: Drive) -> None:
    driver = drive(ping_interval_s=0.1, ping_timeout_s=60)
    peer = driver.connect()
    driver.until(lambda: peer.frames, ticking=True)
    peer.say(pack_close(1000))
    assert driver.ended(peer) == "eof"
    peer.say(pack(PONG))
    assert peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_our_close_waits_for_theirs(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    connection.send("goodbye")
    connection.close(4000, "bored")
    assert not connection.is_open
    driver.until(lambda: peer.closed_with)
    assert peer.messages == ["goodbye"]
    assert peer.closed_with == (4000, "bored")
    assert driver.named("on_close") == []
    peer.say(pack_close(4000))
    assert driver.ended(peer) == "eof"
    assert driver.named("on_close") == [Close(4000, "bored", Cause.APP_CLOSED, True)]
    assert driver.count("closes_app_closed") == 1


def test_after_our_close_messages_are_thrown_away_and_pings_not_answered(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.close()
    driver.until(lambda: peer.closed_with)
    peer.say(pack(TEXT, b"ignored") + pack(PING) + pack(TEXT, b"half", fin=False) + pack(CONTINUATION, b"") + pack_close(1000))
    driver.ended(peer)
    assert driver.named("on_message") == []
    assert len(peer.frames) == 1
    assert driver.named("on_close") == [Close(1000, "", Cause.APP_CLOSED, True)]


def test_a_peer_that_does_not_answer_our_close_is_cut_at_the_timeout(drive: Drive) -> None:
    driver = drive(close_timeout_s=0.1)
    peer = driver.connect()
    driver.only.close(1000, "over")
    driver.until(lambda: driver.named("on_close"), ticking=True)
    assert driver.named("on_close") == [Close(1000, "over", Cause.APP_CLOSED, False)]
    driver.ended(peer)


@pytest.mark.parametrize("leave", ["end", "reset"])
def test_a_peer_that_leaves_instead_of_answering_our_close_is_not_clean(drive: Drive, leave: str) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.close(1001, "")
    driver.until(lambda: peer.closed_with)
    getattr(peer, leave)()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1001, "", Cause.APP_CLOSED, False)]


def test_a_broken_rule_after_our_close_ends_it_not_clean(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.close(1000, "ours")
    driver.until(lambda: peer.closed_with)
    peer.say(pack(TEXT, b"\xff"))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1000, "ours", Cause.APP_CLOSED, False)]
    assert len(peer.frames) == 1


def test_the_first_close_of_several_counts(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    connection.close(4001, "first")
    connection.close(4002, "second")
    assert connection.send("late") is False
    driver.until(lambda: peer.closed_with)
    peer.say(pack_close(4001))
    driver.ended(peer)
    assert [frame.payload for frame in peer.frames] == [(4001).to_bytes(2, "big") + b"first"]
    assert driver.named("on_close") == [Close(4001, "first", Cause.APP_CLOSED, True)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_code_that_may_not_be_sent_raises(drive: Drive, code: int) -> None:
    driver = drive()
    driver.connect()
    with pytest.raises(ValueError, match=str(code)):
        driver.only.close(code)
    assert driver.only.is_open


def test_a_reason_over_123_bytes_raises(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    with pytest.raises(ValueError, match="123"):
        driver.only.close(1000, "é" * 62)
    driver.only.close(1000, "é" * 61)
    driver.until(lambda: peer.closed_with == (1000, "é" * 61))


def test_an_end_without_a_close_is_1006(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"last"))
    peer.end()
    driver.ended(peer)
    assert driver.named("on_message") == ["last"]
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)]
    assert peer.frames == []


def test_an_end_inside_a_frame_is_1006(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"unfinished")[:8])
    driver.rest()
    peer.end()
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)]


def test_a_reset_is_1006(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.reset()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_RESET, False)]


def test_abort_ends_the_stream_without_a_close(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    connection.abort()
    assert not connection.is_open
    driver.ended(peer)
    driver.until(lambda: driver.named("on_close"))
    assert peer.frames == []
    assert driver.named("on_close") == [Close(1006, "", Cause.APP_ABORTED, False)]


@pytest.mark.parametrize("end", ["close", "abort", "close, then abort", "abort, then close"])
def test_on_close_is_never_called_inside_the_handler_that_ends_the_connection(drive: Drive, end: str) -> None:
    order: list[str] = []

    def finish(connection: Any, message: str) -> None:
        order.append("handler begins")
        for how in end.split(", then "):
            getattr(connection, how)()
        connection.send("late")
        order.append("handler ends")

    driver = drive(on_message=finish, on_close=lambda connection, close: order.append(close.cause))
    peer = driver.connect()
    peer.say(pack(TEXT, b"a") + pack(TEXT, b"b") + pack_close(1000))
    driver.ended(peer)
    driver.until(lambda: len(order) == 3)
    cause = Cause.APP_ABORTED if end.startswith("abort") else Cause.APP_CLOSED
    assert order == ["handler begins", "handler ends", cause]
    assert peer.messages == []


def test_abort_from_on_connect_leaves_nothing(drive: Drive) -> None:
    driver = drive(on_connect=lambda connection: connection.abort())
    peer = driver.dial()
    peer.say(request() + pack(TEXT, b"a"))
    driver.ended(peer)
    driver.rest()
    assert driver.named("on_message") == []
    assert driver.named("on_close") == [Close(1006, "", Cause.APP_ABORTED, False)]


def test_close_from_on_connect_is_a_whole_close_handshake(drive: Drive) -> None:
    driver = drive(on_connect=lambda connection: connection.close(4003, "no"))
    peer = driver.connect()
    driver.until(lambda: peer.closed_with == (4003, "no"))
    peer.say(pack_close(4003))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(4003, "no", Cause.APP_CLOSED, True)]


def test_one_connection_may_abort_another_inside_a_handler(drive: Drive) -> None:
    held: list[Any] = []
    driver = drive(on_connect=held.append, on_message=lambda connection, message: [other.abort() for other in held])
    first, second = driver.connect(), driver.connect()
    first.text("everybody out")
    second.text("too late")
    driver.ended(first)
    driver.ended(second)
    driver.until(lambda: len(driver.named("on_close")) == 2)
    assert {close.cause for close in driver.named("on_close")} == {Cause.APP_ABORTED}


def test_a_peer_that_lingers_after_the_close_handshake_is_cut(drive: Drive) -> None:
    driver = drive(close_timeout_s=0.1)
    peer = driver.connect()
    peer.say(pack(TEXT, b"\xff"))  # an error Close: we wait for their end of the stream
    driver.ended(peer)
    assert driver.engine.drain(1001, "", 0) == 1
    driver.until(lambda: driver.engine.drain(1001, "", 0) == 0, ticking=True)


def test_drain_closes_a_batch_at_a_time_and_says_how_many_are_left(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(5)]
    assert driver.engine.drain(1001, "stopping", 2) == 5
    driver.until(lambda: sum(peer.closed_with is not None for peer in peers) == 2)
    driver.rest()
    assert sum(peer.closed_with is not None for peer in peers) == 2
    for left in (2, 2):
        driver.engine.drain(1001, "stopping", left)
    driver.until(lambda: all(peer.closed_with == (1001, "stopping") for peer in peers))
    for peer in peers:
        peer.say(pack_close(1001))
        driver.ended(peer)
        peer.close()
    driver.until(lambda: driver.engine.drain(1001, "stopping", 2) == 0)
    assert driver.named("on_close") == [Close(1001, "stopping", Cause.DRAIN, True)] * 5


def test_drain_cuts_unfinished_handshakes(drive: Drive) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(b"GET /")
    driver.until(lambda: driver.count("handshakes_pending"))
    assert driver.engine.drain(1001, "", 10) == 0
    driver.ended(peer)
    assert (driver.count("handshake_failures"), driver.count("closes_drain")) == (1, 1)


def test_close_of_the_engine_cuts_everyone_and_tells_on_close(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(3)]
    unfinished = driver.dial()
    unfinished.say(b"GET")
    driver.until(lambda: driver.count("handshakes_pending"))
    held = driver.engine.connections()[0]
    driver.engine.hold(held)
    driver.engine.close()
    assert driver.named("on_close") == [Close(1006, "", Cause.DRAIN, False)] * 3
    assert not held.is_open
    for peer in (*peers, unfinished):
        driver.until(lambda peer=peer: peer.read() or peer.ended)
    driver.engine.release(held)
    driver.engine.run()
    driver.engine.tick()
    driver.engine.close()
    assert len(driver.named("on_close")) == 3


def test_close_of_the_engine_gives_an_on_close_that_waited_for_a_release(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    held = driver.only
    driver.engine.hold(held)
    held.abort()
    driver.ended(peer)
    driver.rest()
    assert driver.named("on_close") == []
    driver.engine.close()
    assert driver.named("on_close") == [Close(1006, "", Cause.APP_ABORTED, False)]
    driver.engine.release(held)
    assert len(driver.named("on_close")) == 1
