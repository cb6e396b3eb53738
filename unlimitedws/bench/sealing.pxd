"""TLS, for wss:// servers."""

from libc.stdint cimport uint8_t

from unlimitedws.bench.peers cimport Peer, Peers

cdef class Sealing(Peers):
    cdef bint is_secure
    cdef object make_tls            # gives a new connection its Tls
    cdef list sealed                # the Tls of each peer that has one

    cdef bint greet(self, Peer* peer) noexcept nogil
    cdef bint take(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil
    cdef bint begin_tls(self, Peer* peer) noexcept nogil
    cdef bint open_tls(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil
    cdef bint part(self, Peer* peer, object tls) noexcept
    cdef bint say(self, Peer* peer, bytes sealed) noexcept
    cdef void forget_tls(self, Peer* peer) noexcept nogil
