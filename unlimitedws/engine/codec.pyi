"""Types of the native codec. For tests and the fuzzer: the engine calls it below Python."""

from unlimitedws.wire.closing import Cause
from unlimitedws.wire.frames import Event

CAUSES: dict[int, Cause]

def clean_upgrade(head: bytes) -> tuple[int, bytes, bytes] | int | None:
    """(size of the head, target without query, key) of a clean upgrade request; 0: incomplete; None: for the full parser."""

class PyReader:
    deflate: bool  # whether permessage-deflate was agreed
    """The twin of `wire.frames.Reader`, with the same events."""

    def __init__(self, message_bytes: int) -> None: ...
    @property
    def is_clean(self) -> bool: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]: ...
