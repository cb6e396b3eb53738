"""What connections with deflate share."""

from __future__ import annotations

from typing import Any

import pytest

from unlimitedws.config import Config
from unlimitedws.engine.portable.deflating import Deflating, parts
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import Context, Terms, inflate
from unlimitedws.wire.frames import BINARY, TEXT, pack_frame


@pytest.fixture
def deflating() -> Deflating:
    return Deflating(Config(deflate_threshold_bytes=10, message_bytes=1000))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_a_frame_of_ours_is_taken_apart(size: int) -> None:
    opcode, payload = parts(pack_frame(TEXT, b"x" * size))
    assert (opcode, bytes(payload)) == (TEXT, b"x" * size)


def test_one_compressor_serves_everyone_with_the_same_window(deflating: Deflating) -> None:
    frame = pack_frame(BINARY, b"hello " * 50)
    packed = [deflating.packed(Terms(bits, 15), frame) for bits in (12, 12, 9, 12)]
    assert set(deflating.compressors) == {9, 12}
    for one in packed:
        assert one[0] == 0x80 | 0x40 | BINARY
        assert inflate(bytes(parts(one)[1]), 12, 1000) == b"hello " * 50


def test_what_is_short_or_would_grow_stays_as_it_is(deflating: Deflating) -> None:
    for payload in (b"", b"xxxxxxxxx", bytes(range(200))):
        frame = pack_frame(BINARY, payload)
        assert deflating.packed(Terms(), frame) is frame


def test_in_a_context_what_was_compressed_is_sent(deflating: Deflating) -> None:
    context = Context(Terms(12, 12, True, True), 3)
    frame = pack_frame(BINARY, bytes(range(200)))
    first, second = deflating.packed_in(context, frame), deflating.packed_in(context, frame)
    assert first[0] & 0x40
    assert len(second) < len(first)
    assert deflating.packed_in(context, pack_frame(TEXT, b"short")) == pack_frame(TEXT, b"short")


@pytest.mark.parametrize(
    ("opcode", "message", "event"),
    [
        (BINARY, b"\xff", ("binary", b"\xff")),
        (TEXT, b"text", ("text", "text")),
        (TEXT, b"\xff", ("violation", Cause.INVALID_DATA, 1007)),
        (BINARY, bytes(1001), ("violation", Cause.MESSAGE_TOO_BIG, 1009)),
    ],
)
def test_a_payload_becomes_a_message_or_a_violation(deflating: Deflating, opcode: int, message: bytes, event: Any) -> None:
    payload = Context(Terms(12, 12, True, True), 3).compress(message)
    assert deflating.unpacked(3, Terms(), opcode, payload) == event
    deflating.contexts[3] = Context(Terms(12, 12, True, True), 3)
    assert deflating.unpacked(3, Terms(), opcode, payload) == event
    assert deflating.unpacked(4, Terms(), opcode, b"\xff\xff") == ("violation", Cause.INVALID_DATA, 1007)
