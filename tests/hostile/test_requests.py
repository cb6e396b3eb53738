"""Hostile requests: before there is a WebSocket."""

from __future__ import annotations

import socket
import ssl
import threading
import time

import pytest

from tests.hostile.conftest import memory
from tests.hostile.table import Row, row, rows
from tests.peer import KEY, PING, PONG, TEXT, Peer, pack, request
from tests.serving import WAIT_S, Served, eventually, head

REFUSED = "closes_handshake_refused"

CLEAN = {
    "Host": "test",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
}


def asked(first: str = "GET / HTTP/1.1", *more: str, without: str = "", **instead: str) -> bytes:
    """A clean upgrade but for what is given: another first line, further lines, a header left out or another value."""
    headers = {**CLEAN, **{name.replace("_", "-"): value for name, value in instead.items()}}
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if name != without), *more]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


HEADS: list[tuple[str, str, bytes]] = [
    ("HTTP/0.9: a request line without a version", "400", b"GET /\r\n\r\n"),
    ("HTTP/1.0 with an upgrade", "505", asked("GET / HTTP/1.0")),
    ("HTTP/2's preface", "505", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("Garbage with an empty line in it", "400", bytes(range(1, 256)) + b"\r\n\r\n"),
    ("Only empty lines", "400", b"\r\n\r\n\r\n\r\n"),
    ("No Host", "400", asked(without="Host")),
    ("Two Host headers", "400", asked("GET / HTTP/1.1", "Host: other")),
    ("Host that is no host", "400", asked(Host="a b")),
    ("No Sec-WebSocket-Key", "400", asked(without="Sec-WebSocket-Key")),
    ("Two Sec-WebSocket-Key headers", "400", asked("GET / HTTP/1.1", f"Sec-WebSocket-Key: {KEY.decode()}")),
    ("A key that is not 16 bytes in base64", "400", asked(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ")),
    ("`Connection` without `Upgrade` in it", "400", asked(Connection="keep-alive")),
    ("An upgrade with a body (Content-Length)", "400", asked("GET / HTTP/1.1", "Content-Length: 5")),
    ("An upgrade with a body (Transfer-Encoding)", "400", asked("GET / HTTP/1.1", "Transfer-Encoding: chunked")),
    (
        "Content-Length together with Transfer-Encoding",
        "400",
        asked("POST /page HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"),
    ),
    ("Two different Content-Length headers", "400", asked("POST /page HTTP/1.1", "Content-Length: 5", "Content-Length: 6")),
    ("Content-Length that is no number", "400", asked("POST /page HTTP/1.1", "Content-Length: +5")),
    ("A folded header (obs-fold)", "400", asked("GET / HTTP/1.1", "X-Folded: a", " b")),
    ("A bare line feed", "400", asked("GET / HTTP/1.1", "X-Bare: a\nX-Hidden: b")),
    ("A bare carriage return", "400", asked("GET / HTTP/1.1", "X-Bare: a\rb")),
    ("NUL in a header", "400", asked("GET / HTTP/1.1", "X-Nul: a\0b")),
    ("White space before a header's colon", "400", asked("GET / HTTP/1.1", "X-Space : a")),
    ("A header without a colon", "400", asked("GET / HTTP/1.1", "X-Nothing")),
    ("A header without a name", "400", asked("GET / HTTP/1.1", ": nameless")),
    ("A target that is no path", "400", asked("GET chat HTTP/1.1")),
    ("A target with a fragment", "400", asked("GET /#top HTTP/1.1")),
    ("A path with a broken escape", "400", asked("GET /%zz HTTP/1.1")),
    ("A path that is not UTF-8", "400", asked("GET /%ff HTTP/1.1")),
    ("A path out of the tree", "404", asked("GET /../../etc/passwd HTTP/1.1")),
    ("CONNECT, as to a proxy", "400", b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n"),
    ("An upgrade by POST", "405", asked("POST / HTTP/1.1")),
    ("Subprotocols that are no tokens", "400", asked("GET / HTTP/1.1", "Sec-WebSocket-Protocol: a/b, c d")),
    ("An unknown version of WebSocket", "426", asked(Sec_WebSocket_Version="8")),
    ("Two versions of WebSocket", "426", asked("GET / HTTP/1.1", "Sec-WebSocket-Version: 8")),
    ("A plain GET on the path of a WebSocket", "426", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"),
]

ANSWERS = [(Row(said, f"{status}, the end", REFUSED), status, sent) for said, status, sent in HEADS]


def all_of(peer: socket.socket) -> bytes:
    """Everything until the peer's end; a reset fails."""
    received = b""
    while more := peer.recv(65536):
        received += more
    return received


@rows(each for each, _, _ in ANSWERS)
@pytest.mark.parametrize(("row", "status", "sent"), ANSWERS, ids=[str(row) for row, _, _ in ANSWERS])
def test_a_bad_request_gets_one_complete_answer_and_the_end(row: Row, status: str, sent: bytes, there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(sent)
        answer = all_of(peer)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in start + b"\r\n"
    assert there.counters["connections_opened"] == 0
    if status == "426":
        assert b"\r\nUpgrade: websocket\r\n" in start + b"\r\n"
        if b"Upgrade: websocket" in sent:
            assert b"\r\nSec-WebSocket-Version: 13\r\n" in start + b"\r\n"


# ---- slow and endless requests


@row(
    "A request that comes a byte at a time (slowloris)", "cut at `handshake_timeout_s`", "closes_handshake_timeout", handshake_timeout_s=0.3
)
def test_a_slow_head_is_cut_at_the_deadline(there: Served) -> None:
    with there.socket() as peer:
        for byte in request("/"):
            try:
                peer.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.02)  # the attack itself
        else:
            pytest.fail("the whole request was taken, slow as it was")


@row("A connection that says nothing", "cut at `handshake_timeout_s`", "closes_handshake_timeout", handshake_timeout_s=0.2)
def test_a_silent_connection_is_cut_at_the_deadline(there: Served) -> None:
    with there.socket() as peer:
        assert peer.recv(1) == b""


@row("2,000 connections that never finish their request", "each cut at `handshake_timeout_s`; others are served meanwhile",
     "closes_handshake_timeout", handshake_timeout_s=3.0)  # fmt: skip
def test_a_crowd_of_slow_requests_keeps_nobody_out(there: Served) -> None:
    crowd = [there.socket() for _ in range(2000)]
    try:
        for peer in crowd:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: ")
        with there.client() as client:
            client.send("honest")
            assert client.recv(timeout=WAIT_S) == "honest"
        eventually(lambda: there.counters["closes_handshake_timeout"] == len(crowd))
    finally:
        for peer in crowd:
            peer.close()


@row("A head over `head_bytes` (64 KiB and more)", "431, the end", REFUSED)
def test_a_huge_head_gets_431(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(request("/", "X-Huge: " + "x" * (64 << 10)))
        assert head(peer).startswith(b"HTTP/1.1 431 ")
        all_of(peer)


@row("Ten thousand headers", "431, the end: they are over `head_bytes`", REFUSED)
def test_ten_thousand_headers_get_431(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(request("/", *(f"X-{i}: {i}" for i in range(10_000))))
        assert head(peer).startswith(b"HTTP/1.1 431 ")
        all_of(peer)


@row("Ten thousand headers where `head_bytes` allows them", "101", "closes_peer_closed", head_bytes=1 << 20)
def test_ten_thousand_headers_are_read_where_they_are_allowed(there: Served) -> None:
    with there.client(additional_headers={f"X-{i}": str(i) for i in range(10_000)}) as client:
        client.send("hello")
        assert client.recv(timeout=WAIT_S) == "hello"


@row("A head without an end (200 MB of it)", "431 at `head_bytes`; then read on for 2 s or 1 MiB, and cut; no memory for it", REFUSED)
def test_an_endless_head_is_not_swallowed(there: Served) -> None:
    before = memory()
    chunk = b"X-Endless: " + b"x" * 65536 + b"\r\n"
    with there.socket() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n")
        assert taken(peer, chunk, times=200_000_000 // len(chunk)) < 20_000_000
    assert memory() - before < 16 << 20


def taken(peer: socket.socket, chunk: bytes, *, times: int) -> int:
    """How many bytes we got rid of before we were reset."""
    for sent in range(times):
        try:
            peer.sendall(chunk)
        except ConnectionError:
            return sent * len(chunk)
    return times * len(chunk)


@row("A TLS hello on a plain port", "400 as soon as its first byte has come, the end", REFUSED)
def test_a_tls_client_on_a_plain_port_learns_of_it_at_once(there: Served) -> None:
    context = ssl.create_default_context()
    with there.socket() as peer, pytest.raises(ssl.SSLError, match=r"(?i)wrong.version.number|record layer failure"):
        context.wrap_socket(peer, server_hostname="localhost")


@row("Bytes that no request begins with", "400 as soon as the first has come, the end", REFUSED)
def test_garbage_is_not_waited_for(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(b"\0")
        assert all_of(peer).startswith(b"HTTP/1.1 400 ")


# ---- what others refuse or lose, and is right


@row("`Connection: keep-alive, Upgrade` (as Firefox sends it)", "101", "closes_peer_eof")
def test_upgrade_may_be_one_of_several_connection_options(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(asked(Connection="keep-alive, Upgrade"))
        assert head(peer).startswith(b"HTTP/1.1 101 ")


@row("Frames in the segment of the request, a Ping first", "101, then the answers in their order; nothing is lost", "closes_peer_eof")
def test_frames_in_the_segment_of_the_request_are_answered_behind_the_101(there: Served) -> None:
    with there.socket() as plain:
        plain.sendall(request("/") + pack(PING, b"first") + b"".join(pack(TEXT, b"%d" % i) for i in range(20)))
        peer = Peer(plain)
        eventually(lambda: (peer.read() and False) or len(peer.frames) == 21)
        assert peer.is_upgraded
        assert (peer.frames[0].opcode, peer.frames[0].payload) == (PONG, b"first")
        assert peer.messages == [str(i) for i in range(20)]


@row("2,000 upgrades at the same moment", "101 for each", "closes_peer_eof")
def test_two_thousand_simultaneous_upgrades_all_succeed(there: Served) -> None:
    peers = [socket.socket() for _ in range(2000)]
    try:
        for peer in peers:
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", there.port))
        for peer in peers:
            peer.settimeout(WAIT_S)
            peer.sendall(request("/"))
        answers = {head(peer)[:13] for peer in peers}
    finally:
        for peer in peers:
            peer.close()
    assert answers == {b"HTTP/1.1 101 "}


@row("A client that sends on after its refusal", "it can still read the answer: we read on for a bounded time before the end", REFUSED)
def test_a_refusal_is_not_destroyed_by_a_reset(there: Served) -> None:
    with there.socket() as peer:
        sender = threading.Thread(target=send_all, args=(peer, asked(without="Host") + b"x" * 500_000))
        sender.start()
        sender.join(WAIT_S)
        assert all_of(peer).startswith(b"HTTP/1.1 400 ")


def send_all(peer: socket.socket, data: bytes) -> None:
    peer.sendall(data)
