"""What servers answer: upgrade or not, and the heads of their frames."""

from __future__ import annotations

import pytest

from tests.peer import ACCEPT
from unlimitedws.bench.answer import FAULTS, frame_head, judged

GOOD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"
)  # fmt: skip


def fault(head: bytes, offered: bytes = b"") -> str:
    return FAULTS[judged(head, ACCEPT, offered)]


def test_a_right_upgrade_is_one() -> None:
    assert judged(GOOD, ACCEPT) == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: websocket", b"upgrade:\tWebSocket \t"),
        (b"Connection: Upgrade", b"CONNECTION: keep-alive , upgrade"),
        (b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 101 "),
        (b"\r\n\r\n", b"\r\nServer: another\r\nDate: now\r\n\r\n"),
    ],
)
def test_what_may_be_written_otherwise_is_accepted(old: bytes, new: bytes) -> None:
    assert judged(GOOD.replace(old, new, 1), ACCEPT) == 0


@pytest.mark.parametrize("status", [200, 301, 400, 403, 404, 426, 503, 599])
def test_another_status_is_that_status(status: int) -> None:
    assert judged(b"HTTP/1.1 %d No\r\nUpgrade: websocket\r\n\r\n" % status, ACCEPT) == status


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 x101\r\n\r\n\r\n\r\n\r\n",
        b"HTTP/1.1 abc Switching\r\n\r\n",
        b"HTTP/1.1 100 Go on\r\n\r\n",
    ],
)
def test_what_is_no_http_says_so(head: bytes) -> None:
    assert "not HTTP" in fault(head)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"Upgrade: websocket\r\n", b"", "Upgrade: websocket"),
        (b"Upgrade: websocket", b"Upgrade: h2c", "Upgrade: websocket"),
        (b"Connection: Upgrade", b"Connection: upgrades", "Connection: Upgrade"),
        (ACCEPT, b"x" + ACCEPT[1:], "does not fit"),
        (ACCEPT, ACCEPT[:-1], "does not fit"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extension"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: other\r\n\r\n", "subprotocol"),
    ],
)
def test_each_fault_is_named(old: bytes, new: bytes, words: str) -> None:
    assert words in fault(GOOD.replace(old, new, 1), b"chat, superchat")


@pytest.mark.parametrize("chosen", [b"chat", b"superchat"])
def test_a_subprotocol_that_was_offered_may_be_chosen(chosen: bytes) -> None:
    assert judged(GOOD.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: " + chosen + b"\r\n\r\n"), ACCEPT, b"chat, superchat") == 0


def test_an_accept_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="28 characters"):
        judged(GOOD, b"short")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"\x81\x00", (2, 0)),
        (b"\x82\x7d", (2, 125)),
        (b"\x01\x7e\x00\x7e", (4, 126)),
        (b"\x80\x7e\xff\xff", (4, 65535)),
        (b"\x82\x7f\0\0\0\0\0\1\0\0", (10, 65536)),
        (b"\x8a\x7d", (2, 125)),
    ],
)
def test_a_frame_head_is_measured_and_each_part_of_it_is_too_little(head: bytes, found: tuple[int, int]) -> None:
    assert frame_head(head) == found
    assert [frame_head(head[:cut]) for cut in range(len(head))] == [()] * len(head)


@pytest.mark.parametrize(
    "head",
    [
        b"\x81\x80",  # masked
        b"\xc1\x01",  # a reserved bit
        b"\x83\x01",  # opcodes that nobody has defined
        b"\x8b\x01",
        b"\x09\x01",  # a control frame in pieces
        b"\x89\x7e",  # ... that is too long
        b"\x81\x7e\x00\x7d",  # a length that is not written in the shortest form
        b"\x81\x7f\0\0\0\0\0\0\xff\xff",
        b"\x81\x7f\x80\0\0\0\0\1\0\0",
    ],
)
def test_what_no_server_may_send_is_a_violation(head: bytes) -> None:
    assert frame_head(head) is None
