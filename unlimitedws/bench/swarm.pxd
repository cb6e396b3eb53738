"""A load process's connections: one epoll loop over clients of a WebSocket server, compiled.

    Peers       their table, and how they send
    Sealing     TLS
    Asking      messages and the answers to them: the closed and the open loop
    Holding     slow readers and half-open ones
    Dialling    how they begin and end
    Publishing  a broadcast
    Reading     what comes from the server
    Swarm       the orders, and the loop"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from unlimitedws.bench.peers cimport Peer
from unlimitedws.bench.reading cimport Reading

cdef class Swarm(Reading):
    cdef int control
    cdef bint told                  # the control descriptor has something
    cdef int64_t looked_ns          # when the sockets were last looked at

    cdef int take_peers(self) except -1
    cdef int take_words(self, list requests, list accepts) except -1
    cdef int open_loop(self) except -1
    cdef void run(self, int64_t until) noexcept nogil
    cdef void gather(self) noexcept nogil
    cdef void work(self) noexcept nogil
    cdef void ready(self, Peer* peer, uint32_t events, uint8_t* buffer) noexcept nogil
    cdef void receive_all(self, Peer* peer, uint8_t* buffer, ssize_t enough) noexcept nogil
