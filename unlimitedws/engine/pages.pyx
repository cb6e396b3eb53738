# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Pages of memory that hold nothing are given back to the system; pages that are shared are spared.

After a fork each page that one process writes to becomes its own copy."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from unlimitedws.engine.kernel cimport MADV_DONTNEED, madvise, uws_give_back

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        Py_ssize_t tp_basicsize
    PyTypeObject* Py_TYPE(object)
    void* PyObject_Malloc(size_t size)
    void PyObject_Free(void* block)

cdef enum:
    PAGE = 4096
    # CPython's Objects/obmalloc.c, the same from 3.10 to 3.14: blocks of one size lie in pools. Where that is not so, nothing
    # breaks: fewer gaps are found, or more memory than there are gaps is taken, up to the limit.
    POOL = 1 << 14
    POOL_HEADER = 48
    LARGEST_SMALL = 512
    # Below the size from which malloc(3) gives an allocation its own mapping.
    LARGEST_GAP = 64 << 10

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


def fill_gaps(Py_ssize_t most_bytes):
    """Takes what the allocators have free between what is in use, for good: whatever is allocated next lies side by side.

    Before a fork. The children would fill the gaps, each for itself, and write to a shared page for each of them.
    most_bytes: of small blocks, and again of large ones.  How many bytes were taken."""
    return fill_small(most_bytes) + fill_large(most_bytes)


cdef Py_ssize_t fill_small(Py_ssize_t most) except -1:
    """The gaps between objects."""
    cdef size_t size
    cdef Py_ssize_t filled = 0
    cdef uint8_t* block
    cdef uint8_t* next
    for size in range(16, LARGEST_SMALL + 1, 16):
        while filled < most:
            block = <uint8_t*>PyObject_Malloc(size)
            next = NULL
            if <uintptr_t>block & (POOL - 1) == POOL_HEADER:
                next = <uint8_t*>PyObject_Malloc(size)
                if next == block + size:  # a fresh pool: those in use are full
                    PyObject_Free(next)
                    PyObject_Free(block)
                    break
            filled += size * (1 if next == NULL else 2)
    return filled


cdef Py_ssize_t fill_large(Py_ssize_t most) except -1:
    """The gaps below the top of the heap of malloc(3), the largest first."""
    cdef size_t size = LARGEST_GAP
    cdef Py_ssize_t filled = 0
    cdef void* block = malloc(LARGEST_GAP + PAGE)
    cdef uintptr_t top = <uintptr_t>block
    free(block)
    while size >= 24:
        while filled < most:
            block = malloc(size)
            if block == NULL or <uintptr_t>block >= top:
                free(block)
                break
            filled += size
        size = size // 4 * 3 if size > PAGE else size - 16
    return filled
