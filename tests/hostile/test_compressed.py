"""Hostile compressed messages, where `deflate` is on."""

from __future__ import annotations

import random
import socket
import zlib

import pytest

from tests.hostile.conftest import memory
from tests.hostile.table import Row, row, rows
from tests.peer import BINARY, CONTINUATION, PING, TEXT, Peer, pack, pack_close, request
from tests.serving import Served, close_code, eventually, head, upgrade

PROTOCOL, INVALID, TOO_BIG = (f"closes_{cause}" for cause in ("protocol_error", "invalid_data", "message_too_big"))
MIB = 1 << 20
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover"
COMPRESSED = 4  # RSV1 (RFC 7692, section 6)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def bomb(megabytes: int) -> bytes:
    """So many MiB of zeros, a thousandth of that in size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)  # refers to nothing before it
    return (once * megabytes).removesuffix(b"\x00\x00\xff\xff")


BROKEN: list[tuple[str, int, str, bytes]] = [
    ("A message that is no deflate stream", 1007, INVALID, pack(BINARY, b"\xff" * 50, rsv=COMPRESSED)),
    ("A deflate stream that breaks off", 1007, INVALID, pack(BINARY, deflated(bytes(range(256)) * 50)[:-20], rsv=COMPRESSED)),
    ("Compressed text that is not UTF-8", 1007, INVALID, pack(TEXT, deflated(b"a\xffb"), rsv=COMPRESSED)),
    ("A bomb: 1,000 MiB of zeros in 1 MiB", 1009, TOO_BIG, pack(BINARY, bomb(1000), rsv=COMPRESSED)),
    ("A message over `message_bytes` only once it is inflated", 1009, TOO_BIG, pack(BINARY, deflated(bytes(MIB + 1)), rsv=COMPRESSED)),
    ("Reserved bit 1 on a continuation", 1002, PROTOCOL,
     pack(TEXT, deflated(b"abc")[:2], rsv=COMPRESSED, fin=False) + pack(CONTINUATION, b"x", rsv=COMPRESSED)),
    ("Reserved bit 1 on a Ping", 1002, PROTOCOL, pack(PING, b"x", rsv=COMPRESSED)),
]  # fmt: skip
RULES = [(Row(said, f"Close {code}, the end", counted, {"deflate": True}), code, sent) for said, code, counted, sent in BROKEN]


@rows(each for each, _, _ in RULES)
@pytest.mark.parametrize(("row", "code", "sent"), RULES, ids=[str(row) for row, _, _ in RULES])
def test_a_broken_compressed_message_gets_its_close_code_and_the_end(row: Row, code: int, sent: bytes, there: Served) -> None:
    before = memory()
    with there.socket() as peer:
        upgrade(peer, "/", OFFER)
        peer.sendall(sent)
        assert close_code(peer) == code
        assert peer.recv(1) == b""
    assert memory() - before < 16 * MIB, "it was inflated beyond its limit"


@row("A compressed message of exactly `message_bytes`", "taken", "closes_peer_eof", deflate=True)
def test_the_limit_applies_to_what_is_inflated(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer, "/", OFFER)
        peer.sendall(pack(BINARY, deflated(bytes(MIB)), rsv=COMPRESSED))
        assert peer.recv(1)[0] & 0x0F == BINARY
        eventually(lambda: there.counters["messages_in"] == 1)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):  # else our end would be a reset
            pass


@row("A message of `message_bytes` that compression made longer", "taken", "closes_peer_closed", deflate=True)
def test_the_limit_does_not_apply_to_what_is_compressed(there: Served) -> None:
    message = random.Random(1).randbytes(MIB)
    packed = deflated(message)
    assert len(packed) > MIB
    with there.socket() as plain:
        upgrade(plain, "/", OFFER)
        plain.sendall(pack(BINARY, packed, rsv=COMPRESSED) + pack_close(1000))
        peer = Peer(plain)
        peer.head, peer.is_upgraded = b"101", True
        eventually(lambda: (peer.read() and False) or peer.closed_with)
        assert peer.closed_with == (1000, "")
        assert there.counters["messages_in"] == 1


def compressed_noise(seeded: random.Random) -> bytes:
    """Frames with reserved bit 1 whose payload is random, or a deflate stream with some of its bytes changed, in fragments perhaps."""
    payload = bytearray(deflated(seeded.randbytes(seeded.randrange(200)) * seeded.randrange(1, 9)))
    for _ in range(seeded.randrange(4)):
        payload[seeded.randrange(len(payload))] = seeded.randrange(256)
    at = seeded.randrange(len(payload) + 1)
    opcode = seeded.choice((TEXT, BINARY))
    if seeded.random() < 0.5:
        return pack(opcode, bytes(payload), rsv=COMPRESSED)
    return pack(opcode, bytes(payload[:at]), rsv=COMPRESSED, fin=False) + pack(CONTINUATION, bytes(payload[at:]))


@row(
    "Compressed messages with random bytes changed",
    "the message, or Close 1007 (1009 where it grew); nothing is left",
    INVALID,
    deflate=True,
)
def test_compressed_noise_ends_in_one_of_the_documented_ways(there: Served) -> None:
    seeded = random.Random(7692)
    codes = set()
    for _ in range(300):
        with there.socket() as plain:
            upgrade(plain, "/", OFFER)
            plain.sendall(compressed_noise(seeded) + pack_close(1000))
            peer = Peer(plain)
            peer.head, peer.is_upgraded = b"101", True
            eventually(lambda peer=peer: (peer.read() and False) or peer.closed_with)
            assert peer.closed_with
            codes.add(peer.closed_with[0])
    assert codes <= {1000, 1007, 1009}
    assert {1000, 1007} <= codes
    assert there.counters["handler_errors"] == 0


@row("Offers of permessage-deflate that make no sense", "101 without compression", "closes_peer_eof", deflate=True)
def test_senseless_offers_are_declined(there: Served) -> None:
    for offer in (
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; unknown",
        "permessage-deflate; a; a",
        ",,;=",
        "x" * 3000,
    ):
        with there.socket() as peer:
            peer.sendall(request("/", f"Sec-WebSocket-Extensions: {offer}"))
            answer = head(peer)
            assert answer.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 400 "))
            assert b"permessage-deflate" not in answer
