"""From TCP connection to WebSocket, or to an answer that says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.engine.driver import Driver
from tests.peer import ACCEPT, TEXT, pack, pack_close, request

Drive = Callable[..., Driver]


def test_a_clean_request_becomes_a_websocket(drive: Drive) -> None:
    driver = drive()
    peer = driver.connect()
    assert peer.head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
    )
    assert (driver.count("connections_opened"), driver.count("connections_open")) == (1, 1)


def test_a_request_may_arrive_byte_by_byte_with_frames_behind_it(drive: Drive) -> None:
    driver = drive()
    peer = driver.dial()
    for byte in request() + pack(TEXT, b"early") + pack_close(1000):
        peer.say(bytes((byte,)))
        driver.turn()
    driver.ended(peer)
    assert driver.named("on_message") == ["early"]
    assert peer.closed_with == (1000, "")


@pytest.mark.parametrize("cut", range(0, len(request()) + 11, 9))
def test_a_request_may_be_cut_anywhere(drive: Drive, cut: int) -> None:
    driver = drive()
    stream = request() + pack(TEXT, b"early")
    peer = driver.dial()
    peer.say(stream[:cut])
    driver.rest()
    peer.say(stream[cut:])
    driver.until(lambda: driver.named("on_message") == ["early"])


def test_frames_in_the_segment_of_the_request_are_handled(drive: Drive) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(request() + pack(TEXT, b"one") + pack(TEXT, b"two") + pack(TEXT, b"three")[:5])
    driver.until(lambda: len(driver.named("on_message")) == 2)
    peer.say(pack(TEXT, b"three")[5:])
    driver.until(lambda: driver.named("on_message") == ["one", "two", "three"])


def test_a_waiting_request_is_counted_as_pending(drive: Drive) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(b"GET / HT")
    driver.until(lambda: driver.count("handshakes_pending") == 1)
    driver.rest()
    assert driver.count("connections_open") == 0
    peer.say(request()[8:])
    driver.until(lambda: peer.is_upgraded)
    assert (driver.count("handshakes_pending"), driver.count("connections_open")) == (0, 1)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (request("/nowhere"), 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (request().replace(b"Version: 13", b"Version: 8"), 426),
        (request().replace(b"Host: test\r\n", b""), 400),
        (request().replace(b"Connection: Upgrade", b"Connection: close"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00 TLS \r\n\r\n", 400),
        (request("/?" + "x" * 20000), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20000, 431),
    ],
)
def test_a_refusal_is_a_complete_answer_and_the_end(drive: Drive, said: bytes, status: int) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(said)
    assert driver.ended(peer) == "eof"
    assert peer.status == status
    assert b"\r\nConnection: close" in peer.head
    assert f"\r\nContent-Length: {len(peer.received)}\r\n".encode() in peer.head
    assert (driver.count("handshake_failures"), driver.count("closes_handshake_refused")) == (1, 1)
    assert driver.calls == []


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\0", b" GET / HTTP/1.1\r\n", b"\r", b"\x80\x01"])
def test_what_no_request_begins_with_is_refused_without_waiting_for_its_end(drive: Drive, said: bytes) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(said)
    assert driver.ended(peer) == "eof"
    assert peer.status == 400
    assert (driver.count("handshake_failures"), driver.count("closes_handshake_refused")) == (1, 1)


def test_a_head_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not(drive: Drive) -> None:
    driver = drive(head_bytes=512)
    exact = request("/", "X: " + "x" * (512 - len(request()) - 5))
    assert len(exact) == 512
    peer = driver.dial()
    peer.say(exact)
    driver.until(lambda: peer.is_upgraded)
    peer = driver.dial()
    peer.say(exact.replace(b"X: ", b"X: x"))
    driver.ended(peer)
    assert peer.status == 431


def test_a_client_that_sends_on_after_its_refusal_can_still_read_it(drive: Drive) -> None:
    driver = drive()
    peer = driver.dial()
    peer.say(request("/nowhere") + b"a body that nobody reads" * 1000)
    driver.rest()
    peer.say(b"and more" * 1000)
    assert driver.ended(peer) == "eof"
    assert peer.status == 404


def test_a_page_of_the_app_is_answered_and_counted(drive: Drive) -> None:
    driver = drive()
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    driver.front.pages[b"/page"] = page
    peer = driver.dial()
    peer.say(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.ended(peer)
    assert peer.head + peer.received == page
    assert (driver.count("http_requests"), driver.count("closes_http_answered"), driver.count("handshake_failures")) == (1, 1, 0)


def test_a_large_page_reaches_a_slow_reader_whole(drive: Drive) -> None:
    driver = drive(sndbuf_bytes=16384)
    body = bytes(range(256)) * 2048
    driver.front.pages[b"/page"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    peer = driver.dial(receive_bytes=4096)
    peer.say(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    driver.until(lambda: driver.count("queued_bytes") > 0, reading=False)
    driver.ended(peer)
    assert peer.received == body


def test_a_subprotocol_is_chosen_by_the_servers_preference(drive: Drive) -> None:
    driver = drive()
    driver.front.subprotocols = ("v2", "v1")
    assert b"Sec-WebSocket-Protocol: v2\r\n" in driver.connect("/", "Sec-WebSocket-Protocol: v1", "Sec-WebSocket-Protocol: v2").head
    assert b"Sec-WebSocket-Protocol" not in driver.connect("/", "Sec-WebSocket-Protocol: v3").head
    assert b"Sec-WebSocket-Protocol" not in driver.connect().head
    assert sorted(str(connection.subprotocol) for connection in driver.engine.connections()) == ["None", "None", "v2"]
