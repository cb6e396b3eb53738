"""A reader in the middle of something, brought to another one: whatever was cut, the rest means the same."""

from __future__ import annotations

import pytest

from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, pack, pack_close
from unlimitedws.wire.frames import Event, Reader
from unlimitedws.wire.replay import client_head, frame_of, replay, rotated

LIMIT = 1 << 20
RSV1 = 4  # as `pack` counts it

STREAMS = {
    "text in fragments with a Ping between": pack(TEXT, "déj".encode(), fin=False)
    + pack(PING, b"are you there")
    + pack(CONTINUATION, "à vu 🎈".encode(), key=b"\xff\x00\x13\x37")
    + pack(TEXT, b"next"),
    "a wide frame": pack(BINARY, bytes(range(256)) * 2) + pack(TEXT, b"next"),
    "empty fragments": pack(TEXT, b"", fin=False) + pack(CONTINUATION, b"", fin=False) + pack(CONTINUATION, b"x") + pack(PONG, b"y"),
    "compressed": pack(BINARY, b"\xf2H", rsv=RSV1, fin=False) + pack(CONTINUATION, b"\xcd\x07\x00") + pack(TEXT, b"next"),
    "a Close": pack(TEXT, b"last") + pack_close(1000, "tschüß"),
    "a Close in the middle of a message": pack(TEXT, b"la", fin=False) + pack_close(4000, "no"),
}


def events(data: bytes, reader: Reader | None = None) -> list[Event]:
    reader = reader or new_reader()
    return reader.feed(data)


def new_reader(max_whole: int = 1 << 62) -> Reader:
    reader = Reader(LIMIT, max_whole=max_whole)
    reader.deflate = True
    return reader


@pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))
@pytest.mark.parametrize("max_whole", [1 << 62, -1], ids=["whole frames read here", "every frame by wsproto"])
def test_a_reader_may_be_replaced_anywhere(stream: bytes, max_whole: int) -> None:
    expected = events(stream)
    for cut in range(len(stream) + 1):
        first, second = new_reader(max_whole), new_reader(max_whole)
        before = first.feed(stream[:cut])
        state = replay(*first.state)
        assert second.feed(state) == [], f"cut at {cut}: an event twice"
        assert before + second.feed(stream[cut:]) == expected, f"cut at {cut}"


def test_a_reader_between_messages_needs_no_byte() -> None:
    reader = new_reader()
    reader.feed(pack(TEXT, b"whole"))
    assert replay(*reader.state) == b""


def test_a_text_that_cannot_become_utf8_fails_after_the_move_as_before() -> None:
    reader = new_reader()
    reader.feed(pack(TEXT, b"\xed", fin=False))
    other = new_reader()
    other.feed(replay(*reader.state))
    assert other.feed(pack(CONTINUATION, b"\xa0"))[0][0] == "violation"


@pytest.mark.parametrize(
    "event",
    [
        ("text", "à"),
        ("binary", b"x" * 70_000),
        ("compressed", TEXT, b"\x01"),
        ("ping", b"p"),
        ("pong", b""),
        ("close", 1005, ""),
        ("close", 1000, "ä"),
    ],
)
def test_a_frame_gives_the_event_it_was_made_of(event: Event) -> None:
    assert events(frame_of(event)) == [event]


def test_of_a_violation_there_is_no_frame() -> None:
    with pytest.raises(ValueError, match="violation"):
        frame_of(events(pack(CLOSE, b"\x00"))[0])


@pytest.mark.parametrize("length", [0, 125, 126, 0xFFFF, 0x10000, 1 << 40])
def test_heads_have_the_shortest_form(length: int) -> None:
    head = client_head(0x82, length, b"mask")
    assert len(head) == (6 if length < 126 else 8 if length <= 0xFFFF else 14)
    assert head.endswith(b"mask")


def test_a_key_rotates_both_ways() -> None:
    assert rotated(b"abcd", 5) == b"bcda"
    assert rotated(rotated(b"abcd", 3), -3) == b"abcd"
