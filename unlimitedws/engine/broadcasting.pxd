"""One message to many, packed once."""

from libc.stdint cimport uint32_t

from unlimitedws.engine.output cimport Block
from unlimitedws.engine.sender cimport Sender
from unlimitedws.engine.table cimport Entry


cdef class Broadcasting(Sender):
    cdef Block* log                     # frames broadcast in this turn, one behind the other
    cdef list deflating                 # during a broadcast: descriptors that get it compressed; else None

    cdef long broadcast_deflated(self, int opcode, bytes payload, list descriptors) except -1
    cdef long broadcast_to(self, int fd, int opcode, bytes payload) except -1
    cdef int publish_to(self, object connection, uint32_t start, uint32_t size, tuple said) except -1
    cdef int log_frame(self, int opcode, bytes payload, uint32_t* start, uint32_t* size) except -1
    cdef int new_log(self) except -1
    cdef bint publish(self, int fd, Entry* e, uint32_t start, uint32_t size) except -1
    cdef int share_log(self, Entry* e, size_t start, size_t size) except -1
