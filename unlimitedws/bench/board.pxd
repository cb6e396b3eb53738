"""What a load process counts, in memory that it shares with its parent: no message, no system call, no lock.

A row is written by one process and read by another while it changes. Each number is a whole word, so that none is read
half written; two numbers of one row may be of different moments."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from *:
    """
    #define uws_leading_zeros(value) __builtin_clzll(value)
    """
    int uws_leading_zeros(uint64_t value) nogil

cdef enum:
    # As hdrh.histogram.HdrHistogram(1, LONGEST_NS, 3) lays them out: 1,024 steps to each power of two.
    HALF_BITS = 10
    BUCKETS = 33792
    CODES = 5000            # close codes (RFC 6455, section 7.4)
    STATUSES = 600
    ERRNOS = 136
    ROW_ALIGN = 4096

cdef enum Call:             # whose errno it is
    SOCKET, BIND, CONNECT, SEND, RECEIVE, CALLS

cdef extern from *:
    """
    #define UWS_LONGEST_NS 3600000000000LL
    """
    int64_t LONGEST_NS "UWS_LONGEST_NS"

cdef struct Histogram:
    uint64_t least, most
    uint64_t counts[BUCKETS]

cdef struct Counters:
    # gauges
    uint64_t opening        # handshakes not finished
    uint64_t up
    uint64_t closing        # we have said Close
    uint64_t held           # slow or half-open ones that the server still holds
    # connections
    uint64_t dialled
    uint64_t opened
    uint64_t failed         # never opened
    uint64_t lost           # open, and ended by the server or an error
    uint64_t closed         # ended by our Close, answered
    uint64_t cut            # slow or half-open, and ended by the server
    uint64_t eof            # ended without a Close frame
    uint64_t timeouts       # a handshake or an answer to Close that took too long
    uint64_t hung_up        # ended by the server before it answered the handshake
    uint64_t not_websocket  # answered, but by no (right) upgrade
    uint64_t tls_errors
    uint64_t first_ns       # CLOCK_MONOTONIC: the first attempt, the last success
    uint64_t last_ns
    # messages
    uint64_t due            # to be answered: sent, or that should have been
    uint64_t asked
    uint64_t answered
    uint64_t measured       # answered in the time that is measured
    uint64_t wrong_content
    uint64_t wrong_length
    uint64_t wrong_opcode
    uint64_t unanswered
    uint64_t unasked        # came twice, or for nothing
    uint64_t other          # before anything was asked: a greeting
    uint64_t pings
    uint64_t protocol_errors
    # broadcast
    uint64_t published
    uint64_t reached        # subscribers whom a publication has reached
    uint64_t delivered
    uint64_t missing
    uint64_t doubled
    # bytes
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t orders         # carried out

cdef struct Sheet:
    Counters counters
    uint64_t closes[CODES]
    uint64_t statuses[STATUSES]
    uint64_t errnos[CALLS][ERRNOS]
    Histogram connect       # from when it was due to the end of the handshake
    Histogram latency
    Histogram late          # open loop: from when a message was due to its sending
    Histogram kept          # how long slow and half-open ones were held


cdef inline size_t bucket_of(uint64_t value) noexcept nogil:
    cdef int magnitude = 63 - HALF_BITS - uws_leading_zeros(value | ((2 << HALF_BITS) - 1))
    return (<size_t>(magnitude + 1) << HALF_BITS) + <size_t>(value >> magnitude) - (1 << HALF_BITS)


cdef inline void record(Histogram* histogram, int64_t ns) noexcept nogil:
    ns = min(max(ns, 1), LONGEST_NS)
    histogram.counts[bucket_of(<uint64_t>ns)] += 1
    if <uint64_t>ns > histogram.most:
        histogram.most = <uint64_t>ns
    if histogram.least == 0 or <uint64_t>ns < histogram.least:
        histogram.least = <uint64_t>ns


cdef class Row:
    cdef Sheet* sheet
    cdef Sheet* first               # of the board
    cdef readonly int number
    cdef readonly int rows
    cdef object board               # keeps the memory; untyped as `Table.row_view` is

    cdef Histogram* named(self, str name) except NULL
    cdef uint64_t delivered_by_all(self) noexcept nogil
