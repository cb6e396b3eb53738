# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Pages of memory that hold nothing, given back to the system."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uintptr_t
from libc.string cimport memcmp

from unlimitedws.engine.kernel cimport MADV_DONTNEED, madvise, uws_give_back

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        Py_ssize_t tp_basicsize
    PyTypeObject* Py_TYPE(object)

cdef enum:
    PAGE = 4096

cdef uint8_t[PAGE] ZEROS


def give_back_free():
    """What the allocator of C holds free."""
    uws_give_back()


def give_back_zeros(owner):
    """Pages inside of the object itself that hold nothing but zeros; they read as zeros afterwards, and can be written.

    For large objects that were cleared when they were made, and of which most is never used. The object's own
    memory is meant, not what it refers to. How many bytes were given back."""
    cdef uint8_t* page = <uint8_t*>((<uintptr_t><PyObject*>owner + PAGE - 1) & ~<uintptr_t>(PAGE - 1))
    cdef uint8_t* end = <uint8_t*><PyObject*>owner + Py_TYPE(owner).tp_basicsize
    cdef Py_ssize_t given = 0
    while page + PAGE <= end:
        if memcmp(page, ZEROS, PAGE) == 0 and madvise(page, PAGE, MADV_DONTNEED) == 0:
            given += PAGE
        page += PAGE
    return given
