"""Bytes to meaning, compiled: frames (RFC 6455, section 5).

Knows bytes; knows no descriptor, clock, loop or connection. The engine (`handling.pyx`) drives it."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "bytes.h" nogil:
    ctypedef struct uws_utf8:
        uint8_t need, low, high
    uint32_t uws_rotate(uint32_t mask, size_t done)
    uint8_t uws_unmask(uint8_t* dst, const uint8_t* src, size_t n, uint32_t mask)
    int uws_utf8_feed(uws_utf8* state, const uint8_t* p, size_t n)


cdef extern from "reuse.h":
    int uws_bytes(PyObject** payload, const uint8_t* data, size_t size, uint32_t mask) except -1
    int uws_ascii(PyObject** payload, const uint8_t* data, size_t size, uint32_t mask) except -1


cdef enum Opcode:
    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA

# What `next_event` returns: an opcode of the list above (a whole message or control frame), or
cdef enum:
    NEED_MORE = -1          # every byte is used up
    VIOLATION = -2          # the peer broke the protocol; event.code says how to close

cdef enum:
    MAX_HEAD = 14           # 2 + 8 of length + 4 of key
    MAX_CONTROL = 125       # section 5.5
    RSV1 = 0x40             # the message is compressed (RFC 7692, section 6)
    NO_STATUS = 1005

# A peer in the middle of a frame or message: 200 bytes, and the message so far. All zero: between
# messages, where a peer needs none.
cdef struct Reader:
    uint8_t* message        # unmasked payload of the data frames so far
    uint64_t message_size
    uint64_t message_room
    uint64_t frame_left     # payload bytes of this frame still to come
    uint32_t mask           # as it applies to the next payload byte
    uws_utf8 utf8
    uint8_t opcode          # of the frame
    uint8_t message_opcode  # TEXT, BINARY; 0: between messages
    uint8_t compressed      # the message
    uint8_t fin
    uint8_t in_frame        # its head is known, its payload is not complete
    uint8_t head_size
    uint8_t control_size
    uint8_t head[MAX_HEAD]
    uint8_t control[MAX_CONTROL]

# One message or control frame. `data` is a window: on the input (still masked with `mask`) or on the
# reader (mask 0); valid until the next call. For CLOSE: code, and data is the reason.
cdef struct Event:
    uint8_t* data
    size_t size
    uint32_t mask
    uint16_t code
    bint compressed
    bint assembled          # the reader owns it: call `message_taken` when done

cdef inline int short_message(Reader* r, uint8_t** at, uint8_t* end, uint64_t limit, Event* event) noexcept nogil:
    """What `next_event` returns and does for the usual frame, a short message that is whole in the input; NEED_MORE: ask it.

    Decided in one look, where the engine loops: of the 100 instructions that the general way takes, 25 are left (callgrind,
    32-byte echo)."""
    cdef uint8_t* p = at[0]
    cdef size_t size
    if end - p < 6 or r.in_frame | r.head_size | r.message_opcode:
        return NEED_MORE
    size = p[1] ^ 0x80  # 128 and more where it is not masked
    if p[0] != (0x80 | BINARY) and p[0] != (0x80 | TEXT) or size > MAX_CONTROL or <size_t>(end - p) < 6 + size or size > limit:
        return NEED_MORE
    memcpy(&event.mask, p + 2, 4)
    event.data = p + 6
    event.size = size
    event.assembled = event.compressed = False
    at[0] = p + 6 + size
    return p[0] & 0x0F

cdef int next_event(
    Reader* r, uint8_t** at, uint8_t* end, uint64_t limit, bint deflates, Event* event
) noexcept nogil
cdef void message_taken(Reader* r) noexcept nogil
cdef void reader_free(Reader* r) noexcept nogil
cdef bint reader_clean(Reader* r) noexcept nogil
cdef object take_payload(int opcode, Event* event)  # None: text that is not UTF-8

cdef int pack_head(uint8_t* out, int opcode, uint64_t size) noexcept nogil  # bytes written: 2, 4 or 10
cdef bint may_be_sent(uint32_t code) noexcept nogil
cdef bint valid_utf8(const uint8_t* data, size_t size) noexcept nogil
