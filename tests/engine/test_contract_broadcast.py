"""One message for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, TEXT, Frame, pack, pack_close
from unlimitedws.wire.closing import Cause

Drive = Callable[..., Driver]
KIB = 1024


def test_a_broadcast_reaches_every_open_connection(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(5)]
    driver.dial()
    assert driver.engine.broadcast("hello") == 5
    driver.until(lambda: all(peer.messages == ["hello"] for peer in peers))
    driver.rest()
    assert driver.count("messages_out") == 5


def test_a_broadcast_to_some_passes_over_the_closed(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(4)]
    connections = driver.engine.connections()
    connections[0].close()
    connections[1].abort()
    driver.ended(peers[1])
    assert driver.engine.broadcast(b"some", iter(connections[:3])) == 1
    driver.until(lambda: peers[2].messages)
    driver.rest()
    assert [peer.messages for peer in peers] == [[], [], [b"some"], []]


def test_a_broadcast_to_nobody_is_zero(drive: Drive) -> None:
    driver = drive()
    assert driver.engine.broadcast("hello") == 0
    driver.connect()
    assert driver.engine.broadcast("hello", []) == 0


@pytest.mark.parametrize(
    ("message", "text", "frame"),
    [
        ("té", None, Frame(TEXT, "té".encode())),
        ("té", False, Frame(BINARY, "té".encode())),
        (b"raw", None, Frame(BINARY, b"raw")),
        (bytearray(b"raw"), True, Frame(TEXT, b"raw")),
        (memoryview(b"raw"), None, Frame(BINARY, b"raw")),
    ],
)
def test_a_broadcast_takes_what_send_takes(drive: Drive, message: Any, text: bool | None, frame: Frame) -> None:
    driver = drive()
    peer = driver.connect()
    driver.engine.broadcast(message, text=text)
    driver.until(lambda: peer.frames == [frame])


def test_a_broadcast_raises_what_send_raises(drive: Drive) -> None:
    driver = drive()
    driver.connect()
    with pytest.raises(TypeError):
        driver.engine.broadcast(7)
    with pytest.raises(ValueError, match="UTF-8"):
        driver.engine.broadcast(b"\xff", text=True)
    with pytest.raises(TypeError):
        driver.engine.broadcast("hello", [object()])
    other = drive()
    other.connect()
    theirs = other.engine.connections()
    with pytest.raises(ValueError, match="another"):
        driver.engine.broadcast("hello", theirs)


def test_broadcasts_of_one_turn_reach_a_peer_together_and_in_order_with_its_own(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(3)]
    first = driver.engine.connections()[0]
    driver.engine.broadcast("1")
    first.send("own")
    driver.engine.broadcast("2")
    driver.engine.broadcast("3", driver.engine.connections()[1:])
    driver.engine.broadcast("4")
    assert not driver.read()
    driver.turn()
    for peer in peers:
        driver.until(lambda peer=peer: peer.read(4096), reading=False)
    assert peers[0].messages == ["1", "own", "2", "4"]
    assert peers[1].messages == peers[2].messages == ["1", "2", "3", "4"]


def test_a_broadcast_inside_a_handler_keeps_the_order_of_its_answers(drive: Drive) -> None:
    def tell(connection: Any, message: str) -> None:
        connection.send("before")
        driver.engine.broadcast(message)
        connection.send("after")

    driver = drive(on_message=tell)
    talker, listener = driver.connect(), driver.connect()
    talker.say(pack(TEXT, b"a") + pack(TEXT, b"b"))
    driver.until(lambda: len(talker.messages) == 6 and len(listener.messages) == 2)
    assert talker.messages == ["before", "a", "after", "before", "b", "after"]
    assert listener.messages == ["a", "b"]


def test_thousands_of_broadcasts_arrive_in_order(drive: Drive) -> None:
    driver = drive()
    peers = [driver.connect() for _ in range(3)]
    for start in range(0, 3000, 100):
        for i in range(start, start + 100):
            driver.engine.broadcast(b"%d " % i * 50)
        driver.turn()
        driver.read()
    driver.until(lambda: all(len(peer.messages) == 3000 for peer in peers))
    for peer in peers:
        assert peer.messages == [b"%d " % i * 50 for i in range(3000)]


def test_the_queue_limit_holds_for_each_receiver(drive: Drive) -> None:
    driver = drive(sndbuf_bytes=4 * KIB, low_water_bytes=8 * KIB, high_water_bytes=32 * KIB, queue_bytes=64 * KIB)
    slow = driver.connect(receive_bytes=4 * KIB)
    quick = driver.connect()
    slow_connection, quick_connection = driver.engine.connections()
    sent = 0
    while slow_connection.is_open:
        driver.engine.broadcast(b"x" * 1000)
        sent += 1
        driver.until(lambda: not quick.read() and quick_connection.queued_bytes == 0, reading=False)
    driver.until(lambda: len(quick.messages) == sent, reading=False)
    driver.until(lambda: slow.closed_with)
    assert slow.closed_with is not None
    assert slow.closed_with[0] == 1013
    assert slow.messages == [b"x" * 1000] * len(slow.messages)
    slow.say(pack_close(1013))
    driver.ended(slow)
    assert [close.cause for close in driver.named("on_close")] == [Cause.SLOW_CONSUMER]
