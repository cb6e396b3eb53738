"""Frames of RFC 6455, section 5: packing ours, reading theirs.

`Reader` is the codec of the portable engine. A frame that has arrived whole is read here, in a few lines; for
one that arrives in pieces wsproto's FrameDecoder is borrowed until that frame ends. `max_whole` exists for the
tests, which compare both ways on the same streams. The native codec offers the same class with the same events.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Literal, NamedTuple

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, ParseFailed, RsvBits, XorMaskerSimple

from unlimitedws.wire.closing import INVALID_DATA, NO_STATUS, PROTOCOL_ERROR, TOO_BIG, Cause, may_be_sent
from unlimitedws.wire.deflate import most_packed

CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

FIN = 0x80
RSV = 0x70
RSV1 = 0x40  # with permessage-deflate: this message is compressed (RFC 7692, section 6)
MASK = 0x80
MAX_CONTROL_BYTES = 125  # section 5.5
MAX_16_BIT = 0xFFFF

CompressedEvent = tuple[Literal["compressed"], int, bytes]
MessageEvent = tuple[Literal["text"], str] | tuple[Literal["binary"], bytes]
ControlEvent = tuple[Literal["ping"], bytes] | tuple[Literal["pong"], bytes]
CloseEvent = tuple[Literal["close"], int, str]
ViolationEvent = tuple[Literal["violation"], Cause, int]
Event = MessageEvent | CompressedEvent | ControlEvent | CloseEvent | ViolationEvent
"""What a Reader found: a whole message, a control frame, or the cause and close code of a broken rule.

Of a compressed message: its opcode, and its payload as it came. Whoever holds the terms inflates it, when its turn comes."""

new_text_decoder = getincrementaldecoder("utf-8")


class Violation(Exception):
    """A rule broken by the peer; inside this module only. Readers return it as an event."""

    def __init__(self, cause: Cause, code: int) -> None:
        super().__init__(cause, code)
        self.event: ViolationEvent = ("violation", cause, code)


def pack_head(opcode: int, length: int, *, fin: bool = True) -> bytes:
    """The head of a server's frame: not masked, the shortest length form (section 5.2)."""
    first = opcode | FIN if fin else opcode
    if length <= MAX_CONTROL_BYTES:
        return bytes((first, length))
    if length <= MAX_16_BIT:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def pack_frame(opcode: int, payload: bytes | bytearray | memoryview, *, fin: bool = True) -> bytes:
    """A server's frame. payload: anything of bytes; a memoryview must be one of bytes (format B, contiguous)."""
    return b"".join((pack_head(opcode, len(payload), fin=fin), payload))


def unmask(payload: bytes, key: bytes) -> bytes:
    """`payload` XOR its 4-byte key, repeated (section 5.3)."""
    length = len(payload)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")


def parse_close(payload: bytes) -> CloseEvent:
    """Code and reason of a Close frame; 1005 where it has none (section 5.5.1). Raises Violation."""
    if not payload:
        return ("close", NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not may_be_sent(code):
        raise Violation(Cause.PROTOCOL_ERROR, PROTOCOL_ERROR)
    try:
        return ("close", code, payload[2:].decode())
    except UnicodeDecodeError:
        raise Violation(Cause.INVALID_DATA, INVALID_DATA) from None


class Rsv1(Extension):
    """Tells wsproto where the bit RSV1 may stand; it reads such a frame as any other."""

    name = "permessage-deflate"

    def __init__(self) -> None:
        self.allowed = False

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        return RsvBits(self.allowed and opcode in (Opcode.TEXT, Opcode.BINARY), False, False)


class Message:
    """A message that has begun: its bytes so far, checked as they come; those of a compressed one stay so.

    Pieces are joined as they arrive, so that a message of a million one-byte fragments costs its bytes only."""

    __slots__ = ("_decoder", "_parts", "is_compressed", "opcode")

    def __init__(self, opcode: int, is_compressed: bool = False) -> None:
        self.opcode = opcode
        self.is_compressed = is_compressed
        self._parts = bytearray()
        self._decoder = new_text_decoder() if opcode == TEXT and not is_compressed else None

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, piece: bytes) -> None:
        """Takes the next bytes. Raises Violation as soon as text cannot become UTF-8 any more."""
        self._parts += piece
        if self._decoder is None:
            return
        try:
            self._decoder.decode(piece)
        except UnicodeDecodeError:
            raise Violation(Cause.INVALID_DATA, INVALID_DATA) from None
        # CPython waits for the third byte of a surrogate (for "surrogatepass"); its second byte is enough.
        rest = self._decoder.getstate()[0]
        if len(rest) == 2 and rest[0] == 0xED and rest[1] >= 0xA0:
            raise Violation(Cause.INVALID_DATA, INVALID_DATA)

    def begun(self) -> Begun:
        return Begun(self.opcode, self.is_compressed, bytes(self._parts))

    def finish(self) -> MessageEvent | CompressedEvent:
        """The whole message. Raises Violation where text ends inside a character."""
        if self.is_compressed:
            return ("compressed", self.opcode, bytes(self._parts))
        if self.opcode == BINARY:
            return ("binary", bytes(self._parts))
        try:
            return ("text", self._parts.decode())
        except UnicodeDecodeError:
            raise Violation(Cause.INVALID_DATA, INVALID_DATA) from None


class Begun(NamedTuple):
    """A message of which some has come: its opcode, and the payload so far."""

    opcode: int
    is_compressed: bool
    payload: bytes


class Frame(NamedTuple):
    """A frame whose head has come: its first byte, the bytes of its payload still to come, the masking key for the next of them."""

    first: int
    left: int
    key: bytes


class Reader:
    """What a client sends, as events; one for each connection that is in the middle of something.

    message_bytes: the limit of one message, all its frames counted, judged by the announced sizes.
    max_whole: longest payload read without wsproto (tests set -1).  deflate: whether permessage-deflate was
    agreed with this client; set it before its first byte.

    After a close or violation event nothing more is read. Where one frame breaks several rules, the size
    limit comes last. The memory held is that of the unfinished message.

    With `deflate` the bit RSV1 on the first frame of a message says that the message is compressed (RFC 7692, section 6);
    it becomes a "compressed" event. It is not inflated here: as it comes, its payload may be as long as one of `message_bytes`
    can become (`deflate.most_packed`); the message counts when it is inflated, and only then can text be checked. RSV1
    without `deflate`, on a continuation or on a control frame breaks the protocol (1002), as RSV2 and RSV3 always do.
    Messages without RSV1 are as ever."""

    __slots__ = (
        "_compressed", "_done", "_frames", "_message", "_message_bytes", "_opcode", "_partial", "_rsv1", "deflate", "max_whole",
    )  # fmt: skip

    def __init__(self, message_bytes: int, *, max_whole: int = 1 << 62) -> None:
        self.max_whole = max_whole
        self._message_bytes = message_bytes
        self.clear()

    def clear(self) -> None:
        """Forgets everything: as new, for another connection."""
        self._message: Message | None = None
        self._rsv1 = Rsv1()
        self._frames = FrameDecoder(client=False, extensions=[self._rsv1])
        self.deflate = False
        self._opcode = CONTINUATION
        self._compressed = False
        self._partial = False
        self._done = False

    @property
    def is_clean(self) -> bool:
        """Between messages with nothing buffered: may be lent to another connection."""
        return not self._partial and self._message is None and not self._done

    @property
    def state(self) -> tuple[Begun | None, Frame | None, bytes]:
        """What it is in the middle of: a message, a frame, and bytes of the frame at work (masked) or of the next head."""
        message = None if self._message is None else self._message.begun()
        frames, frame = self._frames, None
        if (header := frames.header) is not None and isinstance(frames.masker, XorMaskerSimple):
            first = header.fin << 7 | (RSV1 if header.rsv.rsv1 else 0) | int(header.opcode)
            frame = Frame(first, header.payload_len - frames.payload_consumed, bytes(frames.masker._masking_key))
        return message, frame, bytes(frames.buffer.buffer)

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data`, the next bytes of the stream, completes."""
        if not self._partial and self._message is None and (event := self._lone_message(data)):
            return [event]
        events: list[Event] = []
        position, end = 0, len(data)
        try:
            while position < end and not self._done:
                if not self._partial:
                    position = self._read_whole(data, position, events)
                    self._partial = position < end and not self._done
                else:
                    position = self._read_piece(data, position, events)
        except Violation as violation:
            self._done = True
            self._message = None
            events.append(violation.event)
        return events

    def _lone_message(self, data: bytes) -> MessageEvent | None:
        """`data` as one short message in one frame, by far the most usual thing to come; None: anything else.

        A shortcut through `_read_whole`, which costs half as much again: it takes nothing that needs judging."""
        length = len(data) - 6
        if not 0 < length < 126 or data[1] != length | MASK or length > self.max_whole or length > self._message_bytes or self._done:
            return None
        pad = (data[2:6] * 32)[:length]
        payload = (int.from_bytes(data[6:], "little") ^ int.from_bytes(pad, "little")).to_bytes(length, "little")
        if data[0] == FIN | BINARY:
            return ("binary", payload)
        if data[0] == FIN | TEXT:
            try:
                return ("text", payload.decode())
            except UnicodeDecodeError:
                return None
        return None

    def _read_whole(self, data: bytes, position: int, events: list[Event]) -> int:
        """Reads frames as long as they are whole and regular; the position of the first that is not."""
        end = len(data)
        while end - position >= 6 and not self._done:
            first, second = data[position], data[position + 1]
            start = position + 6
            length = second - MASK
            if length < 0 or (first & RSV and not self._is_compressed(first)):
                return position
            if length >= 126:
                wide = 2 if length == 126 else 8
                start += wide
                length = int.from_bytes(data[position + 2 : position + 2 + wide], "big")
                if length <= (125 if wide == 2 else MAX_16_BIT):
                    return position
            if start + length > end or length > self.max_whole:
                return position
            opcode = first & 0x0F
            if opcode > PONG or 2 < opcode < 8 or (opcode >= CLOSE and (length > MAX_CONTROL_BYTES or first < FIN)):
                return position
            if opcode < CLOSE:
                self._judge(opcode, length, compressed=bool(first & RSV1))
            payload = unmask(data[start : start + length], data[start - 4 : start])
            position = start + length
            if first & RSV1:
                self._message = Message(opcode, is_compressed=True)
            if first > FIN and opcode < CLOSE and self._message is None:
                events.append(whole_message(opcode, payload))
            else:
                self._take(opcode, payload, first >= FIN, events)
        return position

    def _is_compressed(self, first: int) -> bool:
        """Whether the first byte of a frame begins a compressed message, and may."""
        return self.deflate and first & RSV == RSV1 and first & 0x0F in (TEXT, BINARY)

    def _judge(self, opcode: int, length: int, *, compressed: bool) -> None:
        """Whether a data frame may come now, and fits (sections 5.4 and 10.4). Raises Violation."""
        message = self._message
        if (opcode == CONTINUATION) == (message is None):
            raise Violation(Cause.PROTOCOL_ERROR, PROTOCOL_ERROR)
        have, compressed = (0, compressed) if message is None else (len(message), message.is_compressed)
        if have + length > (most_packed(self._message_bytes) if compressed else self._message_bytes):
            raise Violation(Cause.MESSAGE_TOO_BIG, TOO_BIG)

    def _take(self, opcode: int, payload: bytes, finished: bool, events: list[Event]) -> None:
        """Takes a frame's payload, or the next piece of a data frame's; finished: the message ends here."""
        if opcode == CLOSE:
            events.append(parse_close(payload))
            self._done = True
        elif opcode == PING:
            events.append(("ping", payload))
        elif opcode == PONG:
            events.append(("pong", payload))
        else:
            if self._message is None:
                self._message = Message(opcode)
            self._message.add(payload)
            if finished:
                events.append(self._message.finish())
                self._message = None

    def _read_piece(self, data: bytes, position: int, events: list[Event]) -> int:
        """Gives wsproto what the current frame still lacks, no byte more; the new position."""
        frames = self._frames
        self._rsv1.allowed = self.deflate
        until = position + self._lacking()
        frames.receive_bytes(data[position:until])
        try:
            if frames.header is None:
                if not frames.parse_header():
                    return until
                self._begin_frame()
            frame = frames.process_buffer()
        except ParseFailed as error:
            raise Violation(Cause.PROTOCOL_ERROR, int(error.code)) from None
        if frame is not None:
            assert isinstance(frame.payload, bytes)
            if self._compressed:
                self._message, self._compressed = Message(self._opcode, is_compressed=True), False
            self._take(self._opcode, frame.payload, frame.frame_finished and frame.message_finished, events)
            self._partial = not frame.frame_finished
        return until

    def _lacking(self) -> int:
        """Bytes up to the end of the current frame's next part: the first two, its head, its payload."""
        frames = self._frames
        have = len(frames.buffer)
        if frames.header is not None:
            return int(frames.header.payload_len) - frames.payload_consumed - have
        if have < 2:
            return 2 - have
        second = frames.buffer.buffer[1]
        wide = {126: 2, 127: 8}.get(second & 0x7F, 0)
        return 2 + wide + (4 if second & MASK else 0) - have

    def _begin_frame(self) -> None:
        """Judges the head that wsproto has just read. Raises Violation."""
        header = self._frames.header
        assert header is not None
        self._opcode = int(header.opcode)
        if self._opcode < CLOSE:
            self._judge(self._opcode, header.payload_len, compressed=bool(header.rsv.rsv1))
            self._compressed = header.rsv.rsv1


def whole_message_event(opcode: int, payload: bytes) -> MessageEvent | ViolationEvent:
    """The event of a whole message; a violation where text is not UTF-8."""
    try:
        return whole_message(opcode, payload)
    except Violation as violation:
        return violation.event


def whole_message(opcode: int, payload: bytes) -> MessageEvent:
    """The event of a message in one frame. Raises Violation where text is not UTF-8."""
    if opcode == BINARY:
        return ("binary", payload)
    try:
        return ("text", payload.decode())
    except UnicodeDecodeError:
        raise Violation(Cause.INVALID_DATA, INVALID_DATA) from None
