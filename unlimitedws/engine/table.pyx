# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Rows: 48 bytes for a connection at rest, memory mapped, touched only where used.

What a peer needs while something is unfinished (half a frame, output that the kernel did not take, a
close under way) is `Unfinished`, borrowed and given back. A `Connection` object exists only while
Python holds one."""

from collections import deque

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.memoryview cimport PyMemoryView_GET_BUFFER, PyMemoryView_GetContiguous
from cpython.ref cimport Py_DECREF, PyObject
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport output_free
from unlimitedws.engine.routes cimport Route, RouteTable

from unlimitedws.engine import counters
from unlimitedws.wire import address as addresses

cdef str UNNAMED = addresses.UNIX

cdef enum:
    POOL_KEEPS = 64         # free Unfinished kept

cdef str FIRST_HANDLING = counters.MESSAGE_HANDLING.fields[0].name  # read here: `fields` makes them anew

cdef uint64_t MAX_TABLE = 1 << 24   # descriptors; a limit may be 1e9, and address space is finite too

ROW_BYTES = sizeof(Entry)
METER_BYTES = sizeof(Meter)

if counters.ENGINE_FIELDS[:C_CLOSES] != (
    "connections_open", "handshakes_pending", "connections_accepted", "connections_opened", "connections_refused",
    "handshake_failures", "http_requests", "messages_in", "messages_out", "bytes_in", "bytes_out", "messages_dropped",
    "queued_bytes", "handler_errors", "accept_pauses", "buffers_held",
):
    raise ImportError("the native engine was built for another layout of the stats table; reinstall unlimitedws")
if (len(counters.MESSAGE_HANDLING.bounds), counters.RING_CLOSES) != (HANDLING_BOUNDS, RING_CLOSES):
    raise ImportError("the native engine was built for other histograms or rings; reinstall unlimitedws")


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


cdef int release_above(void* table, size_t row, int highest, int last) except -1:
    """Gives back the pages that hold no row up to `highest`. They read as zeros afterwards: free rows."""
    cdef size_t page = 4096
    cdef size_t start = ((highest + 1) * row + page - 1) // page * page
    cdef size_t end = ((last + 1) * row + page - 1) // page * page
    if end > start:
        madvise(<uint8_t*>table + start, end - start, MADV_DONTNEED)
    return 0


cdef class Table:
    def __cinit__(self):
        self.epoll = -1
        self.cork_fd = -1

    def __init__(self, front, row, call_soon, call_soon_threadsafe):
        self.front, self.call_soon, self.call_soon_threadsafe = front, call_soon, call_soon_threadsafe
        self.row_view = PyMemoryView_GetContiguous(row, PyBUF_WRITE, b"C")
        if self.row_view.itemsize != sizeof(int64_t) or len(self.row_view) < len(counters.FIELDS):
            raise ValueError(f"the stats row has {len(row)} columns of {row.itemsize} bytes, not {len(counters.FIELDS)} of {sizeof(int64_t)}")
        self.row = <int64_t*>PyMemoryView_GET_BUFFER(self.row_view).buf
        self.handling = self.row + <int>counters.INDEX[FIRST_HANDLING]
        self.ring = self.row + <int>counters.INDEX["ring_noted"]
        self.thread = this_thread()
        self.gate, self.secured, self.names = front.gate, {}, {}
        self.deferred, self.ready, self.routes = deque(), deque(), RouteTable()
        self.departing, self.said = {}, {}
        self.table_room = table_size()
        self.table = <Entry*>reserve(self.table_room * sizeof(Entry))
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")

    def __dealloc__(self):
        cdef int fd
        if self.epoll >= 0:  # nobody called `close`: the descriptors at least
            for fd in range(self.highest + 1):
                if self.table[fd].phase != FREE:
                    os_close(fd)
            os_close(self.epoll)
        if self.table != NULL:
            munmap(self.table, self.table_room * sizeof(Entry))
        if self.v6 != NULL:
            munmap(self.v6, self.table_room * 16)
        if self.meters != NULL:
            munmap(self.meters, self.table_room * sizeof(Meter))
        self.trim_pool()

    # ---- what waits for the next turn

    cdef int wake(self) except -1:
        """Asks the loop for a turn when something waits that epoll does not know of."""
        if not self.scheduled and not self.running and self.epoll >= 0 and (
            self.dirty_count or self.ready or self.deferred or self.unstalled
        ):
            self.scheduled = True
            self.call_soon(self.run)
        return 0

    cdef int make_ready(self, int fd, Entry* e) except -1:
        if not e.flags & READY:
            e.flags |= READY
            self.ready.append((fd, e.id))
            self.wake()
        return 0

    # ---- on its way to another engine

    cdef bint is_open(self, int fd, Entry* e) except -1:
        """Whether it is the app's. One that departs still is."""
        return e.phase == OPEN or e.phase == DEPARTING and self.departing[fd] == OPEN

    cdef bint say_later(self, int fd, Entry* e, tuple said) except -1:
        """Keeps what is said to one that departs. False: it does not."""
        if e.phase != DEPARTING or self.departing[fd] != OPEN:
            return False
        self.said.setdefault(fd, []).append(said)
        return True

    # ---- what epoll is asked for

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

    # ---- connections, as Python sees them

    cdef Connection connection(self, int fd, Entry* e):
        cdef Connection connection
        if e.connection != NULL:
            return <Connection>e.connection
        connection = Connection.__new__(Connection)
        connection.engine = self
        connection.entry = e
        connection.fd = fd
        connection.id = e.id
        connection.resumed = e.flags & RESUMED != 0
        e.connection = <PyObject*>connection
        return connection

    cdef inline uint32_t endpoint(self, Entry* e) noexcept:
        return self.routes.routes[e.route].endpoint

    cdef tuple facts(self, int fd, Entry* e):
        cdef Route* route = &self.routes.routes[e.route]
        return <object>route.path, <object>route.subprotocol, self.address(fd, e)

    cdef object address(self, int fd, Entry* e):
        """See `wire.address`. An IPv4 peer of an IPv6 listener is shown as IPv4."""
        cdef char text[64]
        cdef uint8_t* v6
        if e.flags & V6:
            v6 = self.v6 + 16 * fd
            if v6[:12] == b"\0" * 10 + b"\xff\xff":
                inet_ntop(AF_INET, v6 + 12, text, sizeof(text))
            else:
                inet_ntop(AF_INET6, v6, text, sizeof(text))
        elif e.flags & UNIX:
            return self.names.get(fd, UNNAMED)
        else:
            inet_ntop(AF_INET, &e.ipv4, text, sizeof(text))
        return (<bytes>text).decode(), e.port

    cdef int set_address(self, int fd, Entry* e, object address) except -1:
        """Takes the address a proxy told of. Raises ValueError for what is neither IPv4 nor IPv6 nor text of a Unix socket."""
        cdef uint8_t parsed[16]
        cdef bytes host
        e.flags &= ~(V6 | UNIX)
        e.ipv4, e.port = 0, 0
        self.names.pop(fd, None)
        if isinstance(address, str):
            e.flags |= UNIX
            if address and address != UNNAMED:
                self.names[fd] = address
            return 0
        host, e.port = address[0].encode(), address[1]
        if inet_pton(AF_INET, PyBytes_AS_STRING(host), parsed) == 1:
            memcpy(&e.ipv4, parsed, 4)
        elif inet_pton(AF_INET6, PyBytes_AS_STRING(host), parsed) == 1:
            if self.v6 == NULL:
                self.v6 = <uint8_t*>reserve(self.table_room * 16)
            memcpy(self.v6 + 16 * fd, parsed, 16)
            e.flags |= V6
        else:
            raise ValueError(f"{address[0]!r} is no IP address")
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

    # ---- the end of a row

    cdef int end(self, int fd, Entry* e) except -1:
        """Ends the connection. A child of the app may hold a duplicate of the socket, so that close(2)
        alone would leave the peer waiting: shutdown(2) ends it for all."""
        shutdown(fd, SHUT_RDWR)
        return self.free_row(fd, e)

    cdef int free_row(self, int fd, Entry* e) except -1:
        """Frees the row and closes the descriptor."""
        if self.cork_fd == fd:
            self.cork_fd = -1
            self.cork_size = 0
        if self.gate is not None:
            self.gate.leave(self.address(fd, e))
        if e.flags & SECURE:
            self.secured.pop(fd, None)
        if e.flags & UNIX:
            self.names.pop(fd, None)
        if e.more != NULL:
            self.return_unfinished(e)
        os_close(fd)
        memset(e, 0, sizeof(Entry))
        self.entries -= 1
        return self.descriptor_freed()

    cdef int descriptor_freed(self) except -1:
        """For the engine, which may have run out of them."""
        return 0

    # ---- what a Connection asks for, and the classes above give

    cdef int put(self, int fd, Entry* e, int opcode, const uint8_t* data, size_t size, object owner, bint control) except -1:
        raise NotImplementedError

    cdef size_t queued(self, int fd, Entry* e) noexcept:
        return 0

    cdef object post_send(self, Connection connection, object message, object text):
        raise NotImplementedError

    cdef int close_politely(self, int fd, Entry* e, bytes payload, int code, str reason, object cause) except -1:
        raise NotImplementedError

    cdef int lose(self, int fd, Entry* e, object cause) except -1:
        raise NotImplementedError

    # ---- what a Pipe asks for, and Opening gives

    cdef object tls_of(self, int fd, Entry* e):
        raise NotImplementedError

    cdef bint pipe_write(self, int fd, Entry* e, bytes data) except -1:
        raise NotImplementedError

    cdef int pipe_pause(self, int fd, Entry* e) except -1:
        raise NotImplementedError

    cdef int pipe_resume(self, int fd, Entry* e) except -1:
        raise NotImplementedError

    cdef int pipe_answer(self, int fd, Entry* e, object verdict, bytes data) except -1:
        raise NotImplementedError

    cdef int pipe_restart(self, int fd, Entry* e, bytes data) except -1:
        raise NotImplementedError

    cdef int pipe_close(self, int fd, Entry* e) except -1:
        raise NotImplementedError

    cdef int pipe_abort(self, int fd, Entry* e) except -1:
        raise NotImplementedError
