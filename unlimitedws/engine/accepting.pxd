"""Taking new connections."""

from libc.stdint cimport uint32_t, uint64_t

from unlimitedws.engine.kernel cimport sockaddr_storage, socklen_t
from unlimitedws.engine.moving cimport Moving
from unlimitedws.engine.table cimport Entry


cdef inline bint is_listener(uint64_t data) noexcept:
    """Whether epoll's data are a listener's: its descriptor and the highest bit."""
    return data >> 63


cdef class Accepting(Moving):
    cdef uint64_t next_id
    cdef dict listeners                 # descriptor -> (flags of its connections, TLS context or None)
    cdef bint accepting
    cdef uint32_t reported_ms
    cdef long most_connections

    cdef int watch_listener(self, int fd) except -1
    cdef int accept_batch(self, int listener) except -1
    cdef int admit(self, int fd, sockaddr_storage* address, socklen_t size, uint32_t flags, object tls) except -1
    cdef int turn_away(self, int fd, Entry* e) except -1
    cdef int pause_accepting(self, int why) except -1
    cdef int resume_accepting(self) except -1
