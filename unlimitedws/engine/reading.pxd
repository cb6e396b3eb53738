"""From readiness to bytes, and whose they are; ends of streams."""

from libc.stdint cimport uint32_t, uint64_t

from unlimitedws.engine.handling cimport Handling
from unlimitedws.engine.table cimport Entry


cdef class Reading(Handling):
    cdef int handle(self, uint64_t data, uint32_t events) except -1
    cdef int readable(self, int fd, Entry* e) except -1
    cdef int resume(self, int fd, Entry* e) except -1
    cdef int look_again(self, int fd, Entry* e) except -1
    cdef int meter_input(self, int fd, Entry* e, size_t n) except -1
    cdef int readable_while_paused(self, int fd, Entry* e, uint32_t events) except -1
    cdef bint has_said_all(self, Entry* e) noexcept
    cdef int gone(self, int fd, Entry* e) except -1
    cdef int peer_left(self, int fd, Entry* e, int failed) except -1
    cdef int stream_ended(self, int fd, Entry* e, int failed) except -1
