"""Types of the client's half of the codec, as the first handshake of a run and the tests use it: `swarm` calls it below Python."""

FAULTS: dict[int, str]

def judged(head: bytes, accept: bytes, offered: bytes = b"") -> int:
    """What to make of a response head, its empty line included: 0: a right upgrade; a status: refused with it; else a key of FAULTS.

    accept: the 28 bytes that Sec-WebSocket-Accept must be.  offered: subprotocols, with commas.  Raises ValueError."""

def frame_head(data: bytes) -> tuple[int, int] | tuple[()] | None:
    """(bytes of the head, length of the payload) of a server's frame; (): more is needed; None: against the protocol."""
