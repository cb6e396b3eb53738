"""permessage-deflate: every offer of RFC 7692 answered, messages packed and unpacked, bombs and rubbish."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from unlimitedws.wire import deflate
from unlimitedws.wire.deflate import Compressor, Context, Corrupt, Inflater, Policy, Terms, TooBig, inflate, negotiate

HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692, section 7.2.3.1
LIMIT = 1 << 20


def ended(data: bytes, level: int = 6) -> bytes:
    """A deflate stream with its last block."""
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


# ---- the handshake

PLAIN = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

OFFERS = {
    "nothing asked": ("permessage-deflate", PLAIN, Terms(12, 15)),
    "what browsers send": ("permessage-deflate; client_max_window_bits", f"{PLAIN}; client_max_window_bits=12", Terms(12, 12)),
    "any case": ("Permessage-Deflate; Client_Max_Window_Bits", f"{PLAIN}; client_max_window_bits=12", Terms(12, 12)),
    "no takeover": ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", PLAIN, Terms(12, 15)),
    "a window of the server's": ("permessage-deflate; server_max_window_bits=10", f"{PLAIN}; server_max_window_bits=10", Terms(10, 15)),
    "a larger one than ours": ("permessage-deflate; server_max_window_bits=15", f"{PLAIN}; server_max_window_bits=12", Terms(12, 15)),
    "a window of the client's": ("permessage-deflate; client_max_window_bits=9", f"{PLAIN}; client_max_window_bits=9", Terms(12, 9)),
    "the client's smallest": ("permessage-deflate; client_max_window_bits=8", f"{PLAIN}; client_max_window_bits=8", Terms(12, 9)),
    "quoted": ('permessage-deflate; server_max_window_bits="11"', f"{PLAIN}; server_max_window_bits=11", Terms(11, 15)),
    "quoted with escapes": ('permessage-deflate; server_max_window_bits="\\1\\1"', f"{PLAIN}; server_max_window_bits=11", Terms(11, 15)),
    "white space": ("\t permessage-deflate \t;\tserver_max_window_bits = 11 ", f"{PLAIN}; server_max_window_bits=11", Terms(11, 15)),
    "the second of two": (
        "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9",
        f"{PLAIN}; server_max_window_bits=9",
        Terms(9, 15),
    ),
    "the first of two": (
        "permessage-deflate; client_max_window_bits, permessage-deflate",
        f"{PLAIN}; client_max_window_bits=12",
        Terms(12, 12),
    ),
    "behind others": ("x-webkit-deflate-frame, bbf-usp-protocol; a=b, permessage-deflate", PLAIN, Terms(12, 15)),
    "behind one with an unknown parameter": ("permessage-deflate; mux=1, permessage-deflate", PLAIN, Terms(12, 15)),
    "empty items": (",, permessage-deflate ,", PLAIN, Terms(12, 15)),
}


@pytest.mark.parametrize("name", OFFERS)
def test_an_offer_is_answered(name: str) -> None:
    offer, response, terms = OFFERS[name]
    assert negotiate([offer.encode()], Policy()) == (terms, response.encode())


def test_offers_may_be_spread_over_several_headers() -> None:
    values = [b"other", b"permessage-deflate; server_max_window_bits=8", b"permessage-deflate; server_max_window_bits=15"]
    agreed = negotiate(values, Policy(15))
    assert agreed == (Terms(15, 15), PLAIN.encode() + b"; server_max_window_bits=15")


DECLINED = [
    "",
    "deflate",
    "x-webkit-deflate-frame",
    "permessage-deflate; unknown",
    "permessage-deflate; server_max_window_bits=8",  # section 7.1.2.1: a server may decline what it cannot do
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=012",
    "permessage-deflate; server_max_window_bits=+9",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; client_max_window_bits=x",
    'permessage-deflate; client_max_window_bits="7"',
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=yes",
    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
]

MALFORMED = [
    "permessage-deflate;",
    "permessage-deflate; =1",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate client_max_window_bits",
    'permessage-deflate; client_max_window_bits="12',
    'permessage-deflate; client_max_window_bits=""',
    'permessage-deflate; client_max_window_bits="1 2"',
    "permessage-deflate, @",
    ";",
]


@pytest.mark.parametrize("offer", DECLINED + MALFORMED)
def test_an_offer_is_declined(offer: str) -> None:
    assert negotiate([offer.encode("latin-1")], Policy()) is None


@pytest.mark.parametrize("offer", DECLINED)
def test_a_declined_offer_declines_no_other(offer: str) -> None:
    assert negotiate([offer.encode() + b", permessage-deflate"], Policy()) == (Terms(12, 15), PLAIN.encode())


@pytest.mark.parametrize(
    ("offer", "response", "terms"),
    [
        ("permessage-deflate", "permessage-deflate", Terms(12, 15, True, True)),
        (
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
            Terms(12, 15, False, True),
        ),
        (
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=10",
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=10",
            Terms(12, 10, True, False),
        ),
    ],
)
def test_with_takeover_windows_are_kept_unless_the_client_asks_otherwise(offer: str, response: str, terms: Terms) -> None:
    assert negotiate([offer.encode()], Policy(takeover=True)) == (terms, response.encode())


def test_answers_are_remembered_within_bounds() -> None:
    deflate.remembered.cache_clear()
    for number in range(1000):
        negotiate([b"permessage-deflate, x%d" % number], Policy())
    info = deflate.remembered.cache_info()
    assert info.currsize <= 256
    before = info.misses
    assert negotiate([b"permessage-deflate" + b" " * 10_000], Policy())
    assert deflate.remembered.cache_info().misses == before


tokens = st.text("abz-_09", min_size=1, max_size=5)
pieces = st.sampled_from(
    ["permessage-deflate", ";", ",", "=", " ", "\t", '"', "\\", "server_max_window_bits", "client_max_window_bits", "10", "8", "15",
     "server_no_context_takeover", "client_no_context_takeover", "x"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join), st.integers(9, 15), st.booleans())
def test_whatever_is_offered_the_answer_is_allowed(offer: str, bits: int, takeover: bool) -> None:
    agreed = negotiate([offer.encode()], Policy(bits, takeover))
    if agreed is None:
        return
    terms, response = agreed
    assert "permessage-deflate" in offer
    assert 9 <= terms.server_bits <= bits
    assert 9 <= terms.client_bits <= 15
    assert (b"client_max_window_bits" in response) <= ("client_max_window_bits" in offer)
    assert takeover or not (terms.server_takeover or terms.client_takeover)


# ---- packing


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("level", [1, 3, 6, 9])
def test_each_message_of_a_shared_compressor_stands_by_itself(bits: int, level: int) -> None:
    rng = random.Random(7)
    words = [rng.randbytes(6).hex().encode() for _ in range(40)]
    compressor = Compressor(bits, level)
    for size in (1, 3, 100, 5_000, 60_000, 5_000, 100, 1, 60_000):
        message = b" ".join(rng.choices(words, k=size))[:size]
        packed = compressor.compress(message)
        alone = zlib.decompressobj(-bits)  # nothing of an earlier message could help this one
        assert alone.decompress(packed + deflate.TAIL) == message
        assert inflate(packed, bits, LIMIT) == message


def test_what_websockets_makes_of_a_packed_message() -> None:
    compressor = Compressor(12, 3)
    theirs = PerMessageDeflate(True, True, 12, 12)
    for message in (b"hello " * 500, os.urandom(3000), b"hello " * 500, b""):
        frame = Frame(Opcode.BINARY, compressor.compress(message), rsv1=True)
        assert theirs.decode(frame).data == message
        packed = PerMessageDeflate(True, True, 12, 12).encode(Frame(Opcode.BINARY, message))
        assert inflate(bytes(packed.data), 12, LIMIT) == message


def test_a_repeated_message_is_packed_small_every_time() -> None:
    compressor = Compressor(12, 3)
    sizes = {len(compressor.compress(b"hello world " * 200)) for _ in range(5)}
    assert max(sizes) < 60


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=300), st.binary(max_size=5).map(lambda piece: piece * 500)), max_size=6))
@example([b"", b"", b"a", b""])
def test_what_was_packed_is_unpacked(messages: list[bytes]) -> None:
    compressor = Compressor(12, 3)
    ours, theirs = Context(Terms(12, 12, True, True), 3), Context(Terms(12, 12, True, True), 3)
    for message in messages:
        assert inflate(compressor.compress(message), 12, LIMIT) == message
        assert theirs.inflate(ours.compress(message), LIMIT) == message


# ---- takeover


def test_with_takeover_a_message_refers_to_those_before_it() -> None:
    ours, theirs = Context(Terms(12, 12, True, True), 3), Inflater(12)
    message = os.urandom(1000)
    first, second = ours.compress(message), ours.compress(message)
    assert len(first) > 1000
    assert len(second) < 30
    assert [theirs.inflate(first, LIMIT), theirs.inflate(second, LIMIT)] == [message, message]
    with pytest.raises(Corrupt):
        inflate(second, 12, LIMIT)


def test_takeover_is_kept_on_the_sides_that_agreed_to_it() -> None:
    context = Context(Terms(12, 12, False, True), 3)
    assert not context.compresses
    context = Context(Terms(12, 12, True, False), 3)
    assert context.compresses
    message = b"hello " * 10
    for _ in range(2):
        assert context.inflate(Compressor(12, 3).compress(message), LIMIT) == message


# ---- unpacking


@pytest.mark.parametrize(
    "payload",
    [
        "f248cdc9c90700",  # section 7.2.3.1: one block
        "000500faff48656c6c6f00",  # section 7.2.3.3: a block without compression
        "f348cdc9c9070000",  # section 7.2.3.4: a block with BFINAL
        "f348cdc9c90700",  # the same without the byte behind it
        "f24805000000ffffcac9c90700",  # section 7.2.3.5: two blocks
    ],
)
def test_the_examples_of_the_standard(payload: str) -> None:
    assert inflate(bytes.fromhex(payload), 15, 5) == b"Hello"
    stream = Inflater(15)
    for _ in range(3):
        assert stream.inflate(bytes.fromhex(payload), 5) == b"Hello"


def test_the_examples_of_the_standard_with_takeover() -> None:
    stream = Inflater(15)  # section 7.2.3.2
    assert [stream.inflate(HELLO, 5), stream.inflate(bytes.fromhex("f200110000"), 5)] == [b"Hello", b"Hello"]


def test_streams_may_follow_each_other_in_a_message() -> None:
    assert inflate(ended(b"one ") + ended(b"two ") + Compressor(15, 6).compress(b"three"), 15, 50) == b"one two three"
    assert inflate(ended(b"") * 3, 15, 0) == b""


RUBBISH = {
    "no block type": b"\xff",
    "cut": Compressor(15, 6).compress(random.Random(1).randbytes(50) * 20)[:-7],
    "cut in a stored block": bytes.fromhex("000500faff4865"),
    "nothing": b"",
    "lengths that differ": bytes.fromhex("0005000000"),
    "behind a last block": ended(b"message") + b"\xff\xff\xff",
    "far too many streams": ended(b"") * 50,
    "too far back": bytes.fromhex("f200110000"),
    "text": b"this was never compressed at all",
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_is_corrupt(name: str) -> None:
    with pytest.raises(Corrupt):
        inflate(RUBBISH[name], 15, LIMIT)
    with pytest.raises(Corrupt):
        Inflater(15).inflate(RUBBISH[name], LIMIT)


@pytest.mark.parametrize("size", [0, 1, 1000, deflate.STEP_BYTES - 1, deflate.STEP_BYTES, deflate.STEP_BYTES + 1, 500_000])
@pytest.mark.parametrize("make", [os.urandom, bytes], ids=["random", "zeros"])
def test_the_limit_is_that_of_the_message(size: int, make: type[bytes]) -> None:
    packed = Compressor(15, 6).compress(make(size))
    assert len(inflate(packed, 15, size)) == size
    assert len(Inflater(15).inflate(packed, size)) == size
    if size:
        with pytest.raises(TooBig):
            inflate(packed, 15, size - 1)
        with pytest.raises(TooBig):
            Inflater(15).inflate(packed, size - 1)


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 1 << 20])
@pytest.mark.parametrize("memory", [1, 8, 9])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_nothing_is_longer_compressed_than_a_limit_allows_for(size: int, memory: int, bits: int) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -bits, memory)
    packed = packer.compress(random.Random(size).randbytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(packed) <= deflate.most_packed(size)


@pytest.mark.parametrize("final", [False, True], ids=["one stream", "several"])
def test_a_bomb_takes_no_more_than_the_limit(final: bool) -> None:
    bomb = ended(bytes(100 << 20)) if final else Compressor(15, 9).compress(bytes(100 << 20))
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(TooBig):
            inflate(bomb, 15, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMIT + 8 * deflate.STEP_BYTES


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400), st.binary(max_size=200).map(lambda data: HELLO + data), st.integers(0, 400).map(lambda n: ended(bytes(n)))
    )
)
def test_whatever_comes_is_a_message_or_one_of_two_errors(payload: bytes) -> None:
    for unpack in (lambda: inflate(payload, 15, 1000), lambda: Inflater(15).inflate(payload, 1000)):
        with suppress(Corrupt, TooBig):
            assert len(unpack()) <= 1000


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 3000), st.integers(0, 255))
def test_both_ways_of_unpacking_agree(message: bytes, place: int, byte: int) -> None:
    packed = bytearray(Compressor(15, 6).compress(message * 3))
    packed[place % len(packed)] = byte
    results = []
    for unpack in (lambda: inflate(bytes(packed), 15, 5000), lambda: Inflater(15).inflate(bytes(packed), 5000)):
        try:
            results.append(unpack())
        except (Corrupt, TooBig) as error:
            results.append(type(error))
    assert results[0] == results[1]
