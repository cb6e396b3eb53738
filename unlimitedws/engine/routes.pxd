"""What connections of one kind have in common, kept once for all of them."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t

cdef struct Route:
    PyObject* path
    PyObject* subprotocol
    PyObject* deflate       # Terms; None without permessage-deflate
    PyObject* target        # as requested, where the fast path may find it; else NULL
    uint32_t endpoint
    uint32_t users

cdef class RouteTable:
    cdef Route* routes
    cdef uint32_t room
    cdef uint32_t used
    cdef list free_numbers
    cdef dict numbers       # (path, endpoint, subprotocol, deflate) -> number
    cdef dict targets       # request target -> number

    cdef long find(self, bytes target)
    cdef uint32_t add(self, str path, uint32_t endpoint, object subprotocol, object deflate, bytes target) except? 0xFFFFFFFF
    cdef int release(self, uint32_t number) except -1
    cdef uint32_t enlarge(self) except? 0xFFFFFFFF
    cdef int drop(self, Route* route) except -1
