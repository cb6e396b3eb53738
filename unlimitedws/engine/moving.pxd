"""Live connections that leave for another engine, and those that come from one."""

from unlimitedws.engine.clock cimport Clock
from unlimitedws.engine.table cimport Entry


cdef class Moving(Clock):
    cdef int departing_hand

    cdef bint may_depart(self, int fd, Entry* e)
    cdef object moved(self, int fd, Entry* e)
    cdef bytes unread(self, Entry* e)
    cdef bytes unsent(self, int fd, Entry* e)
    cdef int go(self, int fd, Entry* e) except -1
    cdef int settle_in(self, int fd, Entry* e, object moved) except -1
