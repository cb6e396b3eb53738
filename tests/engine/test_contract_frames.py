"""RFC 6455, section 5, over a real connection: what is refused, and how; what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.driver import Driver
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, pack, pack_close
from unlimitedws.wire.closing import Cause, Close

Drive = Callable[..., Driver]

LIMIT = 1000

BROKEN_RULES = {
    "not masked": (pack(TEXT, b"x", key=None), 1002),
    "reserved bit 1": (pack(TEXT, b"x", rsv=4), 1002),
    "reserved bit 2": (pack(TEXT, b"x", rsv=2), 1002),
    "reserved bit 3": (pack(PING, b"x", rsv=1), 1002),
    "reserved data opcode": (pack(0x3, b"x"), 1002),
    "reserved control opcode": (pack(0xB, b"x"), 1002),
    "fragmented control frame": (pack(PING, b"x", fin=False), 1002),
    "long control frame": (pack(PING, b"x" * 126), 1002),
    "long close frame": (pack(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "continuation of nothing": (pack(CONTINUATION, b"x"), 1002),
    "a message inside a message": (pack(TEXT, b"x", fin=False) + pack(TEXT, b"y"), 1002),
    "16-bit form for 125": (pack(BINARY, b"x" * 125, form=16), 1002),
    "64-bit form for 65535": (pack(BINARY, b"", announced=65535, form=64), 1002),
    "64-bit form with its first bit": (pack(BINARY, b"", announced=1 << 63, form=64), 1002),
    "close of one byte": (pack(CLOSE, b"\x03"), 1002),
    "close code 999": (pack_close(999), 1002),
    "close code 1004": (pack_close(1004), 1002),
    "close code 1005": (pack_close(1005), 1002),
    "close code 1006": (pack_close(1006), 1002),
    "close code 1015": (pack_close(1015), 1002),
    "close code 2999": (pack_close(2999), 1002),
    "close code 5000": (pack_close(5000), 1002),
    "close reason not UTF-8": (pack(CLOSE, b"\x03\xe8\xff"), 1007),
    "text not UTF-8": (pack(TEXT, b"\xff"), 1007),
    "text ends inside a character": (pack(TEXT, b"\xe2\x82"), 1007),
    "a surrogate": (pack(TEXT, b"\xed\xa0\x80"), 1007),
    "fragments end inside a character": (pack(TEXT, b"\xe2", fin=False) + pack(CONTINUATION, b"\x82"), 1007),
    "fail fast in an unfinished frame": (pack(TEXT, b"ok\xc0\x80", announced=100), 1007),
    "fail fast in an unfinished message": (pack(TEXT, b"\xf5", fin=False), 1007),
    "fail fast at a surrogate's second byte": (pack(TEXT, b"\xed\xa0", fin=False), 1007),
    "too big": (pack(BINARY, b"x" * (LIMIT + 1)), 1009),
    "too big, announced": (pack(BINARY, b"", announced=1 << 31, form=64), 1009),
    "too big in fragments": (pack(BINARY, b"x" * LIMIT, fin=False) + pack(CONTINUATION, b"x"), 1009),
}
CAUSES = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


@pytest.mark.parametrize("split", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_a_broken_rule_is_answered_with_its_close_code(drive: Drive, rule: str, split: bool) -> None:
    said, code = BROKEN_RULES[rule]
    driver = drive(message_bytes=LIMIT)
    peer = driver.connect()
    pieces = [said[i : i + 1] for i in range(len(said))] if split else [said]
    for piece in pieces:
        peer.say(piece)
        driver.turn()
    driver.until(lambda: peer.closed_with)
    peer.close()
    driver.rest()
    assert peer.closed_with == (code, "")
    assert driver.named("on_close") == [Close(code, "", CAUSES[code], False)]
    assert driver.named("on_message") == []
    assert driver.count(f"closes_{CAUSES[code]}") == 1


def test_messages_before_a_broken_rule_are_handled(drive: Drive) -> None:
    driver = drive(on_message=lambda connection, message: connection.send(message))
    peer = driver.connect()
    peer.say(pack(TEXT, b"good") + pack(TEXT, b"bad", key=None) + pack(TEXT, b"unheard"))
    driver.ended(peer)
    assert peer.messages == ["good"]
    assert peer.closed_with == (1002, "")
    assert driver.count("messages_in") == 1


def test_a_peer_that_sends_on_after_its_error_can_still_read_the_close(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"\xff"))
    driver.until(lambda: driver.named("on_close"), reading=False)
    peer.say(b"x" * 10000)
    assert driver.ended(peer) == "eof"
    assert peer.closed_with == (1007, "")


def test_a_peer_that_never_stops_sending_after_its_error_is_cut(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"\xff"))

    def flood() -> Any:
        try:
            peer.socket.send(b"x" * 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return False

    driver.until(flood)


def test_fragments_with_control_frames_between_them_make_one_message(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(
        pack(TEXT, "dé".encode()[:2], fin=False) + pack(PING, b"p") + pack(CONTINUATION, b"", fin=False)
        + pack(PONG, b"unasked") + pack(CONTINUATION, "dé".encode()[2:] + b"!")
    )  # fmt: skip
    driver.until(lambda: driver.named("on_message") == ["dé!"])
    driver.until(lambda: peer.frames)
    assert peer.frames == [Frame(PONG, b"p")]


def test_a_message_of_exactly_the_limit_is_accepted(drive: Drive) -> None:
    driver = drive(message_bytes=LIMIT)
    peer = driver.connect()
    peer.say(pack(BINARY, b"x" * LIMIT) + pack(BINARY, b"y" * 600, fin=False) + pack(CONTINUATION, b"y" * 400))
    driver.until(lambda: driver.named("on_message") == [b"x" * LIMIT, b"y" * LIMIT])


def test_a_large_message_arrives_whole(drive: Drive) -> None:
    driver = drive()
    message = bytes(range(256)) * 4096
    peer = driver.connect()
    stream = memoryview(pack(BINARY, message))
    sent = 0

    def feed() -> Any:
        nonlocal sent
        if sent < len(stream):
            try:
                sent += peer.socket.send(stream[sent : sent + 100_000])
            except BlockingIOError:
                return False
        return driver.named("on_message")

    assert driver.until(feed) == [message]


def test_a_message_may_arrive_byte_by_byte(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    message = "h€llo wörld 😀" * 10
    for byte in pack(TEXT, message.encode()):
        peer.say(bytes((byte,)))
        driver.turn()
    driver.until(lambda: driver.named("on_message") == [message])
    driver.rest()
    assert driver.count("buffers_held") == 0


def test_an_unfinished_message_holds_a_buffer_and_its_end_gives_it_back(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(TEXT, b"half", fin=False))
    driver.until(lambda: driver.count("buffers_held") == 1)
    peer.say(pack(CONTINUATION, b"whole"))
    driver.until(lambda: driver.named("on_message"))
    driver.rest()
    assert driver.count("buffers_held") == 0


def test_a_ping_is_answered_with_its_payload(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    peer.say(pack(PING, b"") + pack(PING, b"x" * 125))
    driver.until(lambda: len(peer.frames) == 2)
    assert peer.frames == [Frame(PONG, b""), Frame(PONG, b"x" * 125)]


def test_a_connection_ping_is_sent_and_its_pong_taken(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    driver.only.ping(b"are you there")
    driver.until(lambda: peer.frames)
    assert peer.frames == [Frame(PING, b"are you there")]
    peer.say(pack(PONG, b"are you there"))
    driver.rest()
    assert not peer.ended
    with pytest.raises(ValueError, match="125"):
        driver.only.ping(b"x" * 126)


def test_thousands_of_tiny_frames_in_one_segment_are_all_handled(drive: Drive) -> None:
    driver = drive(on_message=lambda connection, message: connection.send(message))
    peer = driver.connect()
    peer.say(b"".join(pack(TEXT, b"%d" % i) for i in range(5000)))
    driver.until(lambda: len(peer.messages) == 5000)
    assert peer.messages == [str(i) for i in range(5000)]
