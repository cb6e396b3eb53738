"""A live connection on its way from one engine to another: what its row becomes while its descriptor is passed on.

Neither engine's own: one may give what the other takes, and a newer release what an older one gave. So what is unfinished
travels as bytes: `input` brings the reader of frames to where it stood (`wire.replay`), `output` is what is
still to be written.
"""

from __future__ import annotations

from typing import NamedTuple

from unlimitedws.wire.address import Address
from unlimitedws.wire.deflate import Terms


class Meter(NamedTuple):
    """What the access log says at the end: bytes of the WebSocket so far, framing included, and seconds since its handshake."""

    bytes_in: int
    bytes_out: int
    opened_s: float


class Tokens(NamedTuple):
    """What is left of a connection's rates; negative: it has to wait."""

    messages: float
    bytes: float


class Moved(NamedTuple):
    """One connection. Times are seconds before now, as clocks differ from process to process."""

    id: int
    path: str | None  #: None: its request is not complete; `input` is what has come of it
    subprotocol: str | None = None
    deflate: Terms | None = None
    address: Address = ""
    seen_s: float = 0.0  #: since the last sign of life
    active_s: float = 0.0  #: since the last message, or since it was accepted
    pinged_s: float | None = None  #: since a Ping went out that nothing has followed; None: there is none
    input: bytes = b""
    output: bytes = b""
    is_over: bool = False  #: its output went over high water, and an on_drain is owed
    meter: Meter | None = None
    tokens: Tokens | None = None
