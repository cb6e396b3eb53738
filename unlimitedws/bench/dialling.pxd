"""How connections begin and end."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from unlimitedws.bench.holding cimport Holding
from unlimitedws.bench.peers cimport Peer
from unlimitedws.engine.kernel cimport sockaddr_storage, socklen_t

cdef enum:
    SCAN_MS = 100                   # how often what takes too long is looked for

cdef struct Address:
    sockaddr_storage at
    socklen_t size

cdef class Dialling(Holding):
    # what is said
    cdef list keep                  # the Python objects that the pointers below point into
    cdef const uint8_t** request
    cdef size_t* request_size
    cdef const uint8_t** accept
    cdef int request_count
    cdef const uint8_t* offered
    cdef size_t offered_size
    cdef const uint8_t* subscription
    cdef size_t subscription_size
    cdef bint publishes             # the last peer is a publisher
    # to whom and from where
    cdef Address* targets
    cdef Address* sources
    cdef int target_count, source_count
    cdef bint local                 # over loopback
    # when
    cdef int dial_first, dial_end, cursor, waiting, inflight
    cdef int64_t dial_start
    cdef double dial_gap
    cdef uint64_t dial_number
    cdef bint again                 # those that end are dialled again
    cdef bint cycling               # ... and end themselves as soon as they are open
    cdef bint abrupt                # ... by a reset
    cdef int64_t timeout_ns, scan_ns
    cdef int64_t absent_since       # when all were lost at once

    cdef void dial_some(self) noexcept nogil
    cdef Peer* next_new(self) noexcept nogil
    cdef void open(self, Peer* peer, int64_t since) noexcept nogil
    cdef bint ask_to_upgrade(self, Peer* peer) noexcept nogil
    cdef void connected(self, Peer* peer) noexcept nogil
    cdef uint8_t* upgrade(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil
    cdef void opened(self, Peer* peer) noexcept nogil
    cdef void take_cycle(self, Peer* peer) noexcept nogil
    cdef void failed(self, Peer* peer) noexcept nogil
    cdef void release(self, Peer* peer, bint reset) noexcept nogil
    cdef int64_t backoff(self, Peer* peer) noexcept nogil
    cdef void say_close(self, Peer* peer) noexcept nogil
    cdef void scan(self) noexcept nogil
    cdef void violation(self, Peer* peer) noexcept nogil
