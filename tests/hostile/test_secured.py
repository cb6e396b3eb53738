"""Hostile bytes on a TLS port."""

from __future__ import annotations

import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.certificates import Authority
from tests.hostile.conftest import attacked, refused
from tests.hostile.table import Row, row, rows
from tests.peer import TEXT, Peer, pack, request
from tests.serving import WAIT_S, Served, close_code, eventually, head

TLS_ERROR = "closes_tls_error"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def there(row: Row, engine_name: str, authority: Authority) -> Iterator[Served]:
    """The same as elsewhere, with TLS."""
    chain, key = authority.issue("localhost", "127.0.0.1")

    def honest(there: Served) -> ClientConnection:
        return connect(f"wss://127.0.0.1:{there.port}/", ssl=authority.client_context("me@example.org"), open_timeout=WAIT_S)

    trust = {"client_ca": str(authority.pem)} if "client_certs" in row.settings else {}
    with attacked(row, honest, engine=engine_name, certfile=str(chain), keyfile=str(key), **trust) as there:
        yield there


def secured(there: Served, authority: Authority) -> ssl.SSLSocket:
    return authority.client_context().wrap_socket(there.socket(), server_hostname="localhost")


def hello() -> bytes:
    """What a TLS client says first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def rest_of(peer: socket.socket) -> bytes:
    received = b""
    try:
        while more := peer.recv(65536):
            received += more
    except ConnectionResetError:
        pass
    return received


GARBAGE = [
    (Row("Plain HTTP on a TLS port", "a TLS alert at most, the end", TLS_ERROR), request("/")),
    (Row("Garbage on a TLS port", "a TLS alert at most, the end", TLS_ERROR), b"\0\xff" * 500),
    (Row("A TLS record that is too long", "a TLS alert at most, the end", TLS_ERROR), b"\x16\x03\x01\xff\xff" + b"x" * 500),
    (Row("A broken TLS hello", "a TLS alert at most, the end", TLS_ERROR), b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
]


@rows(row for row, _ in GARBAGE)
@pytest.mark.parametrize(("row", "sent"), GARBAGE, ids=[str(row) for row, _ in GARBAGE])
def test_what_is_no_tls_is_cut(row: Row, sent: bytes, there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(sent)
        said = rest_of(peer)
    assert len(said) < 20
    assert not said or said[0] == 21, f"not an alert: {said!r}"


@row("A TLS hello that never ends", "cut at `handshake_timeout_s`", "closes_handshake_timeout", handshake_timeout_s=0.4)
def test_a_slow_tls_hello_is_cut_at_the_deadline(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(hello()[:-10])
        assert rest_of(peer) == b""


@row("A TLS handshake, and then no request", "cut at `handshake_timeout_s`, which counts from the connection's first moment",
     "closes_handshake_timeout", handshake_timeout_s=0.6)  # fmt: skip
def test_a_request_that_never_comes_through_tls_is_cut(there: Served, authority: Authority) -> None:
    with secured(there, authority) as peer:
        assert peer.recv(1) == b""


@row("More TLS handshakes than `handshakes_per_s` or `handshakes_per_s_per_address`", "cut before the handshake, which is what costs",
     "closes_shed", handshakes_per_s_per_address=1.0, handshake_burst_s=2.0)  # fmt: skip
def test_tls_handshakes_over_the_rate_are_cut(there: Served) -> None:
    def ask() -> bytes:
        with there.socket() as peer, suppress(ConnectionResetError):
            peer.sendall(hello())
            return peer.recv(1)
        return b""

    refused(ask, 8, burst=2, per_s=1, welcome=b"\x16")
    time.sleep(1.0)  # for the honest client after this


@row("A client that speaks TLS 1.1 at most", "a TLS alert, the end", TLS_ERROR)
def test_old_tls_is_refused(there: Served, authority: Authority) -> None:
    # As an old client would say it; the OpenSSL of this machine may refuse to.
    old = bytearray(hello())
    old[9:11] = b"\x03\x02"
    at = old.find(b"\x00\x2b\x00\x05\x04\x03\x04\x03\x03")  # supported_versions: 1.3 and 1.2
    assert at > 0
    old[at : at + 2] = b"\xff\xff"  # an extension nobody knows
    with there.socket() as peer:
        peer.sendall(old)
        assert rest_of(peer)[:1] == b"\x15"


@row("A client without a certificate where `client_certs` is required", "a TLS alert, the end", TLS_ERROR, client_certs="required")
def test_a_client_without_its_certificate_is_refused(there: Served, authority: Authority) -> None:
    with secured(there, authority) as peer:  # TLS 1.3: the client is through before it is refused
        peer.sendall(request("/"))
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            peer.recv(1)


@row("A reset inside the TLS handshake", "the end; nothing is left of it", "closes_peer_reset")
def test_a_reset_inside_the_tls_handshake_leaves_nothing(there: Served) -> None:
    with there.socket() as plain:
        plain.sendall(hello()[:100])
        eventually(lambda: there.counters["handshakes_pending"])
        Peer(plain).reset()
        eventually(lambda: there.counters["closes_peer_reset"])


@row("A broken TLS record on an open WebSocket", "a TLS alert, the end", TLS_ERROR)
def test_a_broken_record_ends_a_websocket(there: Served, authority: Authority) -> None:
    with secured(there, authority) as peer:
        peer.sendall(request("/"))
        assert head(peer).startswith(b"HTTP/1.1 101 ")
        os.write(peer.fileno(), b"\x17\x03\x03\x00\x20" + b"\0" * 32)
        with pytest.raises(ssl.SSLError, match="alert"):
            peer.recv(1000)


@row("Random bytes inside a TLS handshake, or in the place of a record", "a TLS alert at most, the end; nothing is left", TLS_ERROR)
def test_noise_in_the_place_of_tls_ends(there: Served, authority: Authority) -> None:
    seeded = random.Random(8446)
    begun = hello()
    for _ in range(100):
        with there.socket() as peer:
            said = bytearray(begun)
            for _ in range(seeded.randrange(1, 20)):
                said[seeded.randrange(len(said))] = seeded.randrange(256)
            peer.sendall(said[: seeded.randrange(1, len(said) + 1)])
            peer.shutdown(socket.SHUT_WR)
            rest_of(peer)
    for _ in range(50):
        with secured(there, authority) as peer:
            os.write(peer.fileno(), seeded.randbytes(seeded.randrange(1, 3000)))
            socket.socket.shutdown(peer, socket.SHUT_WR)
            with suppress(ssl.SSLError, OSError):
                while peer.recv(65536):
                    pass


@row("A frame that is not masked, through TLS", "Close 1002, the end", "closes_protocol_error")
def test_rules_hold_through_tls(there: Served, authority: Authority) -> None:
    with secured(there, authority) as peer:
        peer.sendall(request("/"))
        assert head(peer).startswith(b"HTTP/1.1 101 ")
        peer.sendall(pack(TEXT, b"x", key=None))
        assert close_code(peer) == 1002
