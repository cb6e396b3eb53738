"""The engine: turns of the loop, and what the floor above asks for."""

from libc.stdint cimport int64_t

from unlimitedws.engine.kernel cimport epoll_event
from unlimitedws.engine.reading cimport Reading
from unlimitedws.engine.table cimport HANDLING_BOUNDS

cdef enum:
    EVENTS = 512                    # contract.EVENTS_PER_BATCH


cdef class Engine(Reading):
    cdef epoll_event events[EVENTS]
    cdef int drain_hand
    cdef int64_t handling_bounds[HANDLING_BOUNDS]

    cdef void note_handling(self, int64_t began_ns, int64_t handled) noexcept
    cdef int run_ready(self) except -1
    cdef int run_lines(self) except -1
