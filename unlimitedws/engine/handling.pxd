"""What has been read: messages to their handlers."""

cimport cython
from libc.stdint cimport uint8_t

from unlimitedws.engine.accepting cimport Accepting
from unlimitedws.engine.codec cimport Event, Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.table cimport Entry


cdef class Handling(Accepting):
    cdef list message_hooks
    cdef Reader reader                  # of the connection at work, while it has none of its own
    cdef list waiting                   # for each endpoint: (fd, id) of its stalled connections, in line
    cdef list stalled
    cdef int stalls                     # endpoints stalled now

    cdef bint take_message(self, int fd, Entry* e, Reader* reader, int kind, Event* event) except -1
    cdef int deliver(self, int fd, Entry* e, object payload) except -1
    cdef int hook_raised(self, Connection connection, str name) except -1
    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept

    # On the way of every message: final, so that they are called and not looked up.
    @cython.final
    cdef int consume_short(self, int fd, Entry* e, Reader* reader, uint8_t** at, uint8_t* end, int most) except -1
    @cython.final
    cdef bint must_wait(self, int fd, Entry* e, int handled) except -1
