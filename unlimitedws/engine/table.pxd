"""Connections as rows of a flat table, and what a row borrows while something is unfinished.

The border of the floor below the engine: `Table` owns rows, descriptors and their memory; the classes that stand on it (native.pyx lists
them) send, accept, read and close."""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from unlimitedws.engine cimport codec
from unlimitedws.engine.codec cimport Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.output cimport Output
from unlimitedws.engine.routes cimport RouteTable


cdef enum Phase:
    FREE = 0
    HANDSHAKE = 1       # the request is not complete
    OPEN = 2
    CLOSING = 3         # our Close is out, theirs is awaited; messages are thrown away
    LINGER = 4          # nothing more to say: output leaves, input is thrown away until they end
    STREAM = 5          # no WebSocket (yet): belongs to a Stream of the floor above
    DEPARTING = 6       # on its way to another engine: nothing happens to it

cdef enum:              # Entry.flags
    PINNED = 1          # the table owns a reference to the Connection (its state is set)
    HELD = 2            # a coroutine or thread is at work on it: no handler, no reading
    STALLED = 4         # waits for its endpoint's thread queue
    OVER = 8            # its output went over high water: no reading
    READY = 16          # in the ready list
    DIRTY = 32          # in the dirty list: output waits for the end of the turn
    RANGED = 64         # has a range of the broadcast log to be sent
    PINGED = 128        # a Ping is out and nothing has come since
    HALF_CLOSED = 256   # EPOLLRDHUP was seen while reads were paused
    BROKEN = 512        # a send failed: epoll will report it
    V6 = 1024
    FINAL = 2048        # in LINGER: end as soon as the output is gone
    SHUT = 4096         # in LINGER: our side of the stream is shut
    ANSWERED = 8192     # an HTTP request was answered
    PREFACE = 16384     # a proxy's preface stands before the request
    SECURE = 32768      # TLS
    THROTTLED = 65536   # sent more than its rate allows: no reading
    FLOODING = 131072   # sent too many Pings and Pongs: no reading until the clock hand comes by
    DEFLATE = 262144    # permessage-deflate was agreed
    UNIX = 524288       # no IP address
    RESUMED = 1048576   # it came from another engine
    CONTROL = 2097152   # one of the Pings and Pongs since the clock hand came by; they are counted in the bits from here on
    CONTROLS = 0x7FE00000
    PONG_DUE = 0x80000000   # a Ping is out and no Pong has come

cdef enum:
    CORK_BYTES = 64 * 1024

cdef enum:
    CONTROLS_PER_S = 1000                       # contract.CONTROLS_PER_S; 1,023 can be counted
    PING_SPREAD = 8                             # contract.PING_SPREAD
    WAITING = HELD | STALLED | OVER | READY | THROTTLED     # nothing of it is handled,
    PAUSED = WAITING | FLOODING                             # or nothing more is read

# One connection at rest: 48 bytes.
cdef struct Entry:
    uint64_t id             # 0: free
    PyObject* connection    # borrowed; owned when PINNED
    Unfinished* more        # NULL: nothing unfinished
    uint32_t seen_ms        # last sign of life
    uint32_t active_ms      # last message; since when it is in this phase
    uint32_t ipv4           # network order; IPv6 is in a table of its own
    uint32_t route
    uint32_t flags
    uint16_t port
    uint8_t phase
    uint8_t interest        # what epoll was asked for: 1 in, 2 half-close, 4 out

# What exists only while something is unfinished.
cdef struct Unfinished:
    Unfinished* next        # in the pool
    Reader reader
    Output output
    uint8_t* input          # bytes not looked at yet: half a head, or what came while held
    size_t input_room
    size_t input_start
    size_t input_size
    uint64_t pong_end       # place in the output where the last Pong ends
    PyObject* close         # in CLOSING: the Close that on_close will get, but for `clean`
    PyObject* pipe          # in STREAM
    uint32_t moved_ms       # when waiting output last made progress, or began to wait
    int left                # bytes the peer had not acknowledged when that was looked at
    uint32_t thrown_away
    uint8_t pong_size
    bint pong_waits
    uint8_t pong[125]

# Of each connection, where a setting asks for it: beside the table, like the addresses of IPv6.
cdef struct Meter:
    int64_t bytes_in
    int64_t bytes_out
    double messages         # tokens left (messages_per_s, bytes_per_s)
    double bytes
    uint32_t opened_ms
    uint32_t refilled_ms

cdef enum:                  # columns of the stats row: counters.ENGINE
    C_OPEN = 0
    C_PENDING
    C_ACCEPTED
    C_OPENED
    C_REFUSED
    C_FAILURES
    C_HTTP
    C_MESSAGES_IN
    C_MESSAGES_OUT
    C_BYTES_IN
    C_BYTES_OUT
    C_DROPPED
    C_QUEUED
    C_ERRORS
    C_PAUSES
    C_BUFFERS
    C_CLOSES

cdef enum:
    HANDLING_BOUNDS = 17        # of counters.MESSAGE_HANDLING
    RING_CLOSES = 64            # counters.RING_CLOSES


cdef inline bint may_pause(Entry* e) noexcept:
    """Whether it is in a phase in which its reads may pause."""
    return e.phase == OPEN or e.phase == STREAM or e.phase == HANDSHAKE

cdef inline void count_control(Entry* e) noexcept:
    """Of a Ping or Pong. Too many of them: what was read is still handled, so that nothing of a flood is kept in memory."""
    if e.flags & CONTROLS < CONTROLS_PER_S * CONTROL:
        e.flags += CONTROL
    else:
        e.flags |= FLOODING

cdef void* reserve(size_t size) except NULL
cdef int release_above(void* table, size_t row, int highest, int last) except -1


cdef class Table:
    cdef object front, call_soon, call_soon_threadsafe
    cdef object row_view                # keeps `row`; were it typed, Cython would put 80 KB of code for it into every module
    cdef int64_t* row                   # this worker's row of the stats table
    cdef int64_t* handling              # counters.MESSAGE_HANDLING in it
    cdef int64_t* ring                  # the last closes in it (closes.py)
    cdef unsigned long thread

    cdef Entry* table
    cdef uint64_t table_room
    cdef int highest                    # no descriptor above it is in use
    cdef long entries
    cdef uint8_t* v6                    # addresses of IPv6 peers; NULL until one comes
    cdef Meter* meters                  # NULL where no setting asks for them
    cdef object gate
    cdef dict secured                   # descriptor -> Tls, of SECURE connections
    cdef dict names                     # descriptor -> name of a Unix peer that has one
    cdef RouteTable routes
    cdef Unfinished* pool
    cdef int pooled

    cdef int epoll
    cdef uint32_t now
    cdef int cork_fd                    # the connection at work; -1: none
    cdef uint8_t* cork                  # its answers
    cdef size_t cork_size

    cdef bint running, scheduled
    cdef object deferred                # on_close and on_drain calls that wait for the end of a turn
    cdef object ready                   # (fd, id) to go on with in the next batch
    cdef readonly dict departing        # descriptor -> the phase it is to come back to
    cdef dict said                      # descriptor -> what was said to it since (said.py)
    cdef size_t dirty_count             # connections to flush
    cdef bint unstalled                 # somebody who waited for a thread may go on

    # What a Connection asks for, and the classes above give.
    cdef inline bint put_short(self, int fd, Entry* e, int opcode, const uint8_t* data, size_t size) noexcept:
        """`put` for the usual answer, a short message to the connection at work; False: not done, ask it."""
        cdef uint8_t* to = self.cork + self.cork_size
        if fd != self.cork_fd or size > codec.MAX_CONTROL or e.flags & (BROKEN | DEFLATE | RANGED) or (
            self.cork_size + 2 + size > CORK_BYTES or e.more != NULL and e.more.output.bytes
        ):
            return False
        to[0] = <uint8_t>(0x80 | opcode)
        to[1] = <uint8_t>size
        memcpy(to + 2, data, size)
        self.cork_size += 2 + size
        self.row[C_MESSAGES_OUT] += 1
        return True

    cdef int put(self, int fd, Entry* e, int opcode, const uint8_t* data, size_t size, object owner, bint control) except -1
    cdef size_t queued(self, int fd, Entry* e) noexcept
    cdef object post_send(self, Connection connection, object message, object text)
    cdef int close_politely(self, int fd, Entry* e, bytes payload, int code, str reason, object cause) except -1
    cdef int lose(self, int fd, Entry* e, object cause) except -1
    cdef int descriptor_freed(self) except -1

    # What a Pipe asks for, and Opening gives.
    cdef object tls_of(self, int fd, Entry* e)
    cdef bint pipe_write(self, int fd, Entry* e, bytes data) except -1
    cdef int pipe_pause(self, int fd, Entry* e) except -1
    cdef int pipe_resume(self, int fd, Entry* e) except -1
    cdef int pipe_answer(self, int fd, Entry* e, object verdict, bytes data) except -1
    cdef int pipe_restart(self, int fd, Entry* e, bytes data) except -1
    cdef int pipe_close(self, int fd, Entry* e) except -1
    cdef int pipe_abort(self, int fd, Entry* e) except -1

    cdef bint is_open(self, int fd, Entry* e) except -1
    cdef bint say_later(self, int fd, Entry* e, tuple said) except -1

    cdef int wake(self) except -1
    cdef int make_ready(self, int fd, Entry* e) except -1
    cdef int ask(self, int fd, Entry* e, uint8_t wanted) except -1
    cdef int read_on(self, int fd, Entry* e) except -1
    cdef int read_off(self, int fd, Entry* e) except -1
    cdef int keep_input(self, Entry* e, uint8_t* at, uint8_t* end) except -1
    cdef void drop_input(self, Unfinished* more) noexcept
    cdef Unfinished* unfinished(self, Entry* e) except NULL
    cdef int tidy(self, int fd, Entry* e) except -1
    cdef int return_unfinished(self, Entry* e) except -1
    cdef void trim_pool(self) noexcept
    cdef Connection connection(self, int fd, Entry* e)
    cdef uint32_t endpoint(self, Entry* e) noexcept
    cdef tuple facts(self, int fd, Entry* e)
    cdef object address(self, int fd, Entry* e)
    cdef inline void sent(self, int fd, size_t n) noexcept:
        self.row[C_BYTES_OUT] += n
        if self.meters != NULL and not self.table[fd].flags & SECURE:
            self.meters[fd].bytes_out += n
    cdef int set_address(self, int fd, Entry* e, object address) except -1
    cdef int end(self, int fd, Entry* e) except -1
    cdef int free_row(self, int fd, Entry* e) except -1
