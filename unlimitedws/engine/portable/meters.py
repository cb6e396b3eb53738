"""What the access log says of a connection, kept only where it is written."""

from __future__ import annotations


class Meter:
    """Bytes of one WebSocket since its handshake, framing included."""

    __slots__ = ("bytes_in", "bytes_out", "opened")

    def __init__(self, opened: float, bytes_in: int, bytes_out: int) -> None:
        self.opened = opened
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out  #: what was written; begins below zero, since the answer to the handshake is written first
