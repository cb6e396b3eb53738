"""Slow readers and half-open connections."""

from libc.stdint cimport int64_t, uint8_t

from unlimitedws.bench.asking cimport Asking
from unlimitedws.bench.peers cimport Peer

cdef class Holding(Asking):
    cdef size_t slow_bytes
    cdef int64_t slow_ns, slow_next
    cdef size_t stuff_bytes         # the most that one of them sends

    cdef bint says_half(self, Peer* peer) noexcept nogil
    cdef void hold(self, Peer* peer) noexcept nogil
    cdef bint stuff(self, Peer* peer) noexcept nogil
    cdef void read_slowly(self) noexcept nogil
    cdef void receive_slowly(self, Peer* peer) noexcept nogil
    cdef void refused(self, const uint8_t* p, size_t n) noexcept nogil
