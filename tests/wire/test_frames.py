"""Frames: packing, and readers that must agree with each other and with wsproto on any stream cut anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from tests.engine.test_contract_frames import BROKEN_RULES
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, pack, pack_close, parse
from unlimitedws.engine import why_not_native
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import most_packed
from unlimitedws.wire.frames import Event, Reader, pack_frame, pack_head, unmask

LIMIT = 1000


def native_reader(limit: int) -> Any:
    if why := why_not_native():
        pytest.fail(f"the native codec is not built ({why}); set UNLIMITEDWS_TEST_ENGINES=portable to test without it")
    from unlimitedws.engine import codec

    return codec.PyReader(limit)


READERS: dict[str, Callable[[int], Any]] = {
    "portable": Reader,
    "portable, every frame by wsproto": lambda limit: Reader(limit, max_whole=-1),
    "native": native_reader,
}


@pytest.fixture(params=READERS)
def make(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    if request.param == "native" and "native" not in os.environ.get("UNLIMITEDWS_TEST_ENGINES", "native"):
        pytest.skip("UNLIMITEDWS_TEST_ENGINES leaves out the native engine")
    return READERS[request.param]


def feed(reader: Any, pieces: Sequence[bytes]) -> list[Event]:
    return [event for piece in pieces for event in reader.feed(piece)]


def cut(stream: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({min(place, len(stream)) for place in at}), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges) if a < b]


STREAMS: dict[str, tuple[bytes, list[Event]]] = {
    "text": (pack(TEXT, "déjà vu 😀".encode()), [("text", "déjà vu 😀")]),
    "binary": (pack(BINARY, b"\x00\xff"), [("binary", b"\x00\xff")]),
    "empty": (pack(TEXT) + pack(BINARY), [("text", ""), ("binary", b"")]),
    "16-bit length": (pack(BINARY, b"x" * 126), [("binary", b"x" * 126)]),
    "ping and pong": (pack(PING, b"a") + pack(PONG, b"b"), [("ping", b"a"), ("pong", b"b")]),
    "fragments": (
        pack(TEXT, b"\xf0\x9f", fin=False) + pack(PING) + pack(CONTINUATION, b"\x98", fin=False) + pack(CONTINUATION, b"\x80!"),
        [("ping", b""), ("text", "😀!")],
    ),
    "empty fragments": (
        pack(BINARY, fin=False) + pack(CONTINUATION, fin=False) + pack(CONTINUATION, b"end") + pack(TEXT, b"x"),
        [("binary", b"end"), ("text", "x")],
    ),
    "close": (pack_close(1000, "bye") + pack(TEXT, b"unheard"), [("close", 1000, "bye")]),
    "empty close": (pack(CLOSE), [("close", 1005, "")]),
    "close in a message": (pack(TEXT, b"half", fin=False) + pack_close(1001), [("close", 1001, "")]),
}


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_cut_anywhere_gives_the_same_events(make: Callable[[int], Any], name: str) -> None:
    stream, events = STREAMS[name]
    for place in range(len(stream)):
        assert feed(make(LIMIT), cut(stream, [place])) == events, place
    assert feed(make(LIMIT), [stream[i : i + 1] for i in range(len(stream))]) == events


@pytest.mark.parametrize("rule", BROKEN_RULES)
def test_every_broken_rule_cut_anywhere_is_one_violation(make: Callable[[int], Any], rule: str) -> None:
    stream, code = BROKEN_RULES[rule]
    causes = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}
    for place in range(len(stream)):
        reader = make(LIMIT)
        assert feed(reader, cut(stream, [place])) == [("violation", causes[code], code)], place
        assert not reader.is_clean
        assert reader.feed(pack(TEXT, b"unheard")) == []


def test_a_reader_is_clean_only_between_messages(make: Callable[[int], Any]) -> None:
    reader = make(LIMIT)
    assert reader.is_clean
    stream = pack(TEXT, b"ab", fin=False) + pack(PING) + pack(CONTINUATION, b"cd")
    for byte in stream[:-1]:
        reader.feed(bytes((byte,)))
        assert not reader.is_clean
    assert reader.feed(stream[-1:]) == [("text", "abcd")]
    assert reader.is_clean
    reader.feed(pack(CLOSE))
    assert not reader.is_clean


def test_a_cleared_reader_is_as_new() -> None:
    for stream in (pack(TEXT, b"half", fin=False), pack(TEXT, b"half")[:7], pack(CLOSE), pack(TEXT, b"\xff")):
        reader = Reader(LIMIT)
        reader.feed(stream)
        reader.clear()
        assert reader.is_clean
        assert reader.feed(pack(TEXT, b"new")) == [("text", "new")]


def test_text_fails_fast_inside_a_frame_that_is_still_arriving(make: Callable[[int], Any]) -> None:
    for bad in (b"\xc0", b"\xf5", b"\xed\xa0", b"\xf4\x90", b"\xe0\x80", b"ok\xff"):
        frame = pack(TEXT, bad + b"x" * 50)
        events: list[Event] = []
        reader = make(LIMIT)
        for i in range(6 + len(bad)):
            events += reader.feed(frame[i : i + 1])
        assert events == [("violation", Cause.INVALID_DATA, 1007)], bad


def test_the_size_is_judged_before_the_payload_comes(make: Callable[[int], Any]) -> None:
    assert make(LIMIT).feed(pack(BINARY, announced=LIMIT + 1)) == [("violation", Cause.MESSAGE_TOO_BIG, 1009)]
    assert make(LIMIT).feed(pack(BINARY, announced=1 << 40)) == [("violation", Cause.MESSAGE_TOO_BIG, 1009)]
    assert make(LIMIT).feed(pack(BINARY, announced=LIMIT)) == []


def test_a_message_of_thousands_of_one_byte_fragments_arrives(make: Callable[[int], Any]) -> None:
    count = 20_000
    reader = make(count + 1)
    stream = pack(BINARY, b"x", fin=False) + pack(CONTINUATION, b"x", fin=False) * (count - 1) + pack(CONTINUATION, b"y")
    assert feed(reader, cut(stream, range(0, len(stream), 65_536))) == [("binary", b"x" * count + b"y")]


# ---- with permessage-deflate

COMPRESSED: dict[str, tuple[bytes, list[Event]]] = {
    "one frame": (pack(TEXT, b"\xff\xfe", rsv=4), [("compressed", TEXT, b"\xff\xfe")]),
    "empty": (pack(BINARY, b"", rsv=4), [("compressed", BINARY, b"")]),
    "16-bit length": (pack(BINARY, b"z" * 126, rsv=4), [("compressed", BINARY, b"z" * 126)]),
    "among plain ones": (
        pack(TEXT, b"a") + pack(TEXT, b"z", rsv=4) + pack(PING, b"p") + pack(BINARY, b"b"),
        [("text", "a"), ("compressed", TEXT, b"z"), ("ping", b"p"), ("binary", b"b")],
    ),
    "fragments": (
        pack(TEXT, b"\xff", rsv=4, fin=False) + pack(PING, b"p") + pack(CONTINUATION, b"\xfe", fin=False) + pack(CONTINUATION, b"z"),
        [("ping", b"p"), ("compressed", TEXT, b"\xff\xfez")],
    ),
    "empty fragments": (
        pack(BINARY, b"", rsv=4, fin=False) + pack(CONTINUATION, b"", fin=False) + pack(CONTINUATION, b"") + pack(TEXT, b"x"),
        [("compressed", BINARY, b""), ("text", "x")],
    ),
}

WRONG_BITS = {
    "RSV1 on a continuation": pack(TEXT, b"a", fin=False) + pack(CONTINUATION, b"b", rsv=4),
    "RSV1 on a continuation of a compressed message": pack(TEXT, b"a", rsv=4, fin=False) + pack(CONTINUATION, b"b", rsv=4),
    "RSV1 on a message in a message": pack(TEXT, b"a", rsv=4, fin=False) + pack(TEXT, b"b", rsv=4),
    "RSV1 on a ping": pack(PING, b"a", rsv=4),
    "RSV1 on a pong": pack(PONG, b"a", rsv=4),
    "RSV1 on a close": pack(CLOSE, b"\x03\xe8", rsv=4),
    "RSV2": pack(TEXT, b"a", rsv=2),
    "RSV3": pack(TEXT, b"a", rsv=1),
    "RSV1 and RSV2": pack(TEXT, b"a", rsv=6),
    "all of them": pack(TEXT, b"a", rsv=7),
    "RSV1 on an unknown opcode": pack(3, b"a", rsv=4),
}


def deflating(make: Callable[[int], Any]) -> Any:
    reader = make(LIMIT)
    reader.deflate = True
    return reader


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_message_cut_anywhere_comes_as_it_is(make: Callable[[int], Any], name: str) -> None:
    stream, events = COMPRESSED[name]
    for place in range(len(stream)):
        reader = deflating(make)
        assert feed(reader, cut(stream, [place])) == events, place
        assert reader.is_clean
    assert feed(deflating(make), [stream[i : i + 1] for i in range(len(stream))]) == events


@pytest.mark.parametrize("name", COMPRESSED)
def test_without_deflate_a_compressed_message_breaks_the_protocol(make: Callable[[int], Any], name: str) -> None:
    stream, _ = COMPRESSED[name]
    assert make(LIMIT).feed(stream)[-1] == ("violation", Cause.PROTOCOL_ERROR, 1002)


@pytest.mark.parametrize("name", WRONG_BITS)
def test_a_reserved_bit_where_it_may_not_be_cut_anywhere_is_one_violation(make: Callable[[int], Any], name: str) -> None:
    stream = WRONG_BITS[name]
    for place in range(len(stream)):
        assert feed(deflating(make), cut(stream, [place])) == [("violation", Cause.PROTOCOL_ERROR, 1002)], place


def test_a_compressed_message_may_be_as_long_as_the_limit_can_become(make: Callable[[int], Any]) -> None:
    too_big, most = ("violation", Cause.MESSAGE_TOO_BIG, 1009), most_packed(LIMIT)
    assert deflating(make).feed(pack(BINARY, announced=most + 1, rsv=4)) == [too_big]
    assert deflating(make).feed(pack(BINARY, announced=most, rsv=4)) == []
    first = pack(BINARY, b"z" * LIMIT, rsv=4, fin=False)
    rest = b"z" * (most - LIMIT)
    assert deflating(make).feed(first + pack(CONTINUATION, rest)) == [("compressed", BINARY, b"z" * most)]
    assert deflating(make).feed(first + pack(CONTINUATION, rest + b"z")) == [too_big]
    plain = pack(BINARY, b"z", rsv=4) + pack(BINARY, b"z" * LIMIT, fin=False) + pack(CONTINUATION, b"z")
    assert deflating(make).feed(plain) == [("compressed", BINARY, b"z"), too_big]


# ---- on random streams all readers agree

payloads = st.one_of(st.binary(max_size=140), st.text(max_size=60).map(str.encode), st.sampled_from([b"x" * 999, b"x" * 1001, b"\xed\xa0"]))
keys = st.sampled_from([b"\0\0\0\0", b"\x01\x23\x45\x67", b"\xff\x80\x7f\x01"])
good_frames = st.builds(
    pack, st.sampled_from([TEXT, BINARY, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG]), payloads, fin=st.booleans(), key=keys
)
closes = st.builds(pack_close, st.sampled_from([1000, 1001, 1005, 3000, 4999, 999, 1013]), st.text(max_size=20))
odd_frames = st.builds(
    pack, st.integers(0, 15), st.binary(max_size=130), fin=st.booleans(), rsv=st.sampled_from([0, 0, 0, 1, 2, 4]),
    key=st.sampled_from([b"\x01\x23\x45\x67"] * 4 + [None]),
)  # fmt: skip
any_frames = st.one_of(good_frames, good_frames, good_frames, good_frames, closes, odd_frames, st.binary(max_size=20))
streams = st.lists(any_frames, max_size=8).map(b"".join)
cuts = st.lists(st.integers(0, 3000), max_size=12)

# A broken head may be judged at its second byte or at its last: what follows brings every reader to the same point.
TAIL = pack(BINARY, b"\0" * 30) * 2


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, cuts)
@example(pack(TEXT, b"\xed\xa0", fin=False), [])
def test_random_streams_cut_at_random_give_the_same_events_on_all_readers(stream: bytes, at: list[int]) -> None:
    stream += TAIL
    expected = Reader(LIMIT).feed(stream)
    assert feed(Reader(LIMIT), cut(stream, at)) == expected
    assert feed(Reader(LIMIT, max_whole=-1), cut(stream, at)) == expected
    if why_not_native() is None:
        assert feed(native_reader(LIMIT), cut(stream, at)) == expected


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(streams, cuts)
@example(pack(TEXT, b"z", rsv=4, fin=False) + pack(CONTINUATION, b"z"), [1])
def test_with_deflate_random_streams_cut_at_random_give_the_same_events(stream: bytes, at: list[int]) -> None:
    stream += TAIL
    expected = deflating(Reader).feed(stream)
    assert feed(deflating(Reader), cut(stream, at)) == expected
    assert feed(deflating(lambda limit: Reader(limit, max_whole=-1)), cut(stream, at)) == expected


@settings(max_examples=200, deadline=None)
@given(streams, cuts)
def test_random_streams_give_what_wsproto_makes_of_them(stream: bytes, at: list[int]) -> None:
    stream += TAIL
    ours, theirs = feed(Reader(1 << 30), cut(stream, at)), events_of_wsproto(stream)
    if ours[-1:] == [("violation", Cause.INVALID_DATA, 1007)]:
        # Of a surrogate wsproto waits for the third byte, and finds in its place what follows: another violation.
        assert theirs[-1][0] == "violation"
        ours, theirs = ours[:-1], theirs[:-1]
    assert ours == theirs


def events_of_wsproto(stream: bytes) -> list[Event]:
    """What wsproto's own FrameProtocol finds, as our events."""
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(stream)
    events: list[Event] = []
    message: Any = None
    try:
        for frame in server.received_frames():
            if frame.opcode == CLOSE:
                code, reason = frame.payload
                events.append(("close", int(code), str(reason)))
            elif frame.opcode in (PING, PONG):
                events.append(("ping" if frame.opcode == PING else "pong", bytes(frame.payload)))  # type: ignore[arg-type]
            else:
                message = frame.payload if message is None else message + frame.payload
                if frame.message_finished:
                    events.append(("text" if frame.opcode == TEXT else "binary", message))
                    message = None
    except ParseFailed as error:
        causes = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA}
        events.append(("violation", causes[int(error.code)], int(error.code)))
    return events


# ---- packing


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536])
@pytest.mark.parametrize("fin", [False, True])
def test_a_packed_frame_is_read_back(length: int, fin: bool) -> None:
    payload = b"p" * length
    assert parse(pack_frame(BINARY, payload, fin=fin)) == ((BINARY, payload, fin), b"")
    assert pack_frame(BINARY, memoryview(payload), fin=fin) == pack_head(BINARY, length, fin=fin) + payload


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmask_is_xor_with_the_repeated_key(payload: bytes, key: bytes) -> None:
    assert unmask(payload, key) == bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
