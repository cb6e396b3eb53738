"""Hostile frames: what a peer may do once it has its WebSocket."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

from tests.hostile.conftest import memory
from tests.hostile.table import NOBODY, Row, row, rows
from tests.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Peer, pack, pack_close
from tests.serving import WAIT_S, Served, close_code, eventually, masked, upgrade

PROTOCOL, INVALID, TOO_BIG = (f"closes_{cause}" for cause in ("protocol_error", "invalid_data", "message_too_big"))
MIB = 1 << 20

BROKEN: list[tuple[str, int, str, bytes]] = [
    ("A frame that is not masked", 1002, PROTOCOL, pack(TEXT, b"x", key=None)),
    ("Reserved bit 1 without compression", 1002, PROTOCOL, pack(TEXT, b"x", rsv=4)),
    ("Reserved bit 2", 1002, PROTOCOL, pack(TEXT, b"x", rsv=2)),
    ("Reserved bit 3", 1002, PROTOCOL, pack(TEXT, b"x", rsv=1)),
    ("A reserved opcode (3-7)", 1002, PROTOCOL, pack(0x3)),
    ("A reserved control opcode (11-15)", 1002, PROTOCOL, pack(0xB)),
    ("A control frame in fragments", 1002, PROTOCOL, pack(PING, b"x", fin=False)),
    ("A control frame over 125 bytes", 1002, PROTOCOL, pack(PING, b"x" * 126)),
    ("5 bytes announced in the 16-bit form", 1002, PROTOCOL, pack(TEXT, b"xxxxx", form=16)),
    ("5 bytes announced in the 64-bit form", 1002, PROTOCOL, pack(TEXT, b"xxxxx", form=64)),
    ("A length with its highest bit set", 1002, PROTOCOL, pack(BINARY, form=64, announced=2**64 - 1)),
    ("2^63-1 bytes announced", 1009, TOO_BIG, pack(BINARY, form=64, announced=2**63 - 1)),
    ("2 GiB announced", 1009, TOO_BIG, pack(BINARY, form=64, announced=2 << 30)),
    ("A message over `message_bytes`", 1009, TOO_BIG, pack(BINARY, b"x" * (MIB + 1))),
    ("Fragments that add up to more than `message_bytes`", 1009, TOO_BIG,
     pack(BINARY, b"x" * MIB, fin=False) + pack(CONTINUATION, b"x")),
    ("A continuation of nothing", 1002, PROTOCOL, pack(CONTINUATION, b"x")),
    ("A new message inside a fragmented one", 1002, PROTOCOL, pack(TEXT, b"a", fin=False) + pack(TEXT, b"b")),
    ("A Close with 1 byte", 1002, PROTOCOL, pack(CLOSE, b"\x03")),
    ("A Close with code 0", 1002, PROTOCOL, pack_close(0)),
    ("A Close with code 999", 1002, PROTOCOL, pack_close(999)),
    ("A Close with a reserved code (1004)", 1002, PROTOCOL, pack_close(1004)),
    ("A Close with a code that is never sent (1005)", 1002, PROTOCOL, pack_close(1005)),
    ("A Close with a code that is never sent (1006)", 1002, PROTOCOL, pack_close(1006)),
    ("A Close with a code that is never sent (1015)", 1002, PROTOCOL, pack_close(1015)),
    ("A Close with an unassigned code (2999)", 1002, PROTOCOL, pack_close(2999)),
    ("A Close with a code over 4999", 1002, PROTOCOL, pack_close(5000)),
    ("A Close whose reason is not UTF-8", 1007, INVALID, pack(CLOSE, b"\x03\xe8\xff")),
    ("Text that is not UTF-8", 1007, INVALID, pack(TEXT, b"a\xffb")),
    ("Text with an overlong form", 1007, INVALID, pack(TEXT, b"\xc0\xaf")),
    ("Text with a surrogate", 1007, INVALID, pack(TEXT, b"\xed\xa0\x80")),
    ("Text beyond U+10FFFF", 1007, INVALID, pack(TEXT, b"\xf4\x90\x80\x80")),
    ("Text that ends inside a character", 1007, INVALID, pack(TEXT, "é".encode()[:1])),
    ("Invalid text in a later fragment", 1007, INVALID, pack(TEXT, b"ok", fin=False) + pack(CONTINUATION, b"\xff", fin=False)),
    ("A character broken off at a fragment's border", 1007, INVALID,
     pack(TEXT, "é".encode()[:1], fin=False) + pack(CONTINUATION, b"x")),
]  # fmt: skip

RULES = [(Row(said, f"Close {code}, the end", counted), code, sent) for said, code, counted, sent in BROKEN]


@rows(each for each, _, _ in RULES)
@pytest.mark.parametrize(("row", "code", "sent"), RULES, ids=[str(row) for row, _, _ in RULES])
def test_a_broken_rule_gets_its_close_code_and_the_end(row: Row, code: int, sent: bytes, there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        peer.sendall(sent)
        assert close_code(peer) == code
        assert peer.recv(1) == b""


# ---- many small ones


@row("100,000 empty fragments of one message", "taken as the one message they are; none is kept", NOBODY)
def test_a_hundred_thousand_empty_fragments_are_one_message(there: Served) -> None:
    with there.socket() as plain:
        upgrade(plain)
        plain.sendall(pack(TEXT, b"", fin=False) + pack(CONTINUATION, b"", fin=False) * 99_998 + pack(CONTINUATION, b"end"))
        peer = Peer(plain)
        peer.head, peer.is_upgraded = b"101", True
        eventually(lambda: (peer.read() and False) or peer.messages)
        assert peer.messages == ["end"]
        eventually(lambda: there.counters["buffers_held"] == 0)


@row("65,536 fragments of one byte", "taken as the one message they are", NOBODY)
def test_tens_of_thousands_of_fragments_are_one_message(there: Served) -> None:
    with there.socket() as plain:
        upgrade(plain)
        plain.sendall(pack(BINARY, b"x", fin=False) + pack(CONTINUATION, b"x", fin=False) * 65_534 + pack(CONTINUATION, b"x"))
        peer = Peer(plain)
        peer.head, peer.is_upgraded = b"101", True
        eventually(lambda: (peer.read() and False) or peer.messages)
        assert peer.messages == [b"x" * 65_536]


@row(
    "A flood of Pings by a client that does not read",
    "behind 1,000 control frames in a second nothing is read until the next; what waits for an answer gets the latest Pong only",
    NOBODY,
)
def test_a_ping_flood_is_stemmed_and_piles_up_no_pongs(there: Served) -> None:
    pings = b"".join(pack(PING, b"%0120d" % i) for i in range(2000))
    before = memory()
    most_queued = 0
    with there.socket() as peer:
        upgrade(peer)
        peer.settimeout(0.5)
        sent = 0
        with suppress(TimeoutError):  # TCP made it wait
            while sent < 256 * MIB:
                peer.sendall(pings)
                sent += len(pings)
                most_queued = max(most_queued, there.counters["queued_bytes"])
    assert sent < 256 * MIB
    assert most_queued <= there.server.config.high_water_bytes
    assert memory() - before < 24 * MIB  # kernel memory is not ours; some slack for the test's own


@row("A flood of Pongs nobody asked for", "ignored", NOBODY)
def test_unasked_pongs_are_ignored(there: Served) -> None:
    with there.socket() as plain:
        upgrade(plain)
        plain.sendall(pack(PONG, b"unasked") * 3_000 + pack(TEXT, b"end"))
        peer = Peer(plain)
        peer.head, peer.is_upgraded = b"101", True
        eventually(lambda: (peer.read() and False) or peer.frames)
        assert peer.messages == ["end"]


# ---- those that do not read


def ask_and_never_read(peer: socket.socket) -> None:
    """Asks for echoes until nobody takes a byte more."""
    peer.settimeout(0.5)
    with suppress(TimeoutError):
        while True:
            peer.sendall(masked(b"x" * 10_000) * 20)


@row("Echoes asked for and never read", "our reading stops at `high_water_bytes`: the rest waits at the peer's own side", NOBODY)
def test_echoes_that_are_never_read_do_not_pile_up(there: Served) -> None:
    before = memory()
    with there.socket() as peer:
        upgrade(peer)
        ask_and_never_read(peer)
        assert there.counters["queued_bytes"] <= there.server.config.high_water_bytes + 20_000
        assert memory() - before < 16 * MIB
        with there.client() as honest:
            honest.send("meanwhile")
            assert honest.recv(timeout=WAIT_S) == "meanwhile"


@row("Echoes asked for and never read, for longer than `stuck_timeout_s`", "cut", "closes_slow_consumer", stuck_timeout_s=1.0)
def test_a_peer_that_never_reads_is_cut_in_the_end(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        ask_and_never_read(peer)
        eventually(lambda: there.counters["closes_slow_consumer"])


@row("A peer that goes on sending after its error", "it can still read our Close; we read on for 2 s or 1 MiB, then it is cut", PROTOCOL)
def test_the_close_of_an_error_is_not_destroyed_by_a_reset(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        peer.sendall(pack(TEXT, b"x", key=None) + b"y" * 500_000)
        assert close_code(peer) == 1002
        assert peer.recv(1) == b""


# ---- those that vanish


@row("A client that vanishes without a word (no FIN, no RST)", "Ping after `ping_interval_s`, cut `ping_timeout_s` later",
     "closes_heartbeat_lost", ping_interval_s=0.3, ping_timeout_s=0.3)  # fmt: skip
def test_a_vanished_client_is_noticed(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        eventually(lambda: there.counters["closes_heartbeat_lost"])


@row("Half a frame, and then nothing (slowloris in a frame)", "Ping after `ping_interval_s`, cut `ping_timeout_s` later",
     "closes_heartbeat_lost", ping_interval_s=0.3, ping_timeout_s=0.3)  # fmt: skip
def test_half_a_frame_holds_nobody_up(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        peer.sendall(masked(b"x" * 1000)[:500])
        eventually(lambda: there.counters["buffers_held"] == 1)
        eventually(lambda: there.counters["closes_heartbeat_lost"])
        eventually(lambda: there.counters["buffers_held"] == 0)


@row("A message that comes a byte at a time, for ever", "kept while it comes; `idle_timeout_s`, which counts whole messages, ends it",
     "closes_idle", idle_timeout_s=0.5, close_timeout_s=0.5)  # fmt: skip
def test_a_dripping_message_is_no_message(there: Served) -> None:
    with there.socket() as peer:
        upgrade(peer)
        peer.settimeout(0.02)
        for byte in masked(b"x" * 1000):
            try:
                peer.sendall(bytes([byte]))
                if peer.recv(100):  # our Close
                    break
            except TimeoutError:
                continue
        assert there.counters["messages_in"] == 0


STATES: list[tuple[str, bytes, str]] = [
    ("before its first byte", b"", "closes_peer_reset"),
    ("inside its request", b"GET / HTTP/1.1\r\nHos", "closes_peer_reset"),
    ("as soon as it is a WebSocket", b"101", "closes_peer_reset"),
    ("inside the head of a frame", b"101" + masked(b"x" * 1000)[:3], "closes_peer_reset"),
    ("inside a frame", b"101" + masked(b"x" * 1000)[:500], "closes_peer_reset"),
    ("between two fragments", b"101" + pack(TEXT, b"x", fin=False), "closes_peer_reset"),
    ("behind a whole message", b"101" + masked(b"x" * 1000), "closes_peer_reset"),
]
RESETS = [(Row(f"A reset (RST) {when}", "the end; nothing is left of it", counted), said) for when, said, counted in STATES]
ENDS = [
    (Row(f"An end (FIN) {when}", "the end; nothing is left of it", counted.replace("reset", "eof")), said) for when, said, counted in STATES
]


def say(peer: socket.socket, said: bytes, there: Served) -> None:
    if said.startswith(b"101"):
        upgrade(peer)
        said = said.removeprefix(b"101")
    peer.sendall(said)
    eventually(lambda: there.counters["connections_accepted"] == 1)


@rows(each for each, _ in RESETS)
@pytest.mark.parametrize(("row", "said"), RESETS, ids=[str(row) for row, _ in RESETS])
def test_a_reset_at_any_point_leaves_nothing(row: Row, said: bytes, there: Served) -> None:
    with there.socket() as plain:
        say(plain, said, there)
        Peer(plain).reset()
        eventually(lambda: there.counters[row.counted])


@rows(each for each, _ in ENDS)
@pytest.mark.parametrize(("row", "said"), ENDS, ids=[str(row) for row, _ in ENDS])
def test_an_end_at_any_point_leaves_nothing(row: Row, said: bytes, there: Served) -> None:
    with there.socket() as peer:
        say(peer, said, there)
        peer.shutdown(socket.SHUT_WR)
        eventually(lambda: there.counters[row.counted])


@row("A reset while output waits for it", "the end; what waited is given back", "closes_peer_reset")
def test_a_reset_gives_waiting_output_back(there: Served) -> None:
    with there.socket() as plain:
        upgrade(plain)
        ask_and_never_read(plain)
        eventually(lambda: there.counters["queued_bytes"])
        Peer(plain).reset()
        eventually(lambda: there.counters["closes_peer_reset"])
        eventually(lambda: there.counters["queued_bytes"] == 0)
