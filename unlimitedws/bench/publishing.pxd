"""A broadcast: one connection publishes, the others receive."""

from libc.stdint cimport int64_t, uint64_t

from unlimitedws.bench.dialling cimport Dialling
from unlimitedws.bench.peers cimport Peer

cdef enum:
    STAMP = 30                      # "~bench", 16 digits of its time, 8 of its number

cdef class Publishing(Dialling):
    cdef bint broadcasts, publishing
    cdef int window, subscribers
    cdef int64_t publish_start, publish_end
    cdef double publish_gap
    cdef uint64_t publish_number
    cdef size_t marker_hint         # where the last marker stood

    cdef void publish_some(self) noexcept nogil
    cdef void send_publication(self, int64_t when, uint64_t number) noexcept nogil
    cdef void publication(self, Peer* peer) noexcept nogil
