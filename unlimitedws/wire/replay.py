"""A reader in the middle of something, as the bytes that bring a new one there.

So a connection can move from one reader to another of any kind in the middle of a message, of a frame, of a frame's
head: what the client still sends then means to the new reader what it meant to the old one. Events that were
read and not handled become frames again.
"""

from __future__ import annotations

from unlimitedws.wire.closing import NO_STATUS, pack_close
from unlimitedws.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    MASK,
    MAX_16_BIT,
    MAX_CONTROL_BYTES,
    PING,
    PONG,
    RSV1,
    TEXT,
    Begun,
    Event,
    Frame,
)

NO_KEY = bytes(4)  # masks nothing (RFC 6455, section 5.3)


def replay(message: Begun | None, frame: Frame | None, rest: bytes) -> bytes:
    """The bytes that stand for a `Reader.state`.

    What had come of the message becomes one fragment (section 5.4), and the frame at work one that continues it."""
    parts = []
    if message is not None:
        first = message.opcode | (RSV1 if message.is_compressed else 0)
        parts += [client_head(first, len(message.payload), NO_KEY), message.payload]
    if frame is not None:
        continues = message is not None and frame.first & 0x0F < CLOSE
        parts.append(client_head(frame.first & FIN | CONTINUATION if continues else frame.first, frame.left, frame.key))
    return b"".join((*parts, rest))


def frame_of(event: Event) -> bytes:
    """The frame that gives this event; of a violation none can."""
    match event:
        case ("text", str(text)):
            return client_frame(TEXT, text.encode())
        case ("binary", bytes(payload)):
            return client_frame(BINARY, payload)
        case ("compressed", int(opcode), bytes(payload)):
            return client_frame(opcode | RSV1, payload)
        case ("ping" | "pong", bytes(payload)):
            return client_frame(PING if event[0] == "ping" else PONG, payload)
        case ("close", int(code), str(reason)):
            return client_frame(CLOSE, b"" if code == NO_STATUS else pack_close(code, reason))
    raise ValueError(f"no frame gives {event[0]!r}")


def client_frame(first: int, payload: bytes) -> bytes:
    return client_head(FIN | first, len(payload), NO_KEY) + payload


def client_head(first: int, length: int, key: bytes) -> bytes:
    """The head of a client's frame: masked, the shortest length form (section 5.2)."""
    if length <= MAX_CONTROL_BYTES:
        return bytes((first, MASK | length)) + key
    if length <= MAX_16_BIT:
        return bytes((first, MASK | 126)) + length.to_bytes(2, "big") + key
    return bytes((first, MASK | 127)) + length.to_bytes(8, "big") + key


def rotated(key: bytes, done: int) -> bytes:
    """The key as it applies `done` bytes further into the payload; negative: before."""
    done %= 4
    return key[done:] + key[:done]
