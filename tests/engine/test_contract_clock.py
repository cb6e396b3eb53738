"""The clock hand: heartbeats, idle limits, deadlines, and memory given back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.engine.driver import Driver
from tests.peer import PING, PONG, TEXT, Frame, pack, pack_close, request
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]


def beat(drive: Drive) -> Driver:
    return drive(ping_interval_s=0.1, ping_timeout_s=0.2)


def test_a_silent_peer_is_pinged(drive: Drive) -> None:
    driver = beat(drive)
    peer = driver.connect()
    driver.until(lambda: peer.frames, ticking=True)
    assert peer.frames == [Frame(PING, b"")]


@pytest.mark.parametrize(("silent_s", "some", "all_of_them"), [(860, False, False), (940, True, False), (1001, True, True)])
def test_those_who_were_silent_together_are_not_pinged_together(drive: Drive, silent_s: int, some: bool, all_of_them: bool) -> None:
    source, driver = drive(), drive(ping_interval_s=1000)
    for _ in range(50):
        source.connect()
    leaving = source.engine.depart(50)
    for fd, moved, _ in leaving:
        driver.engine.adopt(os.dup(fd), moved._replace(seen_s=silent_s), 0)
    source.engine.departed([fd for fd, _, _ in leaving])
    driver.peers, source.peers = source.peers, []
    driver.sweep()
    driver.rest()
    pinged = [peer for peer in driver.peers if peer.frames]
    assert (bool(pinged), len(pinged) == 50) == (some, all_of_them)


def test_a_peer_that_does_not_answer_is_lost(drive: Drive) -> None:
    driver = beat(drive)
    peer = driver.connect()
    driver.until(lambda: driver.named("on_close"), ticking=True)
    assert driver.named("on_close") == [Close(1006, "", Cause.HEARTBEAT_LOST, False)]
    assert driver.count("closes_heartbeat_lost") == 1
    driver.ended(peer)
    assert [frame.opcode for frame in peer.frames] == [PING]


@pytest.mark.parametrize("life", [pack(PONG), pack(PING), pack(TEXT, b"a"), b"\x81"], ids=["pong", "ping", "message", "one byte"])
def test_any_byte_is_a_sign_of_life(drive: Drive, life: bytes) -> None:
    driver = beat(drive)
    peer = driver.connect()
    driver.until(lambda: peer.frames, ticking=True)
    peer.say(life)
    pinged = len(peer.frames)
    driver.until(lambda: len([f for f in peer.frames if f.opcode == PING]) > pinged, ticking=True)
    assert driver.named("on_close") == []


def test_a_peer_that_answers_stays(drive: Drive) -> None:
    driver = beat(drive)
    peer = driver.connect()
    answered = 0

    def answer() -> bool:
        nonlocal answered
        while answered < len(peer.frames):
            peer.say(pack(PONG))
            answered += 1
        return answered >= 4

    driver.until(answer, ticking=True)
    assert driver.named("on_close") == []


def test_no_heartbeats_when_they_are_switched_off(drive: Drive) -> None:
    driver = drive(ping_interval_s=0)
    peer = driver.connect()
    until = time.monotonic() + 0.3
    driver.until(lambda: time.monotonic() > until, ticking=True)
    assert peer.frames == []
    assert driver.only.is_open


def test_the_deadline_stands_still_while_held(drive: Drive) -> None:
    driver = beat(drive)
    peer = driver.connect()
    connection = driver.only
    driver.engine.hold(connection)
    until = time.monotonic() + 0.6
    driver.until(lambda: time.monotonic() > until, ticking=True)
    assert connection.is_open
    driver.engine.release(connection)
    driver.until(lambda: driver.named("on_close"), ticking=True)
    assert driver.named("on_close") == [Close(1006, "", Cause.HEARTBEAT_LOST, False)]
    driver.ended(peer)


def test_the_deadline_stands_still_while_reads_are_paused(drive: Drive) -> None:
    driver = drive(
        ping_interval_s=0.1, ping_timeout_s=0.2, sndbuf_bytes=4096, low_water_bytes=8192, high_water_bytes=32768,
    )  # fmt: skip
    driver.connect(receive_bytes=4096)
    connection = driver.only
    while connection.send(b"x" * 1000):
        pass
    until = time.monotonic() + 0.6
    driver.until(lambda: time.monotonic() > until, ticking=True, reading=False)
    assert connection.is_open


def test_after_a_lag_of_the_loop_nobody_is_lost_before_he_had_his_time(drive: Drive) -> None:
    driver = beat(drive)
    peer = driver.connect()
    driver.until(lambda: peer.frames, ticking=True)
    time.sleep(1.1)  # the loop stands still
    driver.sweep()
    driver.turn()
    assert driver.named("on_close") == []
    peer.say(pack(PONG))
    driver.rest()
    driver.sweep()
    driver.rest()
    assert driver.named("on_close") == []


def test_an_idle_connection_is_closed_with_1000(drive: Drive) -> None:
    driver = drive(idle_timeout_s=0.2)
    peer = driver.connect()
    driver.until(lambda: peer.closed_with, ticking=True)
    assert peer.closed_with == (1000, "idle")
    peer.say(pack_close(1000))
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1000, "idle", Cause.IDLE, True)]


def test_messages_keep_a_connection_from_being_idle_and_pongs_do_not(drive: Drive) -> None:
    driver = drive(idle_timeout_s=0.4)
    talker, ponger = driver.connect(), driver.connect()
    until = time.monotonic() + 1.0

    def talk() -> bool:
        if not talker.closed_with:
            talker.text("still here")
        if not ponger.ended and not ponger.closed_with:
            ponger.say(pack(PONG))
        return time.monotonic() > until

    driver.until(talk, ticking=True)
    assert talker.closed_with is None
    assert ponger.closed_with == (1000, "idle")


def test_a_held_connection_is_not_idle(drive: Drive) -> None:
    driver = drive(idle_timeout_s=0.1)
    driver.connect()
    connection = driver.only
    driver.engine.hold(connection)
    until = time.monotonic() + 0.3
    driver.until(lambda: time.monotonic() > until, ticking=True)
    assert connection.is_open
    driver.engine.release(connection)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n", request()[:-1]], ids=["nothing", "a line", "all but a byte"])
def test_a_late_handshake_is_cut(drive: Drive, said: bytes) -> None:
    driver = drive(handshake_timeout_s=0.1)
    peer = driver.dial()
    peer.say(said)
    driver.until(lambda: driver.count("handshakes_pending"))
    driver.until(lambda: peer.ended, ticking=True)
    assert peer.head == b""
    assert (driver.count("handshake_failures"), driver.count("closes_handshake_timeout")) == (1, 1)
    assert driver.calls == []


def test_a_slowly_dripping_request_is_late_all_the_same(drive: Drive) -> None:
    driver = drive(handshake_timeout_s=0.2)
    peer = driver.dial()
    drops = iter(request() + b"x" * 10000)

    def drip() -> bool:
        try:
            peer.socket.send(bytes((next(drops),)))
        except OSError:
            return True
        return bool(peer.ended) or peer.is_upgraded

    began = time.monotonic()
    driver.until(lambda: time.monotonic() - began > 0.25 or drip(), ticking=True)
    driver.until(lambda: peer.ended or peer.is_upgraded, ticking=True)
    assert not peer.is_upgraded or time.monotonic() - began < 0.5


def test_after_a_crowd_left_the_engine_serves_on(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(200)]
    connections = driver.engine.connections()
    for peer in peers:
        peer.close()
    driver.until(lambda: driver.count("connections_open") == 0, ticking=True)
    for _ in range(3):
        driver.sweep()
    assert len(driver.named("on_close")) == 200
    assert not any(connection.is_open for connection in connections)
    peer = driver.connect()
    peer.text("hello")
    driver.until(lambda: driver.named("on_message") == ["hello"])
