# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The board: one row for each load process. `board.pxd` says what is on it."""

from cpython.buffer cimport PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER, PyMemoryView_GetContiguous
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

ROW_BYTES = (sizeof(Sheet) + ROW_ALIGN - 1) // ROW_ALIGN * ROW_ALIGN
LONGEST_LATENCY_NS = LONGEST_NS

cdef size_t ROW_SIZE = ROW_BYTES
cdef tuple CALL_NAMES = ("socket", "bind", "connect", "send", "recv")


cdef class Row:
    def __cinit__(self, board, int number):
        cdef uint8_t* start
        self.board = PyMemoryView_GetContiguous(board, PyBUF_WRITE, b"C")
        start = <uint8_t*>PyMemoryView_GET_BUFFER(self.board).buf
        self.rows = <int>(<size_t>self.board.nbytes // ROW_SIZE)
        if not 0 <= number < self.rows:
            raise IndexError(f"row {number} of a board with {self.rows}")
        self.number = number
        self.first = <Sheet*>start
        self.sheet = <Sheet*>(start + number * ROW_SIZE)

    @property
    def counters(self):
        return self.sheet.counters

    @property
    def closes(self):
        return found(self.sheet.closes, CODES)

    @property
    def statuses(self):
        return found(self.sheet.statuses, STATUSES)

    @property
    def errnos(self):
        return {name: numbers for i, name in enumerate(CALL_NAMES) if (numbers := found(self.sheet.errnos[i], ERRNOS))}

    def histogram(self, str name):
        cdef Histogram* of = self.named(name)
        cdef size_t i
        counts = []
        for i in range(BUCKETS):
            if of.counts[i]:
                counts.append((value_of(i), of.counts[i]))
        return of.least, of.most, counts

    def forget(self, str name):
        memset(self.named(name), 0, sizeof(Histogram))

    cdef Histogram* named(self, str name) except NULL:
        if name == "connect":
            return &self.sheet.connect
        if name == "latency":
            return &self.sheet.latency
        if name == "late":
            return &self.sheet.late
        if name == "kept":
            return &self.sheet.kept
        raise KeyError(name)

    cdef uint64_t delivered_by_all(self) noexcept nogil:
        cdef uint64_t total = 0
        cdef int i
        cdef Counters* counters
        for i in range(self.rows):
            counters = &(<Sheet*>(<unsigned char*>self.first + i * ROW_SIZE)).counters
            total += counters.delivered + counters.missing
        return total


def bucket(uint64_t ns):
    return bucket_of(min(max(ns, 1), <uint64_t>LONGEST_NS))


cdef dict found(const uint64_t* numbers, int size):
    """Index to number, of those that are not 0."""
    cdef int i
    result = {}
    for i in range(size):
        if numbers[i]:
            result[i] = numbers[i]
    return result


cdef uint64_t value_of(size_t bucket) noexcept:
    """The least value that falls into a bucket."""
    cdef int magnitude = <int>(bucket >> HALF_BITS) - 1
    if magnitude < 0:
        return bucket
    return <uint64_t>((bucket & ((1 << HALF_BITS) - 1)) + (1 << HALF_BITS)) << magnitude
