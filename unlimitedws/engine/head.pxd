"""Bytes to meaning, compiled: the clean upgrade request (RFC 6455, section 4.2.1). Knows bytes, as the codec does, and nothing else."""

from libc.stdint cimport uint8_t

# A clean upgrade request: windows on the head.
cdef struct Request:
    const uint8_t* target   # without the query
    size_t target_size
    const uint8_t* key      # 24 bytes

cdef enum:
    INCOMPLETE = 0
    NOT_CLEAN = -1

cdef int parse_upgrade(const uint8_t* p, size_t n, size_t searched, Request* out) noexcept nogil
cdef Py_ssize_t head_end(const uint8_t* p, size_t n, size_t searched) noexcept nogil
cdef bint may_begin(uint8_t first) noexcept nogil
cdef bint lists(const uint8_t* p, size_t n, const char* token, size_t size, bint cased) noexcept nogil
