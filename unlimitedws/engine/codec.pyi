"""Types of the native codec. For tests and the fuzzer: the engine calls it below Python."""

from unlimitedws.wire.closing import Cause
from unlimitedws.wire.frames import Event

CAUSES: dict[int, Cause]

class PyReader:
    """The twin of `wire.frames.Reader`, with the same events."""

    deflate: bool  # whether permessage-deflate was agreed

    def __init__(self, message_bytes: int) -> None: ...
    @property
    def is_clean(self) -> bool: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]: ...
