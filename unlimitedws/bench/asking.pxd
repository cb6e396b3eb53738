"""Messages and the answers to them: the closed and the open loop."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from unlimitedws.bench.peers cimport Peer
from unlimitedws.bench.sealing cimport Sealing

cdef enum:
    WINDOWS = 4096                  # places in the pattern where a message may begin

cdef class Asking(Sealing):
    cdef const uint8_t* pattern
    cdef size_t message_size
    cdef int opcode                 # TEXT, BINARY, or PING
    cdef int64_t* times             # when each message in flight was sent: `pipeline` for each peer
    cdef int pipeline
    cdef bint flooding              # the closed loop
    cdef bint pacing                # the open loop goes on
    cdef bint paced                 # ... it was the last one
    cdef bint given_up
    cdef int pace_first, pace_size
    cdef int64_t pace_start
    cdef double pace_gap
    cdef uint64_t pace_number, pace_end
    cdef int pace_at, stride        # whose turn is next, and how far on the one after it is
    cdef int* queue                 # of those that have messages to send in the open loop: a ring, each in it once at most
    cdef int queue_at, queue_size
    cdef int64_t usual_ns           # how long answers take at present, smoothed
    cdef int64_t measure_from, measure_to

    cdef const uint8_t* payload(self, Peer* peer, uint32_t number) noexcept nogil
    cdef bint refill(self, Peer* peer) noexcept nogil
    cdef bint send_due(self, Peer* peer) noexcept nogil
    cdef void pace_some(self) noexcept nogil
    cdef int64_t next_due_at(self) noexcept nogil
    cdef void next_due(self) noexcept nogil
    cdef void send_late(self, Peer* peer) noexcept nogil
    cdef void fall_due(self) noexcept nogil
    cdef int64_t due_at(self, Peer* peer, uint32_t number) noexcept nogil
    cdef void abandon(self, Peer* peer) noexcept nogil
    cdef void check(self, Peer* peer, bint fits, int opcode) noexcept nogil
    cdef void take_latency(self, int64_t since) noexcept nogil
