"""The clock hand: deadlines, heartbeats, rates, memory given back."""

from libc.stdint cimport uint32_t

from unlimitedws.engine.opening cimport Opening
from unlimitedws.engine.table cimport Entry, Meter


cdef class Clock(Opening):
    cdef uint32_t handshake_ms, pong_ms, close_ms, idle_ms, stuck_ms
    cdef uint32_t last_tick, grace_until, paused_ms
    cdef bint in_grace, accept_paused
    cdef int hand
    cdef long peak
    cdef bint rated, cuts_rates
    cdef double messages_per_s, bytes_per_s, most_messages, most_bytes

    cdef int take_rates(self, config) except -1
    cdef int judge(self, int fd, Entry* e) except -1
    cdef uint32_t still_ms(self, int fd, Entry* e) except? 0xFFFFFFFF
    cdef bint has_lingered(self, int fd, Entry* e, uint32_t since) except -1
    cdef int heartbeat(self, int fd, Entry* e, uint32_t silent) except -1
    cdef uint32_t early_ms(self, Entry* e) noexcept
    cdef int give_back(self) except -1
    cdef bint charge(self, int fd, Entry* e, double messages, double bytes) except -1
    cdef void refill(self, Meter* meter) noexcept
    cdef int flood_ebbs(self, int fd, Entry* e) except -1
    cdef int let_go_on(self, int fd, Entry* e) except -1
