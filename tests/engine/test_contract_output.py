"""Sending: types, corking, water marks, the queue limit and its policies, Pongs of a slow peer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, PING, PONG, TEXT, Frame, Peer, pack, pack_close
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]

KIB = 1024
SMALL: dict[str, Any] = {
    "sndbuf_bytes": 4 * KIB, "low_water_bytes": 8 * KIB, "high_water_bytes": 32 * KIB, "queue_bytes": 64 * KIB,
}  # fmt: skip


def slow(drive: Drive, **given: Any) -> tuple[Driver, Peer, Any]:
    """An engine with small queues, a peer that reads only when told to, and its connection."""
    driver = drive(**{**SMALL, **given})
    peer = driver.connect(receive_bytes=4 * KIB)
    return driver, peer, driver.only


def fill(connection: Any, size: int = 1000) -> int:
    """Sends until the queue is over high water; how many messages were taken."""
    for taken in range(1, 100_000):
        before = connection.queued_bytes
        if not connection.send(b"x" * size):
            assert connection.queued_bytes > before
            return taken
    raise AssertionError("the queue never reached high water")


@pytest.mark.parametrize(
    ("message", "text", "frame"),
    [
        ("té", None, Frame(TEXT, "té".encode())),
        ("té", True, Frame(TEXT, "té".encode())),
        ("té", False, Frame(BINARY, "té".encode())),
        (b"bytes", None, Frame(BINARY, b"bytes")),
        (b"bytes", False, Frame(BINARY, b"bytes")),
        (b"bytes", True, Frame(TEXT, b"bytes")),
        (bytearray(b"array"), None, Frame(BINARY, b"array")),
        (bytearray(b"array"), True, Frame(TEXT, b"array")),
        (memoryview(b"a view")[2:], None, Frame(BINARY, b"view")),
        (memoryview(b"v.i.e.w")[::2], None, Frame(BINARY, b"view")),
        (memoryview(b"a view")[2:], True, Frame(TEXT, b"view")),
        (b"", None, Frame(BINARY, b"")),
        ("", None, Frame(TEXT, b"")),
    ],
)
def test_what_is_sent_for_each_type(drive: Drive, message: Any, text: bool | None, frame: Frame) -> None:
    driver = drive()
    peer = driver.connect()
    assert driver.only.send(message, text=text) is True
    driver.until(lambda: peer.frames)
    assert peer.frames == [frame]


@pytest.mark.parametrize("message", [None, 7, 1.5, ["list"], object()])
def test_other_types_raise_type_error(drive: Drive, message: Any) -> None:
    driver = drive()
    driver.connect()
    connection = driver.only
    with pytest.raises(TypeError, match="str, bytes, bytearray or memoryview"):
        connection.send(message)
    connection.abort()
    assert connection.send("too late") is False


def test_text_of_bytes_must_be_utf8(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    for message in (b"\xff", bytearray(b"\xc0\x80"), memoryview(b"\xed\xa0\x80")):
        with pytest.raises(ValueError, match="UTF-8"):
            driver.only.send(message, text=True)
    driver.only.send(b"after", text=True)
    driver.until(lambda: peer.messages == ["after"])


def test_a_bytearray_may_change_after_it_was_sent(drive: Drive) -> None:
    for size in (10, 10_000, 200_000):
        driver = drive()
        peer = driver.connect()
        message = bytearray(b"a" * size)
        driver.only.send(message)
        driver.only.send(memoryview(message))
        message[:] = b"b" * size
        driver.until(lambda peer=peer: len(peer.messages) == 2)
        assert peer.messages == [b"a" * size] * 2


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 300_000])
def test_every_length_form_is_the_shortest(drive: Drive, size: int) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.send(b"x" * size)  # the peer's parser refuses a longer form
    driver.until(lambda: peer.messages == [b"x" * size])


def test_answers_to_one_input_leave_together_at_its_end(drive: Drive) -> None:
    queued: list[int] = []

    def answer(connection: Any, message: str) -> None:
        connection.send(message)
        queued.append(connection.queued_bytes)

    driver = drive(on_message=answer)
    peer = driver.connect()
    peer.say(pack(TEXT, b"abc") * 10)
    driver.until(lambda: len(queued) == 10, reading=False)
    assert queued == [5 * (i + 1) for i in range(10)]
    driver.until(lambda: peer.read(4096), reading=False)
    assert peer.messages == ["abc"] * 10
    assert driver.count("bytes_out") == len(peer.head) + 50


def test_sends_from_elsewhere_leave_together_at_the_end_of_the_turn(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    for i in range(10):
        connection.send(f"{i}")
    driver.only.ping()
    assert connection.queued_bytes == 32
    assert not peer.read()
    driver.turn()
    driver.until(lambda: peer.read(4096), reading=False)
    assert peer.messages == [str(i) for i in range(10)]
    assert connection.queued_bytes == 0


def test_a_handler_may_send_to_others(drive: Drive) -> None:
    everybody: list[Any] = []

    def tell(connection: Any, message: str) -> None:
        for other in everybody:
            other.send(message)

    driver = drive(on_connect=everybody.append, on_message=tell)
    peers = [driver.connect() for _ in range(3)]
    peers[1].text("hello")
    driver.until(lambda: all(peer.messages == ["hello"] for peer in peers))


def test_send_is_false_over_high_water_and_the_message_is_queued(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    taken = fill(connection)
    assert connection.is_open
    assert connection.queued_bytes > SMALL["high_water_bytes"]
    driver.until(lambda: driver.count("queued_bytes") == connection.queued_bytes, reading=False)
    driver.until(lambda: len(peer.messages) == taken)
    assert peer.messages == [b"x" * 1000] * taken
    assert connection.send("under again") is True


def test_on_drain_comes_once_when_the_queue_fell_below_low_water(drive: Drive) -> None:
    queued: list[int] = []
    driver, _peer, connection = slow(drive, on_drain=lambda connection: queued.append(connection.queued_bytes))
    connection.send(b"x" * 1000)
    driver.rest()
    assert queued == []  # it had not been over high water
    for rounds in (1, 2):
        fill(connection)
        driver.turn()
        assert len(queued) == rounds - 1
        driver.until(lambda rounds=rounds: len(queued) == rounds)
        assert queued[-1] <= SMALL["low_water_bytes"]
        driver.until(lambda: connection.queued_bytes == 0)
        driver.rest()
        assert len(queued) == rounds


def test_what_on_drain_sends_follows_in_order(drive: Drive) -> None:
    sent: list[bytes] = []

    def more(connection: Any) -> None:
        while len(sent) < 300:
            sent.append(b"%d " % len(sent) * 100)
            if not connection.send(sent[-1]):
                return

    driver, peer, connection = slow(drive, on_drain=more)
    more(connection)
    driver.until(lambda: len(peer.messages) == 300)
    assert peer.messages == sent


def test_reads_stop_over_high_water_and_go_on_below_low_water(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    fill(connection)
    peer.text("later")
    for _ in range(20):
        driver.turn()
    assert driver.named("on_message") == []
    assert driver.count("messages_in") == 0
    driver.until(lambda: driver.named("on_message") == ["later"])


def test_messages_read_already_wait_while_their_answers_are_over_high_water(drive: Drive) -> None:
    def answer(connection: Any, message: str) -> None:
        connection.send(b"x" * 20_000)

    driver = drive(on_message=answer, **SMALL)
    peer = driver.connect(receive_bytes=4 * KIB)
    peer.say(pack(TEXT, b"q") * 50)
    driver.until(lambda: driver.count("queued_bytes") > SMALL["high_water_bytes"], reading=False)
    for _ in range(20):
        driver.turn()
    assert driver.count("messages_in") < 10
    driver.until(lambda: len(peer.messages) == 50)
    assert driver.count("messages_dropped") == 0


def test_one_message_larger_than_the_queue_limit_is_taken_when_nothing_waits(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    message = os.urandom(300 * KIB)
    assert connection.send(message) is False
    assert connection.is_open
    driver.until(lambda: peer.messages == [message])


def test_policy_close_ends_a_slow_consumer_with_1013_after_what_is_queued(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    taken = fill(connection)
    while connection.is_open:
        before = connection.queued_bytes
        connection.send(b"x" * 1000)
        taken += connection.queued_bytes > before and connection.is_open
    assert connection.queued_bytes <= SMALL["queue_bytes"] + 200
    assert connection.send("no more") is False
    assert driver.named("on_close") == []
    driver.until(lambda: peer.closed_with)
    assert peer.closed_with is not None
    assert peer.closed_with[0] == 1013
    assert peer.messages == [b"x" * 1000] * taken
    peer.say(pack_close(1013))
    driver.ended(peer)
    (close,) = driver.named("on_close")
    assert (close.code, close.cause, close.clean) == (1013, Cause.SLOW_CONSUMER, True)
    assert driver.count("closes_slow_consumer") == 1
    assert driver.count("messages_dropped") == 0


def test_a_slow_consumer_that_reads_nothing_is_cut_at_the_close_timeout(drive: Drive) -> None:
    driver, _peer, connection = slow(drive, close_timeout_s=0.1)
    while connection.is_open:
        connection.send(b"x" * 10_000)
    driver.until(lambda: driver.named("on_close"), ticking=True, reading=False)
    (close,) = driver.named("on_close")
    assert (close.code, close.cause, close.clean) == (1013, Cause.SLOW_CONSUMER, False)
    assert driver.count("queued_bytes") == 0


def test_policy_drop_drops_the_message_and_keeps_the_connection(drive: Drive) -> None:
    driver, peer, connection = slow(drive, queue_policy="drop")
    results = [connection.send(b"%06d" % i + b"x" * 994) for i in range(3000)]
    assert connection.is_open
    assert connection.queued_bytes <= SMALL["queue_bytes"]
    driver.turn()
    dropped = driver.count("messages_dropped")
    assert dropped > 0
    assert results[-1] is False
    driver.until(lambda: len(peer.messages) == driver.count("messages_out"))
    assert len(peer.messages) == 3000 - dropped
    numbers = [int(bytes(message[:6])) for message in peer.messages if isinstance(message, bytes)]
    assert numbers == sorted(numbers)
    assert connection.send("and on") is True


def test_control_frames_are_exempt_from_the_queue_limit(drive: Drive) -> None:
    driver, peer, connection = slow(drive, queue_policy="drop")
    while connection.queued_bytes + 1004 <= SMALL["queue_bytes"]:
        connection.send(b"x" * 1000)
    assert connection.send(b"x" * 1000) is False
    before = connection.queued_bytes
    connection.ping(b"still there")
    assert connection.queued_bytes == before + 13
    connection.close(1000, "enough")
    driver.until(lambda: peer.closed_with == (1000, "enough"))
    assert Frame(PING, b"still there") in peer.frames


def test_only_the_latest_ping_is_answered_while_output_is_blocked(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    while connection.queued_bytes < SMALL["low_water_bytes"]:  # blocked, but reads go on
        connection.send(b"x" * 1000)
        driver.turn()
    for i in range(20):
        peer.say(pack(PING, b"%d" % i))
        driver.until(lambda i=i: driver.count("bytes_in") and driver.turn() is None, reading=False)
    for _ in range(10):
        driver.turn()
    driver.until(lambda: Frame(PONG, b"19") in peer.frames)
    driver.rest()
    assert len([frame for frame in peer.frames if frame.opcode == PONG]) <= 3
    assert peer.frames[-1] == Frame(PONG, b"19")


def test_a_half_close_is_noticed_while_reads_are_paused(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    fill(connection)
    driver.turn()
    peer.end()
    driver.until(lambda: driver.named("on_close"), reading=False)
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)]


def test_data_before_a_half_close_is_handled_first_even_when_reads_are_paused(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    fill(connection)
    driver.turn()
    peer.text("last words")
    peer.end()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_message") == ["last words"]
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_EOF, False)]


def test_a_reset_is_noticed_while_reads_are_paused(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    fill(connection)
    driver.turn()
    peer.reset()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_RESET, False)]
    assert driver.count("queued_bytes") == 0


def test_sending_to_a_peer_that_has_gone_ends_the_connection(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    connection = driver.only
    peer.reset()
    for _ in range(3):
        connection.send("is anybody there")
        driver.turn()
    driver.until(lambda: driver.named("on_close"))
    assert driver.named("on_close") == [Close(1006, "", Cause.PEER_RESET, False)]


def test_their_close_is_answered_after_a_long_queue(drive: Drive) -> None:
    driver, peer, connection = slow(drive)
    message = os.urandom(30 * KIB)
    connection.send(message)
    peer.say(pack_close(1000))
    driver.until(lambda: peer.closed_with)
    assert peer.messages == [message]
    driver.ended(peer)
    assert driver.named("on_close") == [Close(1000, "", Cause.PEER_CLOSED, True)]
