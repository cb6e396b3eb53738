"""A raw WebSocket client: says exactly the bytes it is told to, right or wrong."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Frame(NamedTuple):
    """One frame from the server."""

    opcode: int
    payload: bytes
    fin: bool = True


def mask(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i & 3] for i, byte in enumerate(payload)) if len(payload) < 4096 else mask_long(payload, key)


def mask_long(payload: bytes, key: bytes) -> bytes:
    pad = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(len(payload), "little")


def pack(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = b"\x01\x23\x45\x67",
    form: int | None = None,
    announced: int | None = None,
) -> bytes:
    """A client's frame. key None: not masked; form 7, 16 or 64: that length form; announced: another length."""
    size = len(payload) if announced is None else announced
    form = form or (7 if size < 126 else 16 if size <= 0xFFFF else 64)
    masked = 0x80 if key is not None else 0
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    length = {
        7: lambda: bytes((masked | size,)),
        16: lambda: bytes((masked | 126,)) + size.to_bytes(2, "big"),
        64: lambda: bytes((masked | 127,)) + size.to_bytes(8, "big"),
    }[form]()
    return bytes((first,)) + length + (b"" if key is None else key + mask(payload, key))


def pack_close(code: int, reason: str = "") -> bytes:
    return pack(CLOSE, code.to_bytes(2, "big") + reason.encode())


def request(path: str = "/", *headers: str) -> bytes:
    """A clean upgrade request."""
    lines = [
        f"GET {path} HTTP/1.1", "Host: test", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY.decode()}", "Sec-WebSocket-Version: 13", *headers,
    ]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Peer:
    """A client socket that never blocks: `read` takes what has come and sorts it into `head` and `frames`."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        end.setblocking(False)
        self.head = b""
        self.received = b""
        self.frames: list[Frame] = []
        self.ended: str | None = None  #: "eof" or "reset"
        self.is_upgraded = False

    def fileno(self) -> int:
        return self.socket.fileno()

    def say(self, data: bytes) -> None:
        """Sends all of `data`; the kernel's buffer must have room for it."""
        self.socket.sendall(data)

    def text(self, message: str) -> None:
        self.say(pack(TEXT, message.encode(), key=os.urandom(4)))

    def binary(self, message: bytes) -> None:
        self.say(pack(BINARY, message, key=os.urandom(4)))

    def read(self, at_most: int = 1 << 16) -> bool:
        """Takes what has come, at most so much; whether anything did."""
        try:
            data = self.socket.recv(at_most)
        except BlockingIOError:
            return False
        except OSError:
            self.ended = self.ended or "reset"
            return False
        if not data:
            self.ended = self.ended or "eof"
            return False
        self.received += data
        self._sort()
        return True

    def _sort(self) -> None:
        if not self.head:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            self.head, self.received = head + end, rest
            self.is_upgraded = head.startswith(b"HTTP/1.1 101 ")
        while self.is_upgraded and (found := parse(self.received)):
            frame, self.received = found
            self.frames.append(frame)

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def closed_with(self) -> tuple[int, str] | None:
        """Code and reason of the server's Close frame; (1005, "") for an empty one; None before it."""
        for frame in self.frames:
            if frame.opcode == CLOSE:
                return (int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()) if frame.payload else (1005, "")
        return None

    @property
    def messages(self) -> list[str | bytes]:
        return [f.payload.decode() if f.opcode == TEXT else f.payload for f in self.frames if f.opcode in (TEXT, BINARY)]

    def reset(self) -> None:
        """Resets the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.socket.close()

    def end(self) -> None:
        """Ends our side of the stream."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with suppress(OSError):
            self.socket.close()


def parse(data: bytes) -> tuple[Frame, bytes] | None:
    """The first frame of `data`, which the server sent, and what follows; None while it is incomplete."""
    if len(data) < 2:
        return None
    assert data[1] < 0x80, "a server's frame is masked"
    wide = {126: 2, 127: 8}.get(data[1], 0)
    if len(data) < 2 + wide:
        return None
    size = int.from_bytes(data[2 : 2 + wide], "big") if wide else data[1]
    assert not wide or size > {2: 125, 8: 0xFFFF}[wide], "a length form that is not the shortest"
    end = 2 + wide + size
    if len(data) < end:
        return None
    return Frame(data[0] & 0x0F, data[2 + wide : end], data[0] >= 0x80), data[end:]
