"""How an input of the frames target is laid out: first byte, sizes of the pieces, stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MOST_PIECES = 16
LIMITS = (0, 1, 16, 125, 126, 1000, 70_000, 1 << 40)
NO_LIMIT = len(LIMITS) - 1


class Plan(NamedTuple):
    """A stream that arrives in pieces, at a reader with a message limit in bytes."""

    limit: int
    pieces: list[bytes]
    stream: bytes


def pack(stream: bytes, *, sizes: bytes = b"", limit: int = NO_LIMIT) -> bytes:
    """An input. sizes: of at most 15 pieces, the last of which is followed by the rest.  limit: index of LIMITS."""
    return bytes((limit * MOST_PIECES + len(sizes),)) + sizes + stream


def parse(data: bytes) -> Plan:
    """The plan in an input, which must not be empty."""
    count, limit = data[0] % MOST_PIECES, LIMITS[data[0] // MOST_PIECES % len(LIMITS)]
    sizes, stream = data[1 : 1 + count], data[1 + count :]
    return Plan(limit, list(split(stream, sizes)), stream)


def split(stream: bytes, sizes: bytes) -> Iterator[bytes]:
    start = 0
    for size in sizes:
        yield stream[start : start + size]
        start += size
    yield stream[start:]
