"""TLS on the engine's own loop: an SSLObject between two memory buffers, for each connection of a TLS listener."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress

PIECE_BYTES = 4096
"""Ciphertext given to OpenSSL at once. Its memory buffers keep the room of the most they ever held, for as long as the
connection lives, so that this is also what they cost an idle one."""

RECORD_BYTES = 16 * 1024
"""The most that one record holds (RFC 8446, section 5.1)."""


class Tls:
    """One connection's TLS, as bytes: what the socket gives goes into `open`, what it gets comes from `seal` and `take`.

    context: gives the context of a new connection; it is asked when the first byte has come, since an SSLObject
    weighs more than everything else that a silent connection has."""

    __slots__ = ("_context", "_incoming", "_outgoing", "has_ended", "has_parted", "is_up", "object", "sealed")

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context: Callable[[], ssl.SSLContext] | None = context
        self._incoming: ssl.MemoryBIO
        self._outgoing: ssl.MemoryBIO
        self.object: ssl.SSLObject | None = None
        self.is_up = False  #: the handshake is done
        self.has_ended = False  #: they said close_notify
        self.has_parted = False  #: so did we
        self.sealed: bytes | memoryview = b""  #: ciphertext that waits for the kernel

    def open(self, data: bytes) -> bytes:
        """The plaintext in ciphertext that has come. Raises ssl.SSLError; `take` has the alert then."""
        if self._context is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.object = self._context().wrap_bio(self._incoming, self._outgoing, server_side=True)
            self._context = None
        pieces: list[bytes] = []
        for start in range(0, len(data), PIECE_BYTES):
            self._incoming.write(data[start : start + PIECE_BYTES])
            self._read(pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read(self, pieces: list[bytes]) -> None:
        assert self.object is not None
        try:
            if not self.is_up:
                self.object.do_handshake()
                self.is_up = True
            while piece := self.object.read(RECORD_BYTES):
                pieces.append(piece)
            self.has_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.has_ended = True

    def seal(self, data: bytes | memoryview) -> bytes:
        """The ciphertext of `data`. Raises ssl.SSLError."""
        assert self.object is not None
        pieces = []
        for start in range(0, len(data), RECORD_BYTES):
            self.object.write(data[start : start + RECORD_BYTES])
            pieces.append(self._outgoing.read())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def part(self) -> bytes:
        """Our close_notify (RFC 8446, section 6.1)."""
        self.has_parted = True
        if self.object is None or not self.is_up:
            return b""
        with suppress(ssl.SSLError):  # it would wait for theirs, which we do not, or has failed already
            self.object.unwrap()
        return self.take()

    def take(self) -> bytes:
        """What TLS has to say by itself: its handshake, tickets, alerts."""
        return b"" if self._context is not None else self._outgoing.read()
