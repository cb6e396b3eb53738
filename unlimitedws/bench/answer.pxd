"""The client's half of the codec: what a server answers. Knows bytes, no descriptor; its other half is `engine.codec`."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    MOST_HEAD = 10          # a server's frames have no key
    WELCOME = 0             # what `judge` says of a right upgrade; a status above 101: refused with it; below 0: no upgrade
    NOT_HTTP = -1
    NO_UPGRADE = -2
    NO_CONNECTION = -3
    WRONG_ACCEPT = -4
    UNASKED_EXTENSION = -5
    UNASKED_PROTOCOL = -6

cdef int measure(const uint8_t* p, size_t n, uint64_t* length) noexcept nogil  # bytes of a frame head; 0: more needed; -1: a violation
cdef int judge(const uint8_t* head, size_t n, const uint8_t* accept, const uint8_t* offered, size_t offered_size) noexcept nogil
