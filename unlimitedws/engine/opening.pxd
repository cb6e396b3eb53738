"""How a connection begins: what stands before the request, the request, and what comes of it."""

from libc.stdint cimport uint8_t, uint32_t

from unlimitedws.engine.ending cimport Ending
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport Entry


cdef class Opening(Ending):
    cdef list connect_hooks
    cdef list endpoints                 # of which `guarded` says whether Front.admit is asked, and may change
    cdef uint8_t* buffer                # what was read; shared by all connections
    cdef size_t receive_bytes, head_bytes
    cdef uint32_t ping_ms

    cdef int read_preface(self, int fd, Entry* e, size_t size) except -1
    cdef int read_head(self, int fd, Entry* e, size_t size, size_t searched) except -1
    cdef Pipe pipe(self, int fd, Entry* e)
    cdef int answer(self, int fd, Entry* e, Pipe pipe, object verdict, size_t head, size_t size, bytes target) except -1
    cdef int refuse(self, int fd, Entry* e, bytes response, object cause) except -1
    cdef int upgrade(self, int fd, Entry* e, object verdict, uint8_t* rest, uint8_t* end, bytes target) except -1
    cdef bint move(self, int fd, Entry* e, object address) except -1
    cdef int open(self, int fd, Entry* e, uint32_t route, object verdict, uint8_t* rest, uint8_t* end) except -1
    cdef int begin_stream(self, int fd, Entry* e, Pipe pipe, object stream, uint8_t* rest, uint8_t* end) except -1
    cdef int feed(self, int fd, Entry* e, bytes data) except -1
    cdef int feed_kept(self, int fd, Entry* e) except -1
    cdef int stream_half_closed(self, int fd, Entry* e) except -1
    cdef int stream_raised(self, int fd, Entry* e, object error) except -1
    cdef bytes take_input(self, Entry* e, bytes before)
    cdef int go_on(self, int fd, Entry* e, bytes data) except -1
    cdef int leave_turn(self, bint running) except -1

    cdef ssize_t open_tls(self, int fd, Entry* e, size_t kept, size_t n) except -2
    cdef ssize_t tls_failed(self, int fd, Entry* e, object tls) except -2

    # What Clock, Handling and Reading give.
    cdef int take(self, int fd, Entry* e, size_t kept, size_t n) except -1
    cdef int take_secure(self, int fd, Entry* e, size_t kept, size_t n) except -1
    cdef int start_meter(self, int fd, Py_ssize_t received, Py_ssize_t response) except -1
    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1
    cdef bint is_stalled(self, Entry* e) except -1
    cdef int wait_for_room(self, int fd, Entry* e) except -1
