# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The native engine: one epoll set, one flat table, one receive buffer (contract: `contract.py`).

Theory of this file. A connection is a row of a table indexed by its descriptor (`Entry`, 48 bytes,
memory mapped and touched only where used). What a peer needs while something is unfinished (half a
frame, output that the kernel did not take, a close under way) is `Unfinished`, borrowed and given
back. A `Connection` object exists only while Python holds one.

Three rules keep it right:

1. A row is freed by `end` alone, and `end` zeroes it. After anything that may run a handler, code
   here compares `entry.id` with the id it knew before it touches the row again.
2. Sending never ends a connection: a broken one is marked, and ended when epoll reports it. So a
   handler can send to anybody without a row vanishing under the caller.
3. Handlers other than on_connect and on_message are never called from inside a handler: they wait
   in `deferred` until the engine is back in its own loop.

Epoll is level-triggered, and an idle connection costs no system call: interest changes only when
reads pause or output waits."""

import binascii
import hashlib
import os
from collections import deque
from functools import partial

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.codec cimport Event, Reader, Request
from unlimitedws.engine.output cimport (
    Block, Output, block_new, block_of, block_release, blocks_held, output_copy, output_free, output_send,
    output_share, pool_trim,
)

from unlimitedws.engine.routes cimport Route, RouteTable

from unlimitedws.engine import counters
from unlimitedws.engine.contract import Refusal
from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.handshake import too_large


# ---- the kernel ------------------------------------------------------------------------------

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)
    enum: EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    enum: EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct iovec "iovec":
        void* iov_base
        size_t iov_len
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int accept4(int fd, sockaddr* address, socklen_t* size, int flags)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    int shutdown(int fd, int how)
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)
    enum: SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL, SHUT_WR, SHUT_RDWR, AF_INET, AF_INET6, SOL_SOCKET, SO_ERROR

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t value)

cdef extern from "arpa/inet.h" nogil:
    const char* inet_ntop(int family, const void* source, char* out, socklen_t size)

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    int madvise(void* address, size_t size, int advice)
    enum: PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED
    void* MAP_FAILED

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long request, ...)
    enum: FIONREAD

cdef extern from "sys/resource.h" nogil:
    cdef struct rlimit:
        unsigned long rlim_cur
        unsigned long rlim_max
    int getrlimit(int resource, rlimit* limit)
    enum: RLIMIT_NOFILE

cdef extern from "unistd.h" nogil:
    int os_close "close"(int fd)

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)
    enum: CLOCK_MONOTONIC

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    PyObject* PyObject_Vectorcall(object callable, PyObject** arguments, size_t count, PyObject* names)
    size_t PY_VECTORCALL_ARGUMENTS_OFFSET
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #if defined(__GLIBC__)
    #include <malloc.h>
    static void uws_give_back(void) { malloc_trim(0); }
    #else
    static void uws_give_back(void) {}
    #endif
    """
    void uws_give_back() nogil


# ---- layout ----------------------------------------------------------------------------------

cdef enum:
    EVENTS = 512                    # contract.EVENTS_PER_BATCH
    MAX_BATCHES = 8                 # batches in one turn of the loop, and
    MAX_TURN_MS = 5                 # time after which no further batch is begun
    ACCEPTS = 64                    # connections accepted for one readiness event
    FLUSHES = 2048                  # peers flushed in one turn: about 10 ms of system calls
    MESSAGES_PER_TURN = 256         # contract.MESSAGES_PER_TURN
    CORK_BYTES = 64 * 1024
    DIRECT_BYTES = 4096             # from here on a payload is sent from where it lies, not copied
    LOG_BYTES = 256 * 1024
    LINGER_MS = 2000                # contract.LINGER_S
    LINGER_BYTES = 1 << 20          # contract.LINGER_BYTES
    LAGGED_MS = 1000                # a clock tick so late means: the loop stood still, not the peers
    ACCEPT_RETRY_MS = 1000
    TICKS_PER_S = 8                 # contract.TICKS_PER_S
    REPORT_MS = 30000               # between two reports of the same shortage
    POOL_KEEPS = 64                 # free Unfinished kept

cdef uint64_t MAX_TABLE = 1 << 24   # descriptors; a limit may be 1e9, and address space is finite too
cdef uint64_t LISTENER = <uint64_t>1 << 63

cdef enum Phase:
    FREE = 0
    HANDSHAKE = 1       # the request is not complete
    OPEN = 2
    CLOSING = 3         # our Close is out, theirs is awaited; messages are thrown away
    LINGER = 4          # nothing more to say: output leaves, input is thrown away until they end

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

cdef enum:
    PAUSED = HELD | STALLED | OVER | READY

# One connection at rest: 48 bytes.
cdef struct Entry:
    uint64_t id             # 0: free
    PyObject* connection    # borrowed; owned when PINNED
    Unfinished* more        # NULL: nothing unfinished
    uint32_t seen_ms        # last sign of life
    uint32_t active_ms      # last message; since when it is in this phase
    uint32_t ipv4           # network order; IPv6 is in a table of its own
    uint32_t route
    uint16_t port
    uint16_t flags
    uint8_t phase
    uint8_t interest        # what epoll was asked for: 1 in, 2 half-close, 4 out
    uint16_t spare

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
    uint32_t thrown_away
    uint8_t pong_size
    bint pong_waits
    uint8_t pong[125]

# A stretch of the broadcast log that a connection has still to get.
cdef struct Range:
    uint32_t start
    uint32_t end

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

if counters.ENGINE_FIELDS[:C_CLOSES] != (
    "connections_open", "handshakes_pending", "connections_accepted", "connections_opened", "connections_refused",
    "handshake_failures", "http_requests", "messages_in", "messages_out", "bytes_in", "bytes_out", "messages_dropped",
    "queued_bytes", "handler_errors", "accept_pauses", "buffers_held",
):
    raise ImportError("the native engine was built for another layout of the stats table; reinstall unlimitedws")

cdef dict CAUSE_NUMBER = {cause: number for number, cause in enumerate(Cause)}
cdef dict VIOLATIONS = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}
cdef bytes GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
cdef bytes SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
cdef object sha1 = partial(hashlib.sha1, usedforsecurity=False)


cdef uint32_t clock_ms() noexcept nogil:
    """Milliseconds that wrap after 49 days: only differences mean anything."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint32_t>(<uint64_t>now.tv_sec * 1000 + <uint64_t>now.tv_nsec // 1000000)


cdef void* reserve(size_t size) except NULL:
    """Address space; memory comes page by page as it is touched."""
    cdef void* address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if address == MAP_FAILED:
        raise MemoryError(f"cannot reserve {size} bytes of address space for the connection table")
    return address


cdef uint64_t table_size() noexcept:
    cdef rlimit limit
    if getrlimit(RLIMIT_NOFILE, &limit) != 0:
        return 1024
    return min(<uint64_t>limit.rlim_max, MAX_TABLE)


# ---- a connection, as Python sees it -----------------------------------------------------------

# no_gc_clear: when the collector breaks a cycle it must not take `engine` from under `entry`.
@cython.final
@cython.freelist(64)
@cython.no_gc_clear
cdef class Connection:
    """See `unlimitedws.Connection`."""

    cdef Engine engine
    cdef Entry* entry           # NULL after the end
    cdef readonly uint64_t id
    cdef int fd
    cdef uint32_t holds
    cdef Py_ssize_t posted      # bytes on their way from other threads
    cdef object _state
    cdef tuple facts            # (path, subprotocol, remote address) after the end
    cdef tuple ending           # the on_close call that waits for the last hold
    cdef object __weakref__

    def __init__(self):
        raise TypeError("connections are made by the server")

    def __dealloc__(self):
        if self.entry != NULL:
            self.entry.connection = NULL

    def __repr__(self):
        return f"<Connection {self.id} {self.path!r} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self):
        return self.entry != NULL and self.entry.phase == OPEN

    @property
    def state(self):
        return self._state

    @state.setter
    def state(self, value):
        self._state = value
        if self.entry == NULL:
            return
        if value is not None and not self.entry.flags & PINNED:
            self.entry.flags |= PINNED
            Py_INCREF(self)
        elif value is None and self.entry.flags & PINNED:
            self.entry.flags &= ~PINNED
            Py_DECREF(self)

    @property
    def path(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[0]

    @property
    def subprotocol(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[1]

    @property
    def remote_address(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[2]

    @property
    def queued_bytes(self):
        if self.entry == NULL:
            return 0
        return self.engine.queued(self.fd, self.entry) + self.posted

    def send(self, message, *, text=None):
        cdef const uint8_t* data
        cdef Py_ssize_t size
        cdef Py_buffer view
        cdef int opcode
        if PyThread_get_thread_ident() != self.engine.thread:
            return self.engine.post_send(self, message, text)
        if self.entry == NULL or self.entry.phase != OPEN:
            return False
        if type(message) is bytes and text is None:
            return self.engine.put(
                self.fd, self.entry, codec.BINARY, <uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), message, False
            ) == 1
        if isinstance(message, str):
            data = <const uint8_t*>PyUnicode_AsUTF8AndSize(message, &size)
            opcode = codec.BINARY if text is False else codec.TEXT
            return self.engine.put(self.fd, self.entry, opcode, data, size, message, False) == 1
        check_message(message, text)
        opcode = codec.TEXT if text else codec.BINARY
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            # Only bytes stay as they are: what may change later is copied when it has to wait.
            owner = message if type(message) is bytes else None
            return self.engine.put(self.fd, self.entry, opcode, <uint8_t*>view.buf, view.len, owner, False) == 1
        finally:
            PyBuffer_Release(&view)

    def close(self, code=1000, reason=""):
        payload = closing.pack_close(code, reason)
        if PyThread_get_thread_ident() != self.engine.thread:
            self.engine.call_soon_threadsafe(partial(self.close, code, reason))
        elif self.entry != NULL:
            self.engine.close_politely(self.fd, self.entry, payload, code, reason, Cause.APP_CLOSED)

    def abort(self):
        if PyThread_get_thread_ident() != self.engine.thread:
            self.engine.call_soon_threadsafe(self.abort)
        elif self.entry != NULL and self.entry.phase != LINGER:
            self.engine.lose(self.fd, self.entry, Cause.APP_ABORTED)

    def ping(self, payload=b""):
        payload = bytes(payload)
        if len(payload) > codec.MAX_CONTROL:
            raise ValueError(f"ping payload of {len(payload)} bytes; the limit is {codec.MAX_CONTROL}")
        if PyThread_get_thread_ident() != self.engine.thread:
            self.engine.call_soon_threadsafe(partial(self.ping, payload))
        elif self.entry != NULL and self.entry.phase == OPEN:
            self.engine.put(self.fd, self.entry, codec.PING, <uint8_t*>PyBytes_AS_STRING(payload), len(payload), None, True)


cdef int raise_pending() except -1:
    """Turns an error that C code left pending into an exception of this language."""
    return -1


cdef bytes message_bytes(object message):
    """The payload of a message of any accepted type."""
    return message.encode() if isinstance(message, str) else bytes(message)


cdef int check_message(object message, object text) except -1:
    """Raises what `send` promises to raise, whatever the state of the connection."""
    cdef bytes data
    if isinstance(message, str):
        return 0
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(message).__name__}")
    if text:
        data = bytes(message)
        if not codec.valid_utf8(<uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
            raise ValueError("send(..., text=True) needs valid UTF-8")
    return 0


# ---- the engine ------------------------------------------------------------------------------

@cython.final
cdef class Engine:
    """See `contract.Engine`."""

    cdef object front, call_soon, call_soon_threadsafe
    cdef object deferred                # on_close and on_drain calls that wait for the end of a turn
    cdef set ending                     # connections whose on_close waits for a release
    cdef list connect_hooks, message_hooks, close_hooks, drain_hooks
    cdef list waiting                   # for each endpoint: (fd, id) of its stalled connections
    cdef list stalled
    cdef int stalls                     # endpoints stalled now
    cdef bint unstalled                 # somebody who waited may go on
    cdef int64_t[::1] row_view
    cdef int64_t* row
    cdef unsigned long thread
    cdef object interrupt

    cdef Entry* table
    cdef uint64_t table_room
    cdef int highest                    # no descriptor above it is in use
    cdef long entries
    cdef uint64_t next_id
    cdef uint8_t* v6                    # addresses of IPv6 peers; NULL until one comes
    cdef Range* ranges                  # NULL until a broadcast
    cdef Block* log                     # frames broadcast in this turn, one after the other
    cdef Unfinished* pool
    cdef int pooled

    cdef RouteTable routes

    cdef int epoll
    cdef list listeners
    cdef bint accepting, accept_paused
    cdef uint32_t paused_ms, reported_ms
    cdef long most_connections
    cdef epoll_event events[EVENTS]

    cdef uint8_t* buffer                # what was read; shared by all connections
    cdef size_t receive_bytes, head_bytes
    cdef Reader reader                  # of the connection at work, while it has none of its own
    cdef uint8_t* cork                  # answers of the connection at work
    cdef size_t cork_size
    cdef int cork_fd
    cdef bint running, scheduled

    cdef uint32_t* dirty                # connections to flush
    cdef size_t dirty_count, dirty_room
    cdef object ready                   # (fd, id) to go on with in the next batch

    cdef uint64_t message_limit, queue_limit, high_water, low_water
    cdef bint drops
    cdef uint32_t handshake_ms, ping_ms, pong_ms, close_ms, idle_ms
    cdef uint32_t now, last_tick, grace_until
    cdef bint in_grace
    cdef int hand, drain_hand
    cdef long peak

    name = "native"

    def __cinit__(self):
        self.epoll = -1
        self.cork_fd = -1

    def __init__(self, config, front, int64_t[::1] row, uint64_t serial, call_soon, call_soon_threadsafe):
        self.front, self.call_soon, self.call_soon_threadsafe = front, call_soon, call_soon_threadsafe
        self.row_view = row
        if row.shape[0] < len(counters.FIELDS):
            raise ValueError(f"the stats row has {row.shape[0]} columns, not {len(counters.FIELDS)}")
        self.row = &self.row_view[0]
        endpoints = front.endpoints
        self.connect_hooks = [endpoint.on_connect for endpoint in endpoints]
        self.message_hooks = [endpoint.on_message for endpoint in endpoints]
        self.close_hooks = [endpoint.on_close for endpoint in endpoints]
        self.drain_hooks = [endpoint.on_drain for endpoint in endpoints]
        self.waiting = [deque() for _ in endpoints]
        self.stalled = [False for _ in endpoints]
        self.deferred, self.ready, self.ending = deque(), deque(), set()
        self.listeners, self.routes = [], RouteTable()
        self.accepting = True
        self.next_id = serial << 40
        self.thread = PyThread_get_thread_ident()
        self.take_limits(config)
        self.take_memory()

    cdef int take_limits(self, config) except -1:
        self.receive_bytes, self.head_bytes = config.receive_bytes, config.head_bytes
        self.message_limit, self.queue_limit = config.message_bytes, config.queue_bytes
        self.high_water, self.low_water = config.high_water_bytes, config.low_water_bytes
        self.drops = config.queue_policy == "drop"
        self.handshake_ms = milliseconds(config.handshake_timeout_s)
        self.ping_ms, self.pong_ms = milliseconds(config.ping_interval_s), milliseconds(config.ping_timeout_s)
        self.close_ms, self.idle_ms = milliseconds(config.close_timeout_s), milliseconds(config.idle_timeout_s)
        self.most_connections = config.max_connections
        self.now = self.last_tick = clock_ms()
        self.reported_ms = self.now - REPORT_MS
        return 0

    cdef int take_memory(self) except -1:
        self.table_room = table_size()
        self.table = <Entry*>reserve(self.table_room * sizeof(Entry))
        # Half a request head is put in front of what is read next.
        self.buffer = <uint8_t*>malloc(self.receive_bytes + self.head_bytes)
        self.cork = <uint8_t*>malloc(CORK_BYTES)
        if self.buffer == NULL or self.cork == NULL:
            raise MemoryError
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")
        return 0

    def __dealloc__(self):
        cdef int fd
        if self.epoll >= 0 and self.table != NULL:  # nobody called `close`: the descriptors at least
            for fd in range(self.highest + 1):
                if self.table[fd].phase != FREE:
                    os_close(fd)
        if self.table != NULL:
            munmap(self.table, self.table_room * sizeof(Entry))
        if self.v6 != NULL:
            munmap(self.v6, self.table_room * 16)
        if self.ranges != NULL:
            munmap(self.ranges, self.table_room * sizeof(Range))
        if self.log != NULL:
            block_release(self.log)
        self.trim_pool()
        free(self.dirty)
        free(self.buffer)
        free(self.cork)
        if self.epoll >= 0:
            os_close(self.epoll)

    # ---- turns of the loop

    def fileno(self):
        return self.epoll

    def run(self):
        cdef int i, n, batch
        cdef uint32_t began
        if self.running or self.epoll < 0:
            return
        self.thread = PyThread_get_thread_ident()
        self.running = True
        self.scheduled = False
        self.now = began = clock_ms()
        try:
            for batch in range(MAX_BATCHES):
                if self.ready:
                    self.run_ready()
                if self.unstalled:
                    self.run_lines()
                n = epoll_wait(self.epoll, self.events, EVENTS, 0)
                if n <= 0:
                    break
                for i in range(n):
                    self.handle(self.events[i].data.u64, self.events[i].events)
                if self.dirty_count:
                    self.flush_dirty()
                self.now = clock_ms()
                if <uint32_t>(self.now - began) >= MAX_TURN_MS:
                    break
            if self.dirty_count:
                self.flush_dirty()
            self.run_deferred()
        finally:
            self.running = False
            self.cork_fd = -1
            self.wake()
        if self.interrupt is not None:
            error, self.interrupt = self.interrupt, None
            raise error

    cdef int wake(self) except -1:
        """Asks the loop for a turn when something waits that epoll does not know of."""
        if not self.scheduled and not self.running and self.epoll >= 0 and (
            self.dirty_count or self.ready or self.deferred or self.unstalled
        ):
            self.scheduled = True
            self.call_soon(self.run)
        return 0

    cdef int handle(self, uint64_t data, uint32_t events) except -1:
        cdef int fd = <int>(data & 0x7FFFFFFF)
        cdef Entry* e
        cdef uint64_t id
        if data & LISTENER:
            return self.accept_batch(fd)
        e = &self.table[fd]
        if e.phase == FREE or (e.id & 0x7FFFFFFF) != data >> 32:
            return 0  # ended in this batch, and perhaps its descriptor serves another already
        id = e.id
        if events & EPOLLOUT:
            self.flush(fd, e)
            if e.id != id:
                return 0
        if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            if e.phase == OPEN and e.flags & PAUSED:
                self.readable_while_paused(fd, e, events)
            else:
                self.readable(fd, e)
        if self.deferred:
            self.run_deferred()
        return 0

    cdef int run_ready(self) except -1:
        """Goes on with the connections that had more input than one turn allows, or were released."""
        cdef Entry* e
        cdef int fd
        for _ in range(len(self.ready)):
            fd, id = self.ready.popleft()
            e = &self.table[fd]
            if e.id == <uint64_t>id and e.flags & READY:
                e.flags &= ~READY
                self.resume(fd, e)
        return 0

    cdef int run_lines(self) except -1:
        """Goes on with those who waited for their endpoint's thread queue, first come first served."""
        cdef Entry* e
        cdef int fd, endpoint
        self.unstalled = False
        for endpoint in range(len(self.waiting)):
            line = self.waiting[endpoint]
            for _ in range(len(line)):
                if self.stalled[endpoint]:
                    break
                fd, id = line.popleft()
                e = &self.table[fd]
                if e.id == <uint64_t>id and e.flags & STALLED:
                    e.flags &= ~STALLED
                    self.resume(fd, e)
                    if e.id == <uint64_t>id and e.phase == OPEN and not e.flags & PAUSED:
                        self.readable(fd, e)  # now, in its place in the line, not when epoll finds it
        return 0

    cdef int make_ready(self, int fd, Entry* e) except -1:
        if not e.flags & READY:
            e.flags |= READY
            self.ready.append((fd, e.id))
            self.wake()
        return 0

    cdef int run_deferred(self) except -1:
        """Calls on_close and on_drain, now that no handler is on the stack."""
        while self.deferred:
            name, hook, connection, argument = self.deferred.popleft()
            try:
                if name == "on_close":
                    hook(connection, argument)
                else:
                    hook(connection)
            except BaseException as error:
                self.handler_error(connection, name, error)
        return 0

    # ---- accepting

    def listen(self, int fd):
        self.thread = PyThread_get_thread_ident()
        self.listeners.append(fd)
        self.watch_listener(fd)

    cdef int watch_listener(self, int fd) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = LISTENER | <uint32_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
            raise OSError(errno, f"cannot watch the listener {fd}")
        return 0

    def stop_listening(self):
        self.accepting = False
        for fd in self.listeners:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        self.listeners = []

    cdef int accept_batch(self, int listener) except -1:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int i, fd, failed
        for i in range(ACCEPTS):
            size = sizeof(address)
            fd = accept4(listener, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                failed = errno
                if failed in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    return self.pause_accepting(failed)
                if failed == EAGAIN:
                    return 0
                continue  # the new connection's own trouble: accept(2) passes on errors of its network
            self.row[C_ACCEPTED] += 1
            if <uint64_t>fd >= self.table_room or self.most_connections and self.entries >= self.most_connections:
                self.row[C_REFUSED] += 1
                self.row[C_CLOSES + <int>CAUSE_NUMBER[Cause.LIMIT]] += 1
                os_close(fd)
                continue
            self.admit(fd, &address)
        return 0

    cdef int admit(self, int fd, sockaddr_storage* address) except -1:
        cdef Entry* e = &self.table[fd]
        cdef epoll_event event
        self.next_id += 1
        e.id = self.next_id
        event.events = EPOLLIN
        event.data.u64 = (e.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:  # max_user_watches, or memory
            e.id = 0
            self.row[C_REFUSED] += 1
            os_close(fd)
            return 0
        e.phase = HANDSHAKE
        e.interest = 1
        e.seen_ms = e.active_ms = self.now
        if address.ss_family == AF_INET:
            e.ipv4 = (<sockaddr_in*>address).sin_addr.s_addr
            e.port = ntohs((<sockaddr_in*>address).sin_port)
        elif address.ss_family == AF_INET6:
            if self.v6 == NULL:
                self.v6 = <uint8_t*>reserve(self.table_room * 16)
            memcpy(self.v6 + 16 * fd, (<sockaddr_in6*>address).sin6_addr.s6_addr, 16)
            e.port = ntohs((<sockaddr_in6*>address).sin6_port)
            e.flags = V6
        if fd > self.highest:
            self.highest = fd
        self.entries += 1
        self.row[C_PENDING] += 1
        return 0

    cdef int pause_accepting(self, int why) except -1:
        """Out of descriptors: leaves the queue to the kernel until some are free, without spinning."""
        self.row[C_PAUSES] += 1
        self.accept_paused = True
        self.paused_ms = self.now
        for fd in self.listeners:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        if <uint32_t>(self.now - self.reported_ms) >= REPORT_MS:
            self.reported_ms = self.now
            self.front.accepting_paused(os.strerror(why))
        return 0

    cdef int resume_accepting(self) except -1:
        self.accept_paused = False
        for fd in self.listeners:
            self.watch_listener(fd)
        return 0

    # ---- reading

    cdef int ask(self, int fd, Entry* e, uint8_t wanted) except -1:
        """Asks epoll for 1 input, 2 the peer's half-close, 4 room for output."""
        cdef epoll_event event
        if wanted == e.interest:
            return 0
        event.events = (EPOLLIN if wanted & 1 else 0) | (EPOLLRDHUP if wanted & 2 else 0) | (EPOLLOUT if wanted & 4 else 0)
        event.data.u64 = (e.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
        epoll_ctl(self.epoll, EPOLL_CTL_MOD, fd, &event)
        e.interest = wanted
        return 0

    cdef int read_on(self, int fd, Entry* e) except -1:
        return self.ask(fd, e, e.interest & 4 | 1)

    cdef int read_off(self, int fd, Entry* e) except -1:
        return self.ask(fd, e, e.interest & 4 | (0 if e.flags & HALF_CLOSED else 2))

    cdef int readable(self, int fd, Entry* e) except -1:
        cdef size_t kept = 0
        cdef ssize_t n
        if e.more != NULL and e.more.input_size:
            if e.phase != HANDSHAKE:
                return self.resume(fd, e)
            kept = e.more.input_size
            memcpy(self.buffer, e.more.input + e.more.input_start, kept)
        if self.stalls and e.phase == OPEN and self.stalled[self.endpoint(e)]:
            return self.wait_for_room(fd, e)
        n = recv(fd, self.buffer + kept, self.receive_bytes, 0)
        if n <= 0:
            if n < 0 and errno in (EAGAIN, EINTR):
                return 0
            return self.stream_ended(fd, e, errno if n < 0 else 0)
        self.row[C_BYTES_IN] += n
        if e.phase == LINGER:
            e.more.thrown_away += <uint32_t>n
            return self.end(fd, e) if e.more.thrown_away > LINGER_BYTES else 0
        e.seen_ms = self.now
        e.flags &= ~PINGED
        if e.phase == HANDSHAKE:
            return self.read_head(fd, e, kept + n, kept)
        return self.consume(fd, e, self.buffer, self.buffer + n)

    cdef int readable_while_paused(self, int fd, Entry* e, uint32_t events) except -1:
        """Input for a connection that must wait: leave it in the kernel, but notice the end."""
        if e.flags & PAUSED == READY:
            return 0  # its turn comes with the next batch
        cdef int waiting = 0, failed = 0
        cdef socklen_t size = sizeof(failed)
        if events & (EPOLLHUP | EPOLLERR):
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size)
            return self.stream_ended(fd, e, failed or ECONNRESET)
        if events & EPOLLRDHUP:
            e.flags |= HALF_CLOSED
            ioctl(fd, FIONREAD, &waiting)
            if waiting == 0 and (e.more == NULL or e.more.input_size == 0):
                return self.stream_ended(fd, e, 0)
        return self.read_off(fd, e)

    cdef int stream_ended(self, int fd, Entry* e, int failed) except -1:
        """recv gave nothing more. failed: an errno, or 0 for the end of the stream."""
        if e.phase == LINGER:
            return self.end(fd, e)
        if failed == 0 and e.flags & BROKEN or failed in (ECONNRESET, EPIPE):
            return self.lose(fd, e, Cause.PEER_RESET)
        return self.lose(fd, e, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

    cdef int keep_input(self, Entry* e, uint8_t* at, uint8_t* end) except -1:
        """Keeps bytes that cannot be looked at yet; they may lie in what is kept already."""
        cdef Unfinished* more = self.unfinished(e)
        cdef size_t size = end - at
        cdef void* room
        if more.input <= at < more.input + more.input_room and more.input != NULL:
            more.input_start = at - more.input
            more.input_size = size
            return 0
        if size > more.input_room:
            room = realloc(more.input, size)
            if room == NULL:
                raise MemoryError
            more.input = <uint8_t*>room
            more.input_room = size
        memcpy(more.input, at, size)
        more.input_start = 0
        more.input_size = size
        return 0

    cdef void drop_input(self, Unfinished* more) noexcept:
        free(more.input)
        more.input = NULL
        more.input_room = more.input_start = more.input_size = 0

    # ---- the handshake

    cdef int read_head(self, int fd, Entry* e, size_t size, size_t searched) except -1:
        """The request, as far as it has come: `size` bytes in the buffer."""
        cdef Request request
        cdef long route
        cdef Py_ssize_t head = codec.parse_upgrade(self.buffer, size, searched, &request)
        if head > <Py_ssize_t>self.head_bytes:
            return self.refuse(fd, e, too_large(self.head_bytes).response, Cause.HANDSHAKE_REFUSED)
        if head > 0:
            route = self.find_route(request.target[:request.target_size])
            if route >= 0:
                self.begin(fd)
                self.cork_bytes(SWITCHING)
                self.cork_bytes(binascii.b2a_base64(sha1(request.key[:24] + GUID).digest(), newline=False))
                self.cork_bytes(b"\r\n\r\n")
                return self.open(fd, e, <uint32_t>route, self.buffer + head, self.buffer + size)
        head = codec.head_end(self.buffer, size, searched)
        if head == 0 and size < self.head_bytes:
            return self.keep_input(e, self.buffer, self.buffer + size)
        if head == 0 or head > <Py_ssize_t>self.head_bytes:
            return self.refuse(fd, e, too_large(self.head_bytes).response, Cause.HANDSHAKE_REFUSED)
        return self.answer(fd, e, head, size)

    cdef long find_route(self, bytes target) except? -2:
        """The route of a plain target; -1: none, the full parser will say why."""
        cdef long number = self.routes.find(target)
        if number >= 0:
            return number
        found = self.front.route(target)
        if found is None:
            return -1
        path, endpoint = found
        return self.routes.add(path, endpoint, None, target)

    cdef int answer(self, int fd, Entry* e, Py_ssize_t head, size_t size) except -1:
        """Any request but the clean one: the full parser decides."""
        verdict = self.front.answer(self.buffer[:head])
        if isinstance(verdict, Refusal):
            return self.refuse(fd, e, verdict.response, verdict.cause)
        self.begin(fd)
        if not self.cork_bytes(verdict.response):
            raise ValueError("the response to an upgrade does not fit the cork")
        return self.open(
            fd, e, self.routes.add(verdict.path, verdict.endpoint, verdict.subprotocol, None), self.buffer + head, self.buffer + size
        )

    cdef int refuse(self, int fd, Entry* e, bytes response, object cause) except -1:
        """Answers with plain HTTP and ends."""
        cdef Unfinished* more = self.unfinished(e)
        self.handshake_over(cause)
        self.drop_input(more)
        if not output_copy(&more.output, <uint8_t*>PyBytes_AS_STRING(response), PyBytes_GET_SIZE(response)):
            return self.end(fd, e)
        self.row[C_QUEUED] += PyBytes_GET_SIZE(response)
        self.linger(fd, e)
        return self.flush(fd, e)

    cdef int handshake_over(self, object cause) except -1:
        """Counts a request that did not become a WebSocket."""
        self.row[C_PENDING] -= 1
        self.row[C_HTTP if cause is Cause.HTTP_ANSWERED else C_FAILURES] += 1
        self.row[C_CLOSES + <int>CAUSE_NUMBER[cause]] += 1
        return 0

    cdef int open(self, int fd, Entry* e, uint32_t route, uint8_t* rest, uint8_t* end) except -1:
        """The 101 is in the cork: from here on it is a WebSocket; `rest` came with the request."""
        cdef uint64_t id = e.id
        e.route = route
        self.routes.routes[route].users += 1
        if e.more != NULL:
            self.drop_input(e.more)
        e.phase = OPEN
        e.active_ms = self.now
        if self.ping_ms:  # spreads the first Pings of those who came together over one interval
            e.seen_ms = self.now - <uint32_t>(id * 2654435761u) % self.ping_ms
        self.row[C_PENDING] -= 1
        self.row[C_OPENED] += 1
        self.row[C_OPEN] += 1
        hook = self.connect_hooks[self.endpoint(e)]
        if hook is not None:
            connection = self.connection(fd, e)
            try:
                hook(connection)
            except BaseException as error:
                self.handler_error(connection, "on_connect", error)
            if e.id != id:
                self.cork_fd = -1
                return 0
        if e.phase == OPEN and (e.flags & (HELD | OVER) or self.stalls and self.stalled[self.endpoint(e)]):
            if rest < end:
                self.keep_input(e, rest, end)
                if not e.flags & (HELD | OVER):
                    self.wait_for_room(fd, e)
            return self.finish(fd, e)
        if e.phase == LINGER or rest == end:
            return self.finish(fd, e)
        return self.consume(fd, e, rest, end)

    # ---- frames

    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1:
        """Handles input, message by message, until it is used up or the connection must wait."""
        cdef uint64_t id = e.id
        cdef Reader* reader = &e.more.reader if e.more != NULL else &self.reader
        cdef Event event
        cdef int kind, handled = 0
        cdef object payload, hook = None
        cdef Connection connection = None
        if self.cork_fd != fd:
            self.begin(fd)
        while True:
            kind = codec.next_event(reader, &at, end, self.message_limit, &event)
            if kind == codec.NEED_MORE:
                break
            if kind == codec.TEXT or kind == codec.BINARY:
                self.row[C_MESSAGES_IN] += 1
                payload = codec.take_payload(kind, &event)
                if event.assembled:
                    codec.message_taken(reader)
                if payload is None:
                    event.code = 1007
                    kind = codec.VIOLATION
                elif e.phase != OPEN:
                    continue
                else:
                    e.active_ms = self.now
                    if connection is None:  # one for all messages of this turn
                        connection = self.connection(fd, e)
                        hook = self.message_hooks[self.endpoint(e)]
                    if hook is not None:
                        self.deliver(hook, connection, payload)
                        if e.id != id:
                            return self.finish_gone()
                        if e.phase == LINGER:  # the handler raised
                            at = end
                            break
                    handled += 1
                    if at < end and e.phase == OPEN and (
                        e.flags & (HELD | OVER) or handled >= MESSAGES_PER_TURN or self.stalls
                    ) and self.must_wait(fd, e, handled):
                        self.keep_input(e, at, end)
                        break
                    continue
            if kind == codec.PING:
                if e.phase == OPEN:
                    self.pong(fd, e, event.data, event.size)
            elif kind == codec.CLOSE:
                self.peer_closed(fd, e, event.code, event.data[:event.size].decode() if event.size else "", at == end)
                at = end
                break
            elif kind == codec.VIOLATION:
                self.fail_connection(fd, e, event.code, VIOLATIONS[event.code])
                at = end
                break
        if e.id != id:
            return self.finish_gone()
        if reader == &self.reader and not codec.reader_clean(reader):
            if e.phase == OPEN or e.phase == CLOSING:
                self.unfinished(e).reader = reader[0]
                memset(reader, 0, sizeof(Reader))
            else:
                codec.reader_free(reader)
        if at == end and e.more != NULL and e.more.input != NULL and e.phase != HANDSHAKE and not self.keeps(e, at, end):
            self.drop_input(e.more)
        return self.finish(fd, e)

    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept:
        """Whether input waits that this turn did not take from: kept while reading from elsewhere."""
        return e.more.input_size != 0 and not e.more.input <= at <= e.more.input + e.more.input_room

    cdef bint must_wait(self, int fd, Entry* e, int handled) except -1:
        """After a message, with more input at hand: whether the rest has to wait."""
        if e.flags & (HELD | OVER):
            return True
        if self.stalled[self.endpoint(e)]:
            self.wait_for_room(fd, e)
            return True
        if handled >= MESSAGES_PER_TURN:
            self.make_ready(fd, e)
            return True
        return False

    cdef inline int deliver(self, object hook, Connection connection, object payload) except -1:
        # Called by hand: the try block of the compiler costs 15 ns, a tenth of all we spend on a message.
        cdef PyObject* arguments[3]
        cdef PyObject* result
        arguments[0] = NULL
        arguments[1] = <PyObject*>connection
        arguments[2] = <PyObject*>payload
        result = PyObject_Vectorcall(hook, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
        if result == NULL:
            return self.hook_raised(connection, "on_message")
        Py_XDECREF(result)
        return 0

    cdef int hook_raised(self, Connection connection, str name) except -1:
        try:
            raise_pending()
        except BaseException as error:
            self.handler_error(connection, name, error)
        return 0

    cdef int resume(self, int fd, Entry* e) except -1:
        """Goes on with a connection that waited: first with what was kept, then with the kernel's."""
        cdef uint64_t id = e.id
        cdef uint8_t* at
        if e.phase == OPEN and e.flags & PAUSED:
            return 0
        if self.stalls and e.phase == OPEN and self.stalled[self.endpoint(e)]:
            return self.wait_for_room(fd, e)
        if e.more != NULL and e.more.input_size and e.phase != HANDSHAKE:
            at = e.more.input + e.more.input_start
            self.consume(fd, e, at, at + e.more.input_size)
            if e.id != id or e.phase == OPEN and e.flags & PAUSED:
                return 0
        return self.read_on(fd, e)

    cdef int begin(self, int fd) except -1:
        """What is sent to `fd` from now on leaves in one system call, at `finish`."""
        self.cork_fd = fd
        self.cork_size = 0
        return 0

    cdef bint cork_bytes(self, bytes data) except -1:
        cdef size_t size = PyBytes_GET_SIZE(data)
        if self.cork_size + size > CORK_BYTES:
            return False
        memcpy(self.cork + self.cork_size, PyBytes_AS_STRING(data), size)
        self.cork_size += size
        return True

    cdef int finish(self, int fd, Entry* e) except -1:
        """The end of a connection's turn: its answers leave."""
        self.uncork(fd, e)
        self.cork_fd = -1
        if e.more != NULL and not e.flags & DIRTY and e.more.output.bytes == 0:
            return self.drained(fd, e)
        return 0

    cdef int finish_gone(self) except -1:
        self.cork_fd = -1
        self.cork_size = 0
        return 0

    cdef int uncork(self, int fd, Entry* e) except -1:
        cdef ssize_t n
        cdef size_t size = self.cork_size
        if size == 0:
            return 0
        self.cork_size = 0
        n = send(fd, self.cork, size, MSG_NOSIGNAL)
        if n == <ssize_t>size:
            self.row[C_BYTES_OUT] += n
            return 0
        return self.queue_rest(fd, e, n, self.cork, size)

    cdef int queue_rest(self, int fd, Entry* e, ssize_t n, uint8_t* data, size_t size) except -1:
        """Queues what a send left over; n is its result."""
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                e.flags |= BROKEN
                return 0
            n = 0
        self.row[C_BYTES_OUT] += n
        self.enqueue(e, data + n, size - n)
        return self.blocked(fd, e)

    cdef int enqueue(self, Entry* e, const uint8_t* data, size_t size) except -1:
        if not output_copy(&self.unfinished(e).output, data, size):
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    # ---- sending

    cdef int put(self, int fd, Entry* e, int opcode, const uint8_t* data, size_t size, object owner, bint control) except -1:
        """Sends one frame. 1: queued, under high water; 0: queued but over it, or not queued.

        owner: an immutable object whose memory `data` is, which may then wait where it lies; or None."""
        cdef uint8_t head[10]
        cdef int head_size = codec.pack_head(head, opcode, size)
        cdef Unfinished* more = e.more
        if e.flags & BROKEN:
            return 0
        if self.cork_fd == fd and not e.flags & RANGED and (more == NULL or more.output.bytes == 0):
            self.row[C_MESSAGES_OUT] += not control
            if size < DIRECT_BYTES:
                if self.cork_size + head_size + size > CORK_BYTES:
                    self.uncork(fd, e)
                    if e.more != NULL and e.more.output.bytes:
                        return self.queue_frame(fd, e, head, head_size, data, size, owner)
                memcpy(self.cork + self.cork_size, head, head_size)
                if size:
                    memcpy(self.cork + self.cork_size + head_size, data, size)
                self.cork_size += head_size + size
                return 1
            return self.send_direct(fd, e, head, head_size, data, size, owner)
        if not control and not self.makes_room(fd, e, head_size + size):
            return 0
        self.row[C_MESSAGES_OUT] += not control
        return self.queue_frame(fd, e, head, head_size, data, size, owner)

    cdef int send_direct(
        self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner
    ) except -1:
        """A large payload goes to the kernel from where it lies, with all that was corked before it."""
        cdef iovec parts[3]
        cdef msghdr message
        cdef ssize_t n
        cdef size_t part, corked = self.cork_size
        cdef int i
        parts[0].iov_base, parts[0].iov_len = self.cork, corked
        parts[1].iov_base, parts[1].iov_len = head, head_size
        parts[2].iov_base, parts[2].iov_len = <void*>data, size
        memset(&message, 0, sizeof(message))
        message.msg_iov, message.msg_iovlen = parts, 3
        self.cork_size = 0
        n = sendmsg(fd, &message, MSG_NOSIGNAL)
        if n == <ssize_t>(corked + head_size + size):
            self.row[C_BYTES_OUT] += n
            return 1
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                e.flags |= BROKEN
                return 0
            n = 0
        self.row[C_BYTES_OUT] += n
        for i in range(3):
            part = min(<size_t>n, parts[i].iov_len)
            n -= part
            if i == 2:
                self.enqueue_payload(e, data + part, size - part, owner)
            else:
                self.enqueue(e, <uint8_t*>parts[i].iov_base + part, parts[i].iov_len - part)
        self.blocked(fd, e)
        return e.more.output.bytes <= self.high_water

    cdef int enqueue_payload(self, Entry* e, const uint8_t* data, size_t size, object owner) except -1:
        """Queues a payload: by reference where it is large and cannot change, else as a copy."""
        cdef Block* block
        cdef bint queued
        if owner is None or size < DIRECT_BYTES:
            return self.enqueue(e, data, size)
        block = block_of(owner, <uint8_t*>data, size)
        queued = block != NULL and output_share(&self.unfinished(e).output, block, <uint8_t*>data, size)
        if block != NULL:
            block_release(block)
        if not queued:
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    cdef int queue_frame(
        self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner
    ) except -1:
        self.settle_range(fd, e)
        if self.cork_fd == fd and self.cork_size:
            self.enqueue(e, self.cork, self.cork_size)
            self.cork_size = 0
        self.enqueue(e, head, head_size)
        self.enqueue_payload(e, data, size, owner)
        self.make_dirty(fd, e)
        return self.under_high_water(fd, e)

    cdef bint under_high_water(self, int fd, Entry* e) except -1:
        """Whether what waits stays under the mark; the kernel is offered it before it is judged."""
        if e.more.output.bytes > self.high_water and not e.interest & 4:
            self.flush(fd, e)
        if e.more == NULL or e.more.output.bytes <= self.high_water:
            return True
        if e.phase == OPEN:
            e.flags |= OVER
        return False

    cdef bint makes_room(self, int fd, Entry* e, size_t size) except -1:
        """Whether a message may be queued; if not, the policy has been applied."""
        if self.waiting_bytes(fd, e) == 0 or self.waiting_bytes(fd, e) + size <= self.queue_limit:
            return True
        if not e.interest & 4:
            self.flush(fd, e)  # the kernel may take what waits only for the end of the turn
            if self.waiting_bytes(fd, e) == 0 or self.waiting_bytes(fd, e) + size <= self.queue_limit:
                return True
        if self.drops:
            self.row[C_DROPPED] += 1
        else:
            self.close_politely(fd, e, closing.pack_close(1013, "too slow"), 1013, "too slow", Cause.SLOW_CONSUMER)
        return False

    cdef size_t waiting_bytes(self, int fd, Entry* e) noexcept:
        cdef size_t size = e.more.output.bytes if e.more != NULL else 0
        if e.flags & RANGED:
            size += self.ranges[fd].end - self.ranges[fd].start
        return size

    cdef size_t queued(self, int fd, Entry* e) noexcept:
        return self.waiting_bytes(fd, e) + (self.cork_size if self.cork_fd == fd else 0)

    cdef int make_dirty(self, int fd, Entry* e) except -1:
        cdef void* moved
        if e.flags & DIRTY or e.interest & 4:
            return 0
        if self.dirty_count == self.dirty_room:
            moved = realloc(self.dirty, max(<size_t>256, self.dirty_room * 2) * sizeof(uint32_t))
            if moved == NULL:
                raise MemoryError
            self.dirty = <uint32_t*>moved
            self.dirty_room = max(<size_t>256, self.dirty_room * 2)
        e.flags |= DIRTY
        self.dirty[self.dirty_count] = fd
        self.dirty_count += 1
        if self.dirty_count == 1:
            self.wake()
        return 0

    cdef int flush_dirty(self) except -1:
        """Sends what this turn queued: once for each connection, however much it was."""
        cdef size_t i, count = min(self.dirty_count, <size_t>FLUSHES)
        cdef int fd
        cdef Entry* e
        for i in range(count):
            fd = self.dirty[i]
            e = &self.table[fd]
            if e.flags & DIRTY:
                self.flush(fd, e)
        # Handlers of on_drain do not run in here, so nothing was appended but by `drained`.
        self.dirty_count -= count
        if self.dirty_count:
            memmove(self.dirty, self.dirty + count, self.dirty_count * sizeof(uint32_t))
        elif self.log != NULL:
            self.rewind_log()
        return 0

    cdef int flush(self, int fd, Entry* e) except -1:
        """Offers the kernel what waits. Never ends a connection but a lingering one."""
        cdef ssize_t n = 0
        e.flags &= ~DIRTY
        if self.cork_fd == fd and self.cork_size:
            self.uncork(fd, e)  # it was said first: nothing waited when it was corked
        if e.flags & RANGED:
            n = self.flush_range(fd, e)
        if n >= 0 and e.more != NULL and e.more.output.bytes:
            n = output_send(&e.more.output, fd)
            if n > 0:
                self.row[C_BYTES_OUT] += n
                self.row[C_QUEUED] -= n
        if n < 0:
            e.flags |= BROKEN
            self.discard_output(fd, e)
        elif n > 0 and e.interest & 4:  # it had not read, and now it does: a sign of life
            e.seen_ms = self.now
            e.flags &= ~PINGED
        if e.more != NULL and e.more.output.bytes:
            return self.blocked(fd, e)
        return self.drained(fd, e)

    cdef ssize_t flush_range(self, int fd, Entry* e) except -2:
        """Sends a stretch of the broadcast log, straight from the log; the rest shares its memory."""
        cdef Range* r = &self.ranges[fd]
        cdef ssize_t n
        cdef size_t size = r.end - r.start
        if e.more != NULL and e.more.output.bytes:
            self.settle_range(fd, e)
            return 0
        e.flags &= ~RANGED
        n = send(fd, self.log.data + r.start, size, MSG_NOSIGNAL)
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                return -1
            n = 0
        self.row[C_BYTES_OUT] += n
        if <size_t>n < size:
            self.share_log(e, r.start + n, size - n)
        return n

    cdef int share_log(self, Entry* e, size_t start, size_t size) except -1:
        if not output_share(&self.unfinished(e).output, self.log, self.log.data + start, size):
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    cdef int settle_range(self, int fd, Entry* e) except -1:
        """Moves a pending stretch of the log into the queue, so that something else can follow it."""
        cdef Range* r
        if e.flags & RANGED:
            r = &self.ranges[fd]
            e.flags &= ~RANGED
            self.share_log(e, r.start, r.end - r.start)
        return 0

    cdef int blocked(self, int fd, Entry* e) except -1:
        """The kernel takes no more: wait for room, and read no more from a peer that does not read."""
        self.ask(fd, e, e.interest | 4)
        if e.phase == OPEN and e.more.output.bytes > self.high_water:
            e.flags |= OVER
        return self.fell(fd, e)

    cdef int fell(self, int fd, Entry* e) except -1:
        """Some output left: a Pong that waited for its turn, and the way down through low water."""
        cdef Unfinished* more = e.more
        if more.pong_waits and more.output.sent >= more.pong_end and e.phase == OPEN:
            more.pong_waits = False
            self.put(fd, e, codec.PONG, more.pong, more.pong_size, None, True)
            more.pong_end = more.output.sent + more.output.bytes
        if e.flags & OVER and more.output.bytes <= self.low_water:
            e.flags &= ~OVER
            if e.phase == OPEN:
                hook = self.drain_hooks[self.endpoint(e)]
                if hook is not None:
                    self.deferred.append(("on_drain", hook, self.connection(fd, e), None))
                self.make_ready(fd, e)
                self.wake()
        return 0

    cdef int drained(self, int fd, Entry* e) except -1:
        """Nothing waits any more."""
        self.ask(fd, e, e.interest & 3)
        if e.more != NULL:
            self.fell(fd, e)
            if e.more.output.bytes:
                return 0
        if e.phase == LINGER:
            if e.flags & (FINAL | BROKEN):
                return self.end(fd, e)
            if not e.flags & SHUT:
                e.flags |= SHUT
                e.active_ms = self.now
                shutdown(fd, SHUT_WR)
        elif e.more != NULL:
            self.tidy(fd, e)
        return 0

    cdef int discard_output(self, int fd, Entry* e) except -1:
        e.flags &= ~RANGED
        if e.more != NULL:
            self.row[C_QUEUED] -= e.more.output.bytes
            output_free(&e.more.output)
            e.more.pong_waits = False
        return 0

    cdef int pong(self, int fd, Entry* e, uint8_t* payload, size_t size) except -1:
        """Answers a Ping; while one answer waits for a slow peer, only the latest follows it
        (RFC 6455, section 5.5.3)."""
        cdef Unfinished* more = e.more
        if more == NULL or more.output.bytes == 0:
            self.put(fd, e, codec.PONG, payload, size, None, True)
            return 0
        if more.pong_end > more.output.sent:
            memcpy(more.pong, payload, size)
            more.pong_size = <uint8_t>size
            more.pong_waits = True
            return 0
        self.put(fd, e, codec.PONG, payload, size, None, True)
        if e.more != NULL:
            e.more.pong_end = e.more.output.sent + e.more.output.bytes
        return 0

    # ---- broadcasting

    def broadcast(self, message, connections=None, *, text=None):
        cdef bytes payload
        cdef int fd
        cdef long count = 0
        cdef uint32_t start, size
        cdef Entry* e
        if PyThread_get_thread_ident() != self.thread:
            raise RuntimeError("broadcast belongs to the worker's own thread; use loop.call_soon_threadsafe")
        check_message(message, text)
        opcode = codec.TEXT if (isinstance(message, str) if text is None else text) else codec.BINARY
        payload = message_bytes(message)
        self.log_frame(opcode, payload, &start, &size)
        if connections is None:
            for fd in range(self.highest + 1):
                e = &self.table[fd]
                if e.phase == OPEN:
                    count += self.publish(fd, e, start, size)
        else:
            for connection in connections:
                count += self.publish_to(connection, start, size)
        if count == 0 and self.dirty_count == 0:
            self.rewind_log()
        self.row[C_MESSAGES_OUT] += count
        return count

    cdef bint publish_to(self, object connection, uint32_t start, uint32_t size) except -1:
        cdef Connection peer
        if type(connection) is not Connection:
            raise TypeError(f"broadcast needs connections of this worker, not {type(connection).__name__}")
        peer = <Connection>connection
        if peer.entry == NULL or peer.entry.phase != OPEN:
            return False
        if peer.engine is not self:
            raise ValueError("broadcast needs connections of this worker; this one is another's")
        return self.publish(peer.fd, peer.entry, start, size)

    cdef int log_frame(self, int opcode, bytes payload, uint32_t* start, uint32_t* size) except -1:
        """Packs a frame once, behind those of this turn; where it lies in the log."""
        cdef uint8_t head[10]
        cdef size_t length = PyBytes_GET_SIZE(payload)
        cdef int head_size = codec.pack_head(head, opcode, length)
        if length > <size_t>1 << 31:
            raise ValueError("a broadcast of more than 2 GiB")
        if self.log != NULL and self.log.room - self.log.size < head_size + length:
            self.new_log()
        if self.log == NULL:
            if self.ranges == NULL:
                self.ranges = <Range*>reserve(self.table_room * sizeof(Range))
            self.log = block_new(max(<size_t>LOG_BYTES, head_size + length))
            if self.log == NULL:
                raise MemoryError
        start[0] = <uint32_t>self.log.size
        size[0] = <uint32_t>(head_size + length)
        memcpy(self.log.data + self.log.size, head, head_size)
        memcpy(self.log.data + self.log.size + head_size, PyBytes_AS_STRING(payload), length)
        self.log.size += size[0]
        return 0

    cdef int new_log(self) except -1:
        """The log is full: what is still to be sent from it shares its memory."""
        cdef size_t i
        cdef int fd
        for i in range(self.dirty_count):
            fd = self.dirty[i]
            if self.table[fd].flags & RANGED:
                self.settle_range(fd, &self.table[fd])
        block_release(self.log)
        self.log = NULL
        return 0

    cdef int rewind_log(self) except -1:
        """The turn is over: the log is used again, unless slow peers still share it or it grew."""
        if self.log == NULL:
            return 0
        if self.log.refs == 1 and self.log.room <= LOG_BYTES:
            self.log.size = 0
        else:
            block_release(self.log)
            self.log = NULL
        return 0

    cdef bint publish(self, int fd, Entry* e, uint32_t start, uint32_t size) except -1:
        """Queues a frame of the log for one connection: in the usual case two numbers."""
        cdef Range* r
        cdef size_t waiting
        if e.flags & BROKEN:
            return False
        waiting = self.waiting_bytes(fd, e)
        if waiting and waiting + size > self.queue_limit and not self.makes_room(fd, e, size):
            return False
        if self.cork_fd == fd and self.cork_size or e.more != NULL and e.more.output.bytes:
            self.settle_range(fd, e)
            if self.cork_fd == fd and self.cork_size:
                self.enqueue(e, self.cork, self.cork_size)
                self.cork_size = 0
            self.share_log(e, start, size)
            self.under_high_water(fd, e)
        else:
            r = &self.ranges[fd]
            if e.flags & RANGED and r.end != start:
                self.settle_range(fd, e)
                self.share_log(e, start, size)
            elif e.flags & RANGED:
                r.end += size
            else:
                r.start, r.end = start, start + size
                e.flags |= RANGED
        self.make_dirty(fd, e)
        return True

    # ---- closing

    cdef int close_politely(self, int fd, Entry* e, bytes payload, int code, str reason, object cause) except -1:
        """Sends a Close and waits for theirs (RFC 6455, section 7.1.2)."""
        cdef Unfinished* more
        if e.phase != OPEN:
            return 0
        self.put(fd, e, codec.CLOSE, <uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), None, True)
        more = self.unfinished(e)
        close = Close(code, reason, cause, False)
        Py_INCREF(close)
        more.close = <PyObject*>close
        e.phase = CLOSING
        e.active_ms = self.now
        # Their Close may lie behind messages that waited: these are thrown away now.
        if more.input_size:
            self.make_ready(fd, e)
        return self.read_on(fd, e)

    cdef int peer_closed(self, int fd, Entry* e, int code, str reason, bint last) except -1:
        """Their Close came: answer it (section 5.5.1) or, if ours went first, be done."""
        cdef uint8_t payload[2]
        if e.phase == LINGER:
            return 0
        if e.phase == OPEN:
            payload[0], payload[1] = <uint8_t>(code >> 8), <uint8_t>code
            self.put(fd, e, codec.CLOSE, payload, 0 if code == codec.NO_STATUS else 2, None, True)
            self.detach(fd, e, Close(code, reason, Cause.PEER_CLOSED, True))
        else:
            self.detach(fd, e, self.closing(e, True))
        self.linger(fd, e)
        if last:  # nothing follows a Close, so nothing unread can turn our end into a reset
            e.flags |= FINAL
        return 0

    cdef object closing(self, Entry* e, bint clean):
        """The Close that was begun here."""
        close = <object>e.more.close
        return Close(close.code, close.reason, close.cause, clean)

    cdef int fail_connection(self, int fd, Entry* e, int code, object cause) except -1:
        """They broke the protocol, or a handler raised: says so, and reads on only to throw away."""
        if e.phase == OPEN:
            payload = closing.pack_close(code)
            self.put(fd, e, codec.CLOSE, <uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), None, True)
            self.detach(fd, e, Close(code, "", cause, False))
        elif e.phase == CLOSING:
            self.detach(fd, e, self.closing(e, False))
        else:
            return 0
        return self.linger(fd, e)

    cdef int handler_error(self, Connection connection, str hook, object error) except -1:
        self.row[C_ERRORS] += 1
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        self.front.handler_failed(connection, hook, error)
        if connection.entry != NULL:
            self.fail_connection(connection.fd, connection.entry, 1011, Cause.HANDLER_ERROR)
            self.settle_lingering(connection.fd)
        return 0

    cdef int settle_lingering(self, int fd) except -1:
        """A failing that came from outside the connection's own turn: its output leaves with the others'."""
        if self.cork_fd != fd:
            self.make_dirty(fd, &self.table[fd])
        return 0

    cdef int linger(self, int fd, Entry* e) except -1:
        """Nothing more to say: what waits is sent, what comes is thrown away."""
        cdef Unfinished* more = self.unfinished(e)
        e.phase = LINGER
        e.active_ms = self.now
        e.flags &= ~(PAUSED | PINGED)
        more.thrown_away = 0
        more.input_size = 0
        return self.read_on(fd, e)

    cdef int lose(self, int fd, Entry* e, object cause) except -1:
        """The end without ceremony."""
        if e.phase == HANDSHAKE:
            self.handshake_over(cause)
        elif e.phase == OPEN:
            self.detach(fd, e, Close(closing.ABNORMAL, "", cause, False))
        elif e.phase == CLOSING:
            self.detach(fd, e, self.closing(e, False))
        return self.end(fd, e)

    cdef int detach(self, int fd, Entry* e, object close) except -1:
        """Parts the Connection from its row; on_close follows when no handler runs."""
        cdef Connection connection = None
        cdef object hook = self.close_hooks[self.endpoint(e)]
        self.row[C_OPEN] -= 1
        self.row[C_CLOSES + <int>CAUSE_NUMBER[close.cause]] += 1
        if e.connection != NULL or hook is not None:
            connection = self.connection(fd, e)
            connection.facts = self.facts(fd, e)
            connection.entry = NULL
            e.connection = NULL
            if e.flags & PINNED:
                e.flags &= ~PINNED
                Py_DECREF(connection)
        self.routes.release(e.route)
        if hook is None:
            return 0
        if connection.holds:
            connection.ending = ("on_close", hook, connection, close)
            self.ending.add(connection)
        else:
            self.deferred.append(("on_close", hook, connection, close))
            self.wake()
        return 0

    cdef int end(self, int fd, Entry* e) except -1:
        """Frees the row and the descriptor. A child of the app may hold a duplicate of the socket, so
        that close(2) alone would leave the peer waiting: shutdown(2) ends the connection itself."""
        if self.cork_fd == fd:
            self.cork_fd = -1
            self.cork_size = 0
        if e.more != NULL:
            self.return_unfinished(e)
        shutdown(fd, SHUT_RDWR)
        os_close(fd)
        memset(e, 0, sizeof(Entry))
        self.entries -= 1
        if self.accept_paused and self.accepting:
            self.resume_accepting()
        return 0

    # ---- what the floor above asks for

    cdef Connection connection(self, int fd, Entry* e):
        cdef Connection connection
        if e.connection != NULL:
            return <Connection>e.connection
        connection = Connection.__new__(Connection)
        connection.engine = self
        connection.entry = e
        connection.fd = fd
        connection.id = e.id
        e.connection = <PyObject*>connection
        return connection

    cdef inline uint32_t endpoint(self, Entry* e) noexcept:
        return self.routes.routes[e.route].endpoint

    cdef tuple facts(self, int fd, Entry* e):
        cdef Route* route = &self.routes.routes[e.route]
        return <object>route.path, <object>route.subprotocol, self.address(fd, e)

    cdef object address(self, int fd, Entry* e):
        """(host, port); "" for a Unix socket. An IPv4 peer of an IPv6 listener is shown as IPv4."""
        cdef char text[64]
        cdef uint8_t* v6
        if e.flags & V6:
            v6 = self.v6 + 16 * fd
            if v6[:12] == b"\0" * 10 + b"\xff\xff":
                inet_ntop(AF_INET, v6 + 12, text, sizeof(text))
            else:
                inet_ntop(AF_INET6, v6, text, sizeof(text))
        elif e.port == 0 and e.ipv4 == 0:
            return ""
        else:
            inet_ntop(AF_INET, &e.ipv4, text, sizeof(text))
        return (<bytes>text).decode(), e.port

    cdef object post_send(self, Connection connection, object message, object text):
        """`send` from another thread: the loop does it; what is known now is the answer."""
        if not connection.is_open:
            return False
        check_message(message, text)
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)  # it may change before its turn comes
        size = len(message.encode() if isinstance(message, str) else message)
        connection.posted += size
        self.call_soon_threadsafe(partial(posted_send, connection, message, text, size))
        return connection.queued_bytes <= self.high_water

    def hold(self, Connection connection not None):
        connection.holds += 1
        if connection.entry != NULL:
            connection.entry.flags |= HELD

    def release(self, Connection connection not None):
        cdef Entry* e = connection.entry
        if connection.holds == 0:
            if self.epoll < 0:  # `close` has ended every hold
                return
            raise RuntimeError("release without hold")
        connection.holds -= 1
        if connection.holds:
            return
        if e == NULL:
            if connection.ending is not None:
                self.ending.discard(connection)
                self.deferred.append(connection.ending)
                connection.ending = None
                self.settle()
            return
        e.flags &= ~HELD
        if e.phase != OPEN:
            return
        if self.running:
            self.make_ready(connection.fd, e)
            return
        self.now = clock_ms()
        self.running = True
        try:
            self.resume(connection.fd, e)
            if self.dirty_count:
                self.flush_dirty()
            self.run_deferred()
        finally:
            self.running = False
            self.wake()

    cdef int settle(self) except -1:
        """Calls what was deferred, unless a turn is under way, which will."""
        if self.running:
            return 0
        self.running = True
        try:
            self.run_deferred()
        finally:
            self.running = False
            self.wake()
        return 0

    def fail(self, Connection connection not None, str hook, error):
        self.handler_error(connection, hook, error)

    def stall(self, int endpoint):
        if not self.stalled[endpoint]:
            self.stalled[endpoint] = True
            self.stalls += 1

    def unstall(self, int endpoint):
        if not self.stalled[endpoint]:
            return
        self.stalled[endpoint] = False
        self.stalls -= 1
        self.unstalled = True
        self.wake()

    cdef int wait_for_room(self, int fd, Entry* e) except -1:
        """Its endpoint's thread queue is full: waits in line."""
        if not e.flags & STALLED:
            e.flags |= STALLED
            self.waiting[self.endpoint(e)].append((fd, e.id))
        return self.read_off(fd, e)

    def connections(self):
        cdef int fd
        return [self.connection(fd, &self.table[fd]) for fd in range(self.highest + 1) if self.table[fd].phase == OPEN]

    def drain(self, int code, str reason, long at_most):
        cdef int fd
        cdef Entry* e
        payload = closing.pack_close(code, reason)
        self.now = clock_ms()
        for fd in range(self.drain_hand, self.highest + 1):
            e = &self.table[fd]
            if e.phase == HANDSHAKE:
                self.lose(fd, e, Cause.DRAIN)
            elif e.phase == OPEN:
                if at_most <= 0:
                    self.drain_hand = fd
                    break
                at_most -= 1
                self.close_politely(fd, e, payload, code, reason, Cause.DRAIN)
        else:
            self.drain_hand = 0
        self.settle()
        return self.entries

    def close(self):
        cdef int fd
        cdef Entry* e
        cdef Connection connection
        if self.epoll < 0:
            return
        self.stop_listening()
        for fd in range(self.highest + 1):
            e = &self.table[fd]
            if e.phase != FREE:
                connection = <Connection>e.connection if e.connection != NULL else None
                if connection is not None:
                    connection.holds = 0
                self.lose(fd, e, Cause.DRAIN)
        for connection in self.ending:
            connection.holds = 0
            self.deferred.append(connection.ending)
            connection.ending = None
        self.ending.clear()
        self.running = True
        self.run_deferred()
        self.running = False
        self.dirty_count = 0
        if self.log != NULL:
            block_release(self.log)
            self.log = NULL
        self.trim_pool()
        os_close(self.epoll)
        self.epoll = -1

    # ---- the clock hand

    def tick(self):
        cdef int first, last, fd
        if self.epoll < 0:
            return
        self.now = clock_ms()
        if <uint32_t>(self.now - self.last_tick) > LAGGED_MS:
            # We stood still (a suspended machine, a handler that blocked): their answers may lie
            # unread. Nobody is judged before he had his time again.
            self.grace_until, self.in_grace = self.now + self.pong_ms, True
        elif self.in_grace and <int>(self.now - self.grace_until) >= 0:
            self.in_grace = False
        self.last_tick = self.now
        if self.accept_paused and self.accepting and <uint32_t>(self.now - self.paused_ms) >= ACCEPT_RETRY_MS:
            self.resume_accepting()
        first = self.hand
        last = min(first + self.highest // TICKS_PER_S + 1, self.highest + 1)
        self.running = True
        try:
            for fd in range(first, last):
                if self.table[fd].phase != FREE:
                    self.judge(fd, &self.table[fd])
            self.run_deferred()
        finally:
            self.running = False
        self.hand = last
        if last > self.highest:
            self.hand = 0
            self.give_back()
        self.wake()

    cdef int judge(self, int fd, Entry* e) except -1:
        """Deadlines of one connection, once a second."""
        cdef uint32_t silent = self.now - e.seen_ms, since = self.now - e.active_ms
        if e.phase == OPEN:
            if self.idle_ms and since >= self.idle_ms and not e.flags & HELD:
                return self.close_politely(fd, e, closing.pack_close(1000, "idle"), 1000, "idle", Cause.IDLE)
            if self.ping_ms:
                return self.heartbeat(fd, e, silent)
        elif e.phase == HANDSHAKE:
            if since >= self.handshake_ms:
                return self.lose(fd, e, Cause.HANDSHAKE_TIMEOUT)
        elif e.phase == CLOSING:
            if since >= self.close_ms:
                return self.lose(fd, e, Cause.APP_CLOSED)
        elif since >= (<uint32_t>LINGER_MS if e.flags & SHUT else self.close_ms):
            return self.end(fd, e)
        return 0

    cdef int heartbeat(self, int fd, Entry* e, uint32_t silent) except -1:
        """A Ping after silence, the end after more of it. `seen_ms` is moved when the Ping goes out, so
        that the deadline counts from there."""
        if e.flags & PINGED:
            if e.flags & PAUSED or self.in_grace:
                e.seen_ms = self.now - self.ping_ms
            elif silent >= self.ping_ms + self.pong_ms:
                return self.lose(fd, e, Cause.HEARTBEAT_LOST)
        elif silent >= self.ping_ms:
            if e.more == NULL or e.more.output.bytes == 0:  # else what waits is the question already
                self.put(fd, e, codec.PING, NULL, 0, None, True)
            e.seen_ms = self.now - self.ping_ms
            e.flags |= PINGED
        return 0

    cdef int give_back(self) except -1:
        """After a sweep: memory of rows above the highest in use, of pools, of a crowd that left."""
        cdef int highest = self.highest
        if self.entries > self.peak:
            self.peak = self.entries
        while highest > 0 and self.table[highest].phase == FREE:
            highest -= 1
        if highest < self.highest:
            release_above(self.table, sizeof(Entry), highest, self.highest)
            if self.v6 != NULL:
                release_above(self.v6, 16, highest, self.highest)
            if self.ranges != NULL:
                release_above(self.ranges, sizeof(Range), highest, self.highest)
            self.highest = highest
        if self.peak >= 1024 and self.entries < self.peak // 2:
            self.peak = self.entries
            self.trim_pool()
            pool_trim()
            if self.dirty_count == 0:
                free(self.dirty)
                self.dirty, self.dirty_room = NULL, 0
            uws_give_back()
        return 0

    # ---- what is unfinished

    cdef Unfinished* unfinished(self, Entry* e) except NULL:
        cdef Unfinished* more = e.more
        if more != NULL:
            return more
        more = self.pool
        if more != NULL:
            self.pool = more.next
            self.pooled -= 1
        else:
            more = <Unfinished*>malloc(sizeof(Unfinished))
            if more == NULL:
                raise MemoryError
        memset(more, 0, sizeof(Unfinished))
        e.more = more
        self.row[C_BUFFERS] += 1
        return more

    cdef int tidy(self, int fd, Entry* e) except -1:
        """Gives `more` back when nothing is unfinished; not while its reader is at work."""
        if e.phase == OPEN and self.cork_fd != fd and e.more.input_size == 0 and codec.reader_clean(&e.more.reader):
            self.return_unfinished(e)
        return 0

    cdef int return_unfinished(self, Entry* e) except -1:
        cdef Unfinished* more = e.more
        e.more = NULL
        self.row[C_QUEUED] -= more.output.bytes
        self.row[C_BUFFERS] -= 1
        codec.reader_free(&more.reader)
        output_free(&more.output)
        free(more.input)
        if more.close != NULL:
            Py_DECREF(<object>more.close)
        if self.pooled < POOL_KEEPS:
            more.next = self.pool
            self.pool = more
            self.pooled += 1
        else:
            free(more)
        return 0

    cdef void trim_pool(self) noexcept:
        cdef Unfinished* more
        while self.pool != NULL:
            more = self.pool
            self.pool = more.next
            free(more)
        self.pooled = 0


def posted_send(Connection connection, message, text, Py_ssize_t size):
    """The loop's half of a `send` from another thread."""
    connection.posted -= size
    connection.send(message, text=text)


def native_blocks():
    """Output blocks in use in this process, a broadcast log of each engine included. For tests."""
    return blocks_held()


cdef uint32_t milliseconds(object seconds) except? 0xFFFFFFFF:
    return <uint32_t>min(seconds * 1000, 0x7FFFFFFF)


cdef int release_above(void* table, size_t row, int highest, int last) except -1:
    """Gives back the pages that hold no row up to `highest`. They read as zeros afterwards: free rows."""
    cdef size_t page = 4096
    cdef size_t start = ((highest + 1) * row + page - 1) // page * page
    cdef size_t end = ((last + 1) * row + page - 1) // page * page
    if end > start:
        madvise(<uint8_t*>table + start, end - start, MADV_DONTNEED)
    return 0
