"""Compression of an engine's messages: what its connections share, and what those with context takeover have."""

from __future__ import annotations

from typing import Any

from unlimitedws.wire.closing import INVALID_DATA, TOO_BIG, Cause
from unlimitedws.wire.deflate import Compressor, Context, Corrupt, Terms, TooBig, inflate
from unlimitedws.wire.frames import RSV1, MessageEvent, ViolationEvent, pack_head, whole_message_event

OPCODE = 0x0F


class Deflating:
    """Packs and unpacks messages of connections that agreed on permessage-deflate.

    Without context takeover a connection has nothing here."""

    def __init__(self, config: Any) -> None:
        self.level: int = config.deflate_level
        self.threshold: int = config.deflate_threshold_bytes
        self.limit: int = config.message_bytes
        self.compressors: dict[int, Compressor] = {}  #: by window bits
        self.contexts: dict[int, Context] = {}  #: by descriptor

    def packed(self, terms: Terms, frame: bytes) -> bytes:
        """A message's frame, compressed where that makes it smaller."""
        opcode, payload = parts(frame)
        if len(payload) < self.threshold:
            return frame
        compressor = self.compressors.get(terms.server_bits)
        if compressor is None:
            compressor = self.compressors[terms.server_bits] = Compressor(terms.server_bits, self.level)
        compressed = pack(opcode, compressor.compress(payload))
        return compressed if len(compressed) < len(frame) else frame

    def packed_in(self, context: Context, frame: bytes) -> bytes:
        """The same with context takeover: what was compressed must be sent, smaller or not."""
        opcode, payload = parts(frame)
        return frame if len(payload) < self.threshold else pack(opcode, context.compress(payload))

    def unpacked(self, fd: int, terms: Terms, opcode: int, payload: bytes) -> MessageEvent | ViolationEvent:
        """The message in a compressed payload, or the violation it turns out to be."""
        context = self.contexts.get(fd)
        try:
            message = inflate(payload, terms.client_bits, self.limit) if context is None else context.inflate(payload, self.limit)
        except TooBig:
            return ("violation", Cause.MESSAGE_TOO_BIG, TOO_BIG)
        except Corrupt:
            return ("violation", Cause.INVALID_DATA, INVALID_DATA)
        return whole_message_event(opcode, message)


def parts(frame: bytes) -> tuple[int, memoryview]:
    """Opcode and payload of a frame of ours."""
    wide = {126: 2, 127: 8}.get(frame[1], 0)
    return frame[0] & OPCODE, memoryview(frame)[2 + wide :]


def pack(opcode: int, payload: bytes) -> bytes:
    return pack_head(opcode | RSV1, len(payload)) + payload
