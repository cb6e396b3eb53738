"""How connections end."""

from unlimitedws.engine.broadcasting cimport Broadcasting
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport Entry


cdef class Ending(Broadcasting):
    cdef list close_hooks
    cdef set ending                     # connections whose on_close waits for a release
    cdef object interrupt
    cdef bint logs_access

    cdef int count_close(self, object cause) except -1
    cdef int note_close(self, Entry* e, int code, object cause) except -1
    cdef int run_deferred(self) except -1
    cdef int tell(self, str name, object call, Pipe pipe) except -1
    cdef int settle(self) except -1
    cdef int peer_closed(self, int fd, Entry* e, int code, str reason, bint last) except -1
    cdef int detach_closing(self, int fd, Entry* e, bint clean) except -1
    cdef int fail_connection(self, int fd, Entry* e, int code, object cause) except -1
    cdef int handler_error(self, Connection connection, str hook, object error) except -1
    cdef int stream_error(self, object error) except -1
    cdef int note_interrupt(self, object error) except -1
    cdef int settle_lingering(self, int fd) except -1
    cdef int linger(self, int fd, Entry* e) except -1
    cdef int detach(self, int fd, Entry* e, int code, str reason, object cause, bint clean) except -1
    cdef int offer(self, int fd, Entry* e) except -1
    cdef int log_access(self, int fd, Connection connection, object close) except -1
    cdef int handshake_over(self, object cause) except -1
    cdef int handshake_lost(self, Entry* e, object cause) except -1
    cdef int answered_over(self, int fd, Entry* e) except -1
    cdef int part(self, Entry* e) except -1
