"""Hostile bytes where a PROXY preface is due."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.hostile.conftest import attacked
from tests.hostile.table import Row, row, rows
from tests.peer import request
from tests.serving import WAIT_S, Served, head

REFUSED = "closes_handshake_refused"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PREFACE = b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 80\r\n"
BEHIND: dict[str, Any] = {"listen": "127.0.0.1:0?proxy", "trusted_proxies": "127.0.0.1"}


def honest(there: Served) -> ClientConnection:
    """A client behind the proxy."""
    peer = there.socket()
    peer.sendall(PREFACE.replace(b"192.0.2.9", b"192.0.2.10"))
    return connect(there.url(), sock=peer, open_timeout=WAIT_S)


@pytest.fixture
def there(row: Row, engine_name: str) -> Iterator[Served]:
    """The same as elsewhere, behind a proxy."""
    with attacked(row, honest, engine=engine_name) as there:
        yield there


GARBAGE = [
    (Row("A request without the PROXY preface that is due", "cut", REFUSED, BEHIND), request("/")),
    (Row("A PROXY preface without an end (over 107 bytes)", "cut", REFUSED, BEHIND), b"PROXY TCP4 " + b"1" * 200),
    (Row("A PROXY preface with an address that is none", "cut", REFUSED, BEHIND), b"PROXY TCP4 192.0.2.999 192.0.2.1 1 2\r\n"),
    (Row("A PROXY preface (version 2) that announces 64 KiB", "cut", REFUSED, BEHIND), V2 + b"\x21\x11\xff\xff"),
    (Row("A PROXY preface (version 2) of an unknown version", "cut", REFUSED, BEHIND), V2 + b"\x31\x11\x00\x0c" + bytes(12)),
]


@rows(row for row, _ in GARBAGE)
@pytest.mark.parametrize(("row", "sent"), GARBAGE, ids=[str(row) for row, _ in GARBAGE])
def test_what_is_no_preface_is_cut(row: Row, sent: bytes, there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(sent)
        with suppress(ConnectionResetError):  # it may be cut with input unread: nothing was said that could be lost
            assert peer.recv(1) == b""


@row("A PROXY preface with random bytes changed", "cut, or taken as what it says; nothing is left", REFUSED, **BEHIND)
def test_noise_in_a_preface_ends(there: Served) -> None:
    seeded = random.Random(107)
    second = V2 + b"\x21\x11\x00\x14" + bytes((192, 0, 2, 9, 192, 0, 2, 1, 0x10, 0, 0, 80)) + b"\x04\x00\x05noise"
    for _ in range(300):
        said = bytearray(seeded.choice((PREFACE, second)))
        for _ in range(seeded.randrange(1, 4)):
            said[seeded.randrange(len(said))] = seeded.randrange(256)
        with there.socket() as peer, suppress(OSError):
            peer.sendall(said + request("/"))
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass


@row("A PROXY preface that never ends", "cut at `handshake_timeout_s`", "closes_handshake_timeout", handshake_timeout_s=0.3, **BEHIND)
def test_a_slow_preface_is_cut_at_the_deadline(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(PREFACE[:-5])
        assert peer.recv(1) == b""


@row("Too many connections of one client behind a trusted proxy", "cut as soon as the proxy has named it; its other clients are served",
     "closes_limit", max_connections_per_address=1, **BEHIND)  # fmt: skip
def test_clients_behind_a_proxy_are_counted_one_by_one(there: Served) -> None:
    with there.socket() as first, there.socket() as second, there.socket() as other:
        first.sendall(PREFACE + request("/"))
        assert head(first).startswith(b"HTTP/1.1 101 ")
        second.sendall(PREFACE)
        assert second.recv(1) == b""
        other.sendall(PREFACE.replace(b"192.0.2.9", b"192.0.2.8") + request("/"))
        assert head(other).startswith(b"HTTP/1.1 101 ")
