"""permessage-deflate (RFC 7692): what is agreed, and messages packed and unpacked by it.

Without context takeover, the default, nothing is kept for a connection: one compressor serves all connections of
an engine that agreed on the same window, and each message is inflated by itself. With it, both sides keep their
window from message to message (`Context`): better ratios, for tens of kilobytes for each connection.

Where frames carry the bit RSV1, and what a broken one is answered with, says `wire.frames.Reader`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

NAME = b"permessage-deflate"
TAIL = b"\x00\x00\xff\xff"  # an empty stored block ends a message, and these of its bytes are not sent (section 7.2.1)
FINAL = b"\x01\x00\x00\xff\xff"  # an empty last block: a stream that takes it as one was between two blocks
LEAST_BITS, MOST_BITS = 8, 15  # section 7.1.2
OUR_LEAST_BITS = 9  # zlib cannot write a raw stream with a window of 8 bits

STEP_BYTES = 64 * 1024
"""Inflated at once: how far a message may be over the limit before that is noticed."""

MOST_STREAMS = 16
"""Deflate streams in one message. A block with BFINAL ends one, and section 7.2.3.4 allows it; nobody sends many, and
each costs us a new inflater."""

CACHED_BYTES = 512
"""Longest offer whose answer is remembered; those of browsers and libraries have up to 120 bytes."""


class Corrupt(Exception):
    """A payload that is no deflate stream, or ends in the middle of one."""


class TooBig(Exception):
    """A message that is larger than the limit once it is inflated."""


class Terms(NamedTuple):
    """What was agreed for one connection. Bits are the base-2 logarithm of the window (section 7.1.2)."""

    server_bits: int = 15  #: our compressor's window
    client_bits: int = 15  #: theirs
    server_takeover: bool = False  #: our compressor keeps its window from message to message
    client_takeover: bool = False


class Policy(NamedTuple):
    """What a server agrees to."""

    window_bits: int = 12  #: the largest window of ours, and of theirs where they let us say; 9 to 15
    takeover: bool = False


# ---- the handshake


def negotiate(offers: Sequence[bytes], policy: Policy) -> tuple[Terms, bytes] | None:
    """The first acceptable offer among the values of Sec-WebSocket-Extensions: the terms, and the header's value for the
    response. None: go on without.

    An offer with a parameter that is unknown, repeated or has a wrong value is declined by itself (section 7.1). A header that
    breaks the grammar of RFC 6455, section 9.1, offers nothing."""
    if sum(map(len, offers)) > CACHED_BYTES:
        return settle(offers, policy)
    return remembered(tuple(offers), policy)


def settle(offers: Sequence[bytes], policy: Policy) -> tuple[Terms, bytes] | None:
    try:
        extensions = [extension for value in offers for extension in parse_extensions(value)]
    except ValueError:
        return None
    for name, parameters in extensions:
        if name == NAME and (agreed := accept(parameters, policy)):
            return agreed
    return None


remembered = lru_cache(maxsize=256)(settle)

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[!#$%&\'*+\-.^_`|~0-9A-Za-z]|\\[!#$%&\'*+\-.^_`|~0-9A-Za-z])+"'  # its text must be a token (section 9.1)
PARAMETER = re.compile(rb"[ \t]*;[ \t]*(" + TOKEN + rb")(?:[ \t]*=[ \t]*(" + TOKEN + rb"|" + QUOTED + rb"))?")
EXTENSION = re.compile(rb"[ \t]*(" + TOKEN + rb")")
COMMA = re.compile(rb"[ \t]*(?:,|$)")

Parameters = list[tuple[bytes, bytes | None]]


def parse_extensions(value: bytes) -> Iterator[tuple[bytes, Parameters]]:
    """Name and parameters of each extension in one header value. Raises ValueError for what is no such list."""
    position = 0
    while position < len(value):
        found = EXTENSION.match(value, position)
        if found is None:  # RFC 9110, section 5.6.1: empty items of a list are allowed
            position = past_comma(value, position)
            continue
        parameters: Parameters = []
        position = found.end()
        while parameter := PARAMETER.match(value, position):
            parameters.append((parameter[1].lower(), unquoted(parameter[2])))
            position = parameter.end()
        position = past_comma(value, position)
        yield found[1].lower(), parameters


def past_comma(value: bytes, position: int) -> int:
    found = COMMA.match(value, position)
    if found is None:
        raise ValueError("not a list of extensions")
    return found.end()


def unquoted(value: bytes | None) -> bytes | None:
    return value[1:-1].replace(b"\\", b"") if value and value.startswith(b'"') else value


def accept(parameters: Parameters, policy: Policy) -> tuple[Terms, bytes] | None:
    """The answer to one offer of permessage-deflate; None declines it."""
    offered = dict(parameters)
    if len(offered) != len(parameters) or not all(is_valid(name, value) for name, value in parameters):
        return None
    server_bits = min(policy.window_bits, int(offered.get(b"server_max_window_bits") or MOST_BITS))
    if server_bits < OUR_LEAST_BITS:
        return None
    server_takeover = policy.takeover and b"server_no_context_takeover" not in offered
    client_takeover = policy.takeover and b"client_no_context_takeover" not in offered
    answer = [NAME]
    if not server_takeover:
        answer.append(b"server_no_context_takeover")
    if not client_takeover:
        answer.append(b"client_no_context_takeover")
    if b"server_max_window_bits" in offered:
        answer.append(b"server_max_window_bits=%d" % server_bits)
    client_bits = MOST_BITS
    if b"client_max_window_bits" in offered:  # only then may the answer have it (section 7.1.2.2)
        client_bits = min(policy.window_bits, int(offered[b"client_max_window_bits"] or MOST_BITS))
        answer.append(b"client_max_window_bits=%d" % client_bits)
    # Some clients' zlib makes 9 of 8 bits; our window may be larger than theirs.
    terms = Terms(server_bits, max(client_bits, OUR_LEAST_BITS), server_takeover, client_takeover)
    return terms, b"; ".join(answer)


BITS = re.compile(rb"[89]|1[0-5]")


def is_valid(name: bytes, value: bytes | None) -> bool:
    """Whether an offer may have this parameter with this value (sections 7.1.1 and 7.1.2)."""
    if name in (b"server_no_context_takeover", b"client_no_context_takeover"):
        return value is None
    if name == b"client_max_window_bits" and value is None:
        return True
    return name in (b"server_max_window_bits", b"client_max_window_bits") and value is not None and bool(BITS.fullmatch(value))


# ---- packing


class Compressor:
    """Packs messages that stand each by itself, with one deflate stream for all of them.

    Each message ends with a full flush, after which nothing refers to what was before it (zlib's manual, Z_FULL_FLUSH):
    to whoever inflates it, it is the first of its stream. bits: 9 to 15.  level: 1 to 9."""

    def __init__(self, bits: int, level: int) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -bits)

    def compress(self, data: bytes | memoryview) -> bytes:
        """The payload of a message, without the tail."""
        return pack(self._deflate, data, zlib.Z_FULL_FLUSH)


def pack(deflate: zlib._Compress, data: bytes | memoryview, flush: int) -> bytes:
    if not data:
        return b"\x00"  # section 7.2.3.6; zlib writes nothing where nothing has come since the last flush
    packed = deflate.compress(data) + deflate.flush(flush)
    return packed[: -len(TAIL)]


# ---- unpacking


def most_packed(limit: int) -> int:
    """The longest payload that a message of `limit` bytes may come as: what cannot be compressed grows.

    zlib's own bound, whatever its settings (deflateBound in its deflate.c): an eighth and a little more."""
    return limit + (limit >> 3) + 64


def inflate(data: bytes, bits: int, limit: int) -> bytes:
    """The message in a payload that stands by itself.

    bits: at least the window it was made with. Holds at most `limit` bytes and one step of it, however much the payload
    would become. Raises TooBig or Corrupt."""
    stream = zlib.decompressobj(-bits)
    try:  # nearly every message is one step and one stream; the other way takes 8 us more
        message = stream.decompress(data + TAIL + FINAL, min(limit, STEP_BYTES) + 1)
    except zlib.error:
        raise Corrupt from None
    if stream.eof and not stream.unused_data and len(message) <= limit:
        return message
    return Inflater(bits).inflate(data, limit)


class Inflater:
    """Unpacks messages one after the other, each with the window of those before it."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._stream = zlib.decompressobj(-bits)

    def inflate(self, data: bytes, limit: int) -> bytes:
        """See the function `inflate`. After an error there is nothing that could follow."""
        steps: list[bytes] = []
        try:
            if self._unpack(data, limit, steps):
                self._end_message(limit, steps)
        except zlib.error:
            raise Corrupt from None
        return steps[0] if len(steps) == 1 else b"".join(steps)

    def _unpack(self, data: bytes, limit: int, steps: list[bytes]) -> bool:
        """Whether the message goes on up to the tail, which is the usual."""
        room = limit - sum(map(len, steps))
        rest = memoryview(data)
        for _ in range(MOST_STREAMS):
            self._run(rest, room, steps)
            if not self._stream.eof:
                return True
            # A block with BFINAL ended the stream. Many senders close it with the empty block's first byte, as in the
            # example of section 7.2.3.4; what follows otherwise is a stream of its own.
            left = len(self._stream.unused_data) + self._unread
            self._stream = zlib.decompressobj(-self._bits)
            rest = rest[len(rest) - left :]
            if bytes(rest[:2]) in (b"", b"\x00"):
                return False
            room = limit - sum(map(len, steps))
        raise Corrupt

    def _run(self, data: memoryview, room: int, steps: list[bytes]) -> None:
        """Unpacks `data` up to its end or that of the stream, in steps; `_unread` is what was not even begun."""
        position = 0
        piece: bytes | memoryview = b""
        while position < len(data) or piece:
            if not piece:
                piece = data[position : position + STEP_BYTES]
                position += len(piece)
            step = self._stream.decompress(piece, STEP_BYTES)
            piece = self._stream.unconsumed_tail
            room -= len(step)
            if room < 0:
                raise TooBig
            if step:
                steps.append(step)
            if self._stream.eof:
                break
        self._unread = len(data) - position

    def _end_message(self, limit: int, steps: list[bytes]) -> None:
        """Puts back the tail, which may bring more of the message, and sees whether it was between two blocks then."""
        room = limit - sum(map(len, steps))
        self._run(memoryview(TAIL), room, steps)
        if self._stream.eof:
            raise Corrupt  # a last block that ends inside the tail
        probe = self._stream.copy()
        probe.decompress(FINAL)
        if not probe.eof or probe.unused_data:
            raise Corrupt


class Context:
    """What a connection with context takeover keeps: its own deflate streams, where the terms have them kept.

    Ours takes less memory than is zlib's usual (its memLevel), as that of `websockets` does: of both together, used in full, 32 KiB
    with 12 bits, 200 KiB with 15 were measured."""

    __slots__ = ("_deflate", "_inflater", "terms")

    def __init__(self, terms: Terms, level: int) -> None:
        self.terms = terms
        self._deflate = (
            zlib.compressobj(level, zlib.DEFLATED, -terms.server_bits, max(1, terms.server_bits - 7)) if terms.server_takeover else None
        )
        self._inflater = Inflater(terms.client_bits) if terms.client_takeover else None

    @property
    def compresses(self) -> bool:
        """Whether ours is kept. If so, whatever was compressed must be sent, and in that order."""
        return self._deflate is not None

    def compress(self, data: bytes | memoryview) -> bytes:
        assert self._deflate is not None
        return pack(self._deflate, data, zlib.Z_SYNC_FLUSH)

    def inflate(self, data: bytes, limit: int) -> bytes:
        if self._inflater is None:
            return inflate(data, self.terms.client_bits, limit)
        return self._inflater.inflate(data, limit)
