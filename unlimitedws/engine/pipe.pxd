"""A connection that is no WebSocket (yet), as its Stream uses it."""

from libc.stdint cimport uint64_t

from unlimitedws.engine.table cimport Entry, Table


cdef class Pipe:
    cdef Table engine
    cdef Entry* entry           # NULL once it is over
    cdef int fd
    cdef uint64_t id
    cdef object stream
    cdef object address         # after the end
    cdef bint has_ended         # the stream was told that the peer ended its side

    cdef bint is_streaming(self) noexcept
