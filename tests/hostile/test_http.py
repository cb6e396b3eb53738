"""Hostile plain HTTP: bodies, and what follows a first request."""

from __future__ import annotations

import socket
import time

import pytest

from tests.hostile.conftest import memory
from tests.hostile.table import Row, row, rows
from tests.peer import Peer, request
from tests.serving import Served, eventually, head, upgrade

ANSWERED = "closes_http_answered"


def asked(*lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join(lines).encode() + b"\r\nHost: test\r\n\r\n" + body


def form(*headers: str, body: bytes = b"") -> bytes:
    return asked("POST /form HTTP/1.1", *headers, body=body)


BODIES: list[tuple[str, str, bytes]] = [
    ("A body over `http_body_bytes`, announced", "413", form("Content-Length: 9999999999")),
    (
        "A body over `http_body_bytes`, in chunks",
        "413",
        form("Transfer-Encoding: chunked", body=b"10000\r\n" + b"x" * 65536 + b"\r\n" + b"f" * 20),
    ),
    ("Chunks that are none", "400", form("Transfer-Encoding: chunked", body=b"zz\r\nrubbish\r\n")),
    ("A chunk of a negative size", "400", form("Transfer-Encoding: chunked", body=b"-5\r\nhello\r\n0\r\n\r\n")),
]
BAD_BODIES = [(Row(said, f"{status}, the end", ANSWERED, {"http_body_bytes": 10_000}), status, sent) for said, status, sent in BODIES]


def all_of(peer: socket.socket) -> bytes:
    received = b""
    while more := peer.recv(65536):
        received += more
    return received


@rows(each for each, _, _ in BAD_BODIES)
@pytest.mark.parametrize(("row", "status", "sent"), BAD_BODIES, ids=[str(row) for row, _, _ in BAD_BODIES])
def test_a_bad_body_gets_one_complete_answer_and_the_end(row: Row, status: str, sent: bytes, there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(sent)
        answer = all_of(peer)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1 4") == 1


@row("A transfer coding that nobody knows", "501, the end", "closes_handshake_refused")
def test_an_unknown_transfer_coding_is_refused(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(form("Transfer-Encoding: gzip", body=b"x" * 100))
        assert all_of(peer).startswith(b"HTTP/1.1 501 ")


@row("A body that comes a byte at a time (slowloris)", "408 at `http_timeout_s`, the end", ANSWERED, http_timeout_s=0.4)
def test_a_slow_body_gets_408(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(form("Content-Length: 1000"))
        peer.settimeout(0.02)
        for _ in range(1000):
            peer.sendall(b"x")
            try:
                answer = peer.recv(1000)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


@row("A second request that is malformed, behind a good one (smuggling)", "the answer to the first, then 400, the end", "http_requests")
def test_the_head_of_every_request_is_checked_alike(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(asked("GET /page HTTP/1.1") + asked("GET /page HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"))
        answer = all_of(peer)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 400 ") == 1


@row("A chunked body that ends with a bare line feed (smuggling)", "400, the end: what stands behind it is no request", ANSWERED)
def test_what_stands_behind_a_bare_line_feed_is_not_read(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(form("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\nA: b\n\n" + asked("GET /page HTTP/1.1")))
        answer = all_of(peer)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"HTTP/1.1 200 " not in answer


@row("A body in chunks of one byte", "read, a little at a time: others have their turn between", "http_requests")
def test_tiny_chunks_are_one_body(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(form("Transfer-Encoding: chunked", "Connection: close", body=b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"))
        assert all_of(peer).endswith(b"\r\n\r\n50000")


@row("A body with a request hidden in it", "it is a body, and nothing else", "http_requests")
def test_a_body_is_never_read_as_a_request(there: Served) -> None:
    hidden = request("/")
    with there.socket() as peer:
        peer.sendall(form(f"Content-Length: {len(hidden)}", body=hidden) + asked("GET /page HTTP/1.1", "Connection: close"))
        answer = all_of(peer)
    assert b"HTTP/1.1 101 " not in answer
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert f"\r\n\r\n{len(hidden)}HTTP/1.1".encode() in answer


@row("Silence after an answer (keep-alive)", "the end at `handshake_timeout_s`", ANSWERED, handshake_timeout_s=0.3)
def test_an_idle_keep_alive_connection_is_ended(there: Served) -> None:
    with there.socket() as peer:
        peer.sendall(asked("GET /page HTTP/1.1"))
        assert head(peer).startswith(b"HTTP/1.1 200 ")
        assert all_of(peer) == b"a page"
    eventually(lambda: there.counters["handshake_failures"] == 0)


@row("Requests without end whose answers are never read", "our reading stops at `high_water_bytes`; cut when it takes nothing for "
     "`handshake_timeout_s`", "http_requests", handshake_timeout_s=1.0, http_timeout_s=1.0, stuck_timeout_s=1.0,
     sndbuf_bytes=8192)  # fmt: skip
def test_answers_that_are_never_read_do_not_pile_up(there: Served) -> None:
    before = memory()
    pipelined = asked("GET /page HTTP/1.1") * 1000
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # the kernel takes megabytes otherwise, before we queue
        peer.connect(("127.0.0.1", there.port))
        peer.settimeout(0.5)
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline:
                peer.sendall(pipelined)
        except (TimeoutError, ConnectionError):
            pass
        assert there.counters["queued_bytes"] <= there.server.config.high_water_bytes + 100_000
        assert memory() - before < 16 << 20
        eventually(lambda: there.counters["handshakes_pending"] == 0)


HALFWAY: list[tuple[str, bytes]] = [
    ("inside the body of a request", form("Content-Length: 1000", body=b"x" * 500)),
    ("inside a chunk of a body", form("Transfer-Encoding: chunked", body=b"3e8\r\n" + b"x" * 500)),
    ("while its response is streamed", asked("GET /endless HTTP/1.1")),
    ("while an async hook decides on it", request("/slow") + b"early"),
]
RESETS = [(Row(f"A reset (RST) {when}", "the end; nothing is left of it", "closes_peer_reset"), said) for when, said in HALFWAY]


@rows(each for each, _ in RESETS)
@pytest.mark.parametrize(("row", "said"), RESETS, ids=[str(row) for row, _ in RESETS])
def test_a_reset_halfway_leaves_nothing(row: Row, said: bytes, there: Served) -> None:
    with there.socket() as plain:
        plain.sendall(said)
        eventually(lambda: there.counters["handshakes_pending"] == 1 and there.counters["bytes_in"] == len(said))
        Peer(plain).reset()
        eventually(lambda: there.counters[row.counted])
        eventually(lambda: there.counters["handshakes_pending"] == there.counters["queued_bytes"] == 0)


@row("An upgrade behind plain requests on the same connection", "each answer in its order, then 101", "closes_peer_eof")
def test_a_websocket_may_follow_plain_requests(there: Served) -> None:
    with there.socket() as peer:
        for _ in range(3):
            peer.sendall(asked("GET /page HTTP/1.1"))
            assert head(peer).startswith(b"HTTP/1.1 200 ")
            assert peer.recv(6) == b"a page"
        upgrade(peer)
