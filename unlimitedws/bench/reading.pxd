"""What comes from the server: frames, and what they mean here."""

from libc.stdint cimport uint8_t

from unlimitedws.bench.peers cimport Peer
from unlimitedws.bench.publishing cimport Publishing

cdef class Reading(Publishing):
    cdef bint frames(self, Peer* peer, uint8_t* at, uint8_t* end) noexcept nogil
    cdef size_t take_head(self, Peer* peer, uint8_t* at, uint8_t* end) noexcept nogil
    cdef bint may_follow(self, Peer* peer, int opcode) noexcept nogil
    cdef uint8_t* take_control(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil
    cdef bint control_frame(self, Peer* peer, uint8_t* payload) noexcept nogil
    cdef bint take_piece(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil
    cdef bint message(self, Peer* peer) noexcept nogil
