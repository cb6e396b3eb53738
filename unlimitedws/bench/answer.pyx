# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a server answers: the head of its response (RFC 6455, section 4.1) and its frames (section 5)."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memchr, memcmp

from unlimitedws.engine.codec cimport CLOSE, MAX_CONTROL, PONG, BINARY
from unlimitedws.engine.head cimport lists


cdef extern from "strings.h" nogil:
    int strncasecmp(const char* a, const char* b, size_t n)


cdef int measure(const uint8_t* p, size_t n, uint64_t* length) noexcept nogil:
    cdef uint8_t opcode, small
    cdef uint64_t size = 0
    cdef int i
    if n < 2:
        return 0
    opcode, small = p[0] & 0x0F, p[1]
    if small & 0x80 or p[0] & 0x70:  # masked (section 5.1); reserved bits, as no extension is offered
        return -1
    if opcode > PONG or BINARY < opcode < CLOSE:
        return -1
    if opcode >= CLOSE and (not p[0] & 0x80 or small > MAX_CONTROL):
        return -1
    if small < 126:
        length[0] = small
        return 2
    if small == 126:
        if n < 4:
            return 0
        length[0] = <uint64_t>p[2] << 8 | p[3]
        return 4 if length[0] >= 126 else -1  # the shortest form must be used (section 5.2)
    if n < MOST_HEAD:
        return 0
    for i in range(8):
        size = size << 8 | p[2 + i]
    length[0] = size
    return MOST_HEAD if size >= 65536 and not size >> 63 else -1


cdef const uint8_t* header(const uint8_t* p, const uint8_t* end, const char* name, size_t size, size_t* length) noexcept nogil:
    """The value of a header, without spaces around it; NULL: there is none. p: behind the status line."""
    cdef const uint8_t* stop
    cdef const uint8_t* value
    while p < end:
        stop = <const uint8_t*>memchr(p, b"\r", end - p)
        if stop == NULL:
            stop = end
        if <size_t>(stop - p) > size and p[size] == b":" and strncasecmp(<const char*>p, name, size) == 0:
            value = p + size + 1
            while value < stop and (value[0] == b" " or value[0] == b"\t"):
                value += 1
            while stop > value and ((stop - 1)[0] == b" " or (stop - 1)[0] == b"\t"):
                stop -= 1
            length[0] = stop - value
            return value
        p = stop + 2
    return NULL


cdef int judge(const uint8_t* head, size_t n, const uint8_t* accept, const uint8_t* offered, size_t offered_size) noexcept nogil:
    """What to make of a response head of n bytes, its empty line included. accept: 28 bytes; offered: our subprotocols, as we listed them."""
    cdef const uint8_t* end = head + n
    cdef const uint8_t* at
    cdef const uint8_t* value
    cdef size_t length = 0
    cdef int status, i
    if n < 16 or memcmp(head, b"HTTP/1.", 7) != 0 or head[8] != b" ":
        return NOT_HTTP
    for i in range(9, 12):
        if not b"0" <= head[i] <= b"9":
            return NOT_HTTP
    status = (head[9] - 48) * 100 + (head[10] - 48) * 10 + head[11] - 48
    if status != 101:
        return status if 101 < status < 600 else NOT_HTTP
    at = <const uint8_t*>memchr(head, b"\n", n)
    if at == NULL:
        return NOT_HTTP
    at += 1
    value = header(at, end, b"Upgrade", 7, &length)
    if value == NULL or length != 9 or strncasecmp(<const char*>value, b"websocket", 9) != 0:
        return NO_UPGRADE
    value = header(at, end, b"Connection", 10, &length)
    if value == NULL or not lists(value, length, b"upgrade", 7, False):
        return NO_CONNECTION
    value = header(at, end, b"Sec-WebSocket-Accept", 20, &length)
    if value == NULL or length != 28 or memcmp(value, accept, 28) != 0:
        return WRONG_ACCEPT
    value = header(at, end, b"Sec-WebSocket-Extensions", 24, &length)
    if value != NULL and length:
        return UNASKED_EXTENSION
    value = header(at, end, b"Sec-WebSocket-Protocol", 22, &length)
    if value != NULL and not lists(offered, offered_size, <const char*>value, length, True):
        return UNASKED_PROTOCOL
    return WELCOME


# ---- for Python: the first handshake of a run, and tests

FAULTS = {
    NOT_HTTP: "the answer is not HTTP/1.1",
    NO_UPGRADE: "its answer has no 'Upgrade: websocket'",
    NO_CONNECTION: "its answer has no 'Connection: Upgrade'",
    WRONG_ACCEPT: "its Sec-WebSocket-Accept does not fit our key",
    UNASKED_EXTENSION: "it chose an extension that was not offered",
    UNASKED_PROTOCOL: "it chose a subprotocol that was not offered",
}


def judged(bytes head not None, bytes accept not None, bytes offered=b""):
    if len(accept) != 28:
        raise ValueError(f"a Sec-WebSocket-Accept has 28 characters: {accept!r}")
    return judge(head, len(head), accept, offered, len(offered))


def frame_head(bytes data not None):
    cdef uint64_t length = 0
    cdef int size = measure(data, len(data), &length)
    return (size, length) if size > 0 else None if size < 0 else ()
