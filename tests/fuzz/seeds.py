"""The first inputs of the fuzzer: one for each thing that the standard names. Everything else it finds itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.plan import NO_LIMIT, pack

KEY = b"\x00\x00\x00\x00"  # so that the fuzzer sees through the mask
REAL_KEY = b"\x37\xfa\x21\x3d"  # of the example in section 5.7


def frame(first: int, payload: bytes, key: bytes = KEY) -> bytes:
    """A masked frame of a client; first: FIN, reserved bits and opcode."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def streams() -> Iterator[bytes]:
    """Streams of frames, right and wrong ones."""
    text = "dé \u20ac \U0001f600".encode()
    yield frame(0x81, b"Hello", REAL_KEY)
    yield frame(0x81, text) + frame(0x82, b"\x00\xff")
    yield frame(0x01, text[:4]) + frame(0x89, b"ping") + frame(0x00, text[4:6]) + frame(0x80, text[6:])
    yield frame(0x02, b"a" * 126) + frame(0x8A, b"") + frame(0x80, b"b" * 200)
    yield frame(0x82, b"c" * 66_000)
    yield frame(0x88, b"") + frame(0x81, b"late")
    yield frame(0x88, (1000).to_bytes(2, "big") + "r\u00e9ason".encode())
    for code in (999, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000):
        yield frame(0x88, code.to_bytes(2, "big"))
    yield frame(0x88, b"\x03")
    yield frame(0x81, b"\xed\xa0\x80")
    yield frame(0x01, b"\xf0\x9f") + frame(0x80, b"\x28")
    yield frame(0xC1, b"reserved bit")
    yield frame(0x83, b"reserved opcode")
    yield frame(0x09, b"fragmented ping")
    yield frame(0x80, b"continuation of nothing")
    yield frame(0x01, b"a") + frame(0x81, b"no continuation")
    yield b"\x81\x05Hello"
    yield b"\x82\xfe\x00\x05" + KEY + b"Hello"
    yield b"\x82\xff\x00\x00\x00\x00\x80\x00\x00\x00" + KEY
    yield b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + KEY


def frame_inputs() -> Iterator[bytes]:
    """Each stream in one piece and in several, under a large limit and a small one."""
    for stream in streams():
        for limit in (NO_LIMIT, 2):
            for sizes in (b"", bytes((1, 1, 2, 3, 5)), bytes((6, 1))):
                yield pack(stream, sizes=sizes, limit=limit)


def heads() -> Iterator[bytes]:
    """Request heads, clean ones and others."""
    host, key = b"Host: example.com:8000\r\n", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upgrade, version = b"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", b"Sec-WebSocket-Version: 13\r\n"
    end = b"\r\n"
    yield b"GET /chat HTTP/1.1\r\n" + host + upgrade + key + version + end
    yield b"GET /chat?token=1 HTTP/1.1\r\n" + host + upgrade + key + version + b"Origin: http://example.com\r\n" + end + b"\x81"
    yield b"GET /a%20b HTTP/1.1\r\n" + host + upgrade + key + version + b"Sec-WebSocket-Protocol: chat, superchat\r\n" + end
    yield b"GET ws://example.com/chat HTTP/1.1\r\n" + host + upgrade + key + version + end
    yield b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n" + upgrade + key + version + b"X-Empty:\r\nX-Spaces: \t a b \t\r\n" + end
    yield b"GET / HTTP/1.1\r\n" + host + upgrade + key + version + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n" + end
    yield b"GET / HTTP/1.1\r\n" + host + upgrade + key + b"Sec-WebSocket-Version: 8\r\nExpect: 100-continue\r\n" + end
    yield b"GET / HTTP/1.1\r\n" + host + host + upgrade + key + key + version + end
    yield b"GET / HTTP/1.0\r\n" + host + end
    yield b"HEAD / HTTP/1.1\r\n" + host + end
    yield b"GET / HTTP/1.1\r\n" + host + b" folded\r\nBad Name: 1\r\n" + end


def edit_inputs() -> Iterator[bytes]:
    """Each head as it is; the edits are the fuzzer's."""
    for number, _ in enumerate(heads()):
        yield bytes((number,))
        yield bytes((number, 4, 0, ord("/")))


INPUTS = {"frames": frame_inputs, "upgrade": heads, "edits": edit_inputs}


def write(folder: Path, target: str) -> int:
    """Writes the inputs of a target into a folder; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = list(INPUTS[target]())
    for number, data in enumerate(inputs):
        (folder / f"seed-{number:03}").write_bytes(data)
    return len(inputs)
