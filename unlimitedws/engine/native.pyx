# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The native engine: one epoll set, one flat table, one receive buffer (contract: `contract.py`).

Built in three steps, each a file: `Table` (rows and their memory), `Sender` (how bytes leave) and
`Engine` here (accepting, the handshake, frames in, closing, the clock hand).

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
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.codec cimport Event, Reader, Request
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport block_release, blocks_held, output_copy, pool_trim
from unlimitedws.engine.sender cimport Range, Sender
from unlimitedws.engine.table cimport *

from unlimitedws.engine.connection import Connection  # the public name
from unlimitedws.engine.contract import Refusal
from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause, Close
from unlimitedws.wire.handshake import too_large

cdef enum:
    MAX_BATCHES = 8                 # batches in one turn of the loop, and
    MAX_TURN_MS = 5                 # time after which no further batch is begun
    ACCEPTS = 64                    # connections accepted for one readiness event
    MESSAGES_PER_TURN = 256         # contract.MESSAGES_PER_TURN
    LINGER_MS = 2000                # contract.LINGER_S
    LINGER_BYTES = 1 << 20          # contract.LINGER_BYTES
    LAGGED_MS = 1000                # a clock tick so late means: the loop stood still, not the peers
    ACCEPT_RETRY_MS = 1000
    TICKS_PER_S = 8                 # contract.TICKS_PER_S
    REPORT_MS = 30000               # between two reports of the same shortage

cdef uint64_t LISTENER = <uint64_t>1 << 63

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


def native_blocks():
    """Output blocks in use in this process, a broadcast log of each engine included. For tests."""
    return blocks_held()


cdef uint32_t milliseconds(object seconds) except? 0xFFFFFFFF:
    return <uint32_t>min(seconds * 1000, 0x7FFFFFFF)


cdef int raise_pending() except -1:
    """Turns an error that C code left pending into an exception of this language."""
    return -1


@cython.final
cdef class Engine(Sender):
    """See `contract.Engine`."""

    name = "native"

    def __init__(self, config, front, row, uint64_t serial, call_soon, call_soon_threadsafe):
        Sender.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        endpoints = front.endpoints
        self.connect_hooks = [endpoint.on_connect for endpoint in endpoints]
        self.message_hooks = [endpoint.on_message for endpoint in endpoints]
        self.close_hooks = [endpoint.on_close for endpoint in endpoints]
        self.waiting = [deque() for _ in endpoints]
        self.stalled = [False for _ in endpoints]
        self.ending, self.listeners = set(), []
        self.accepting = True
        self.next_id = serial << 40
        self.take_limits(config)
        # Half a request head is put in front of what is read next.
        self.buffer = <uint8_t*>malloc(self.receive_bytes + self.head_bytes)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)
        codec.reader_free(&self.reader)

    cdef int take_limits(self, config) except -1:
        self.receive_bytes, self.head_bytes = config.receive_bytes, config.head_bytes
        self.message_limit = config.message_bytes
        self.handshake_ms = milliseconds(config.handshake_timeout_s)
        self.ping_ms, self.pong_ms = milliseconds(config.ping_interval_s), milliseconds(config.ping_timeout_s)
        self.close_ms, self.idle_ms = milliseconds(config.close_timeout_s), milliseconds(config.idle_timeout_s)
        self.most_connections = config.max_connections
        self.now = self.last_tick = clock_ms()
        self.reported_ms = self.now - REPORT_MS
        return 0

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

    cdef int descriptor_freed(self) except -1:
        if self.accept_paused and self.accepting:
            return self.resume_accepting()
        return 0

    # ---- reading

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
        cdef object payload = None, hook = None
        cdef Connection connection = None
        if self.cork_fd != fd:
            self.begin(fd)
        while True:
            kind = codec.next_event(reader, &at, end, self.message_limit, &event)
            if kind == codec.NEED_MORE:
                break
            if kind == codec.TEXT or kind == codec.BINARY:
                self.row[C_MESSAGES_IN] += 1
                payload = codec.take_payload(kind, &event, payload)
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
        # Called by hand: a try block would save and restore the exception state around every message.
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
            self.detach(fd, e, code, reason, Cause.PEER_CLOSED, True)
        else:
            self.detach_closing(fd, e, True)
        self.linger(fd, e)
        if last:  # nothing follows a Close, so nothing unread can turn our end into a reset
            e.flags |= FINAL
        return 0

    cdef int detach_closing(self, int fd, Entry* e, bint clean) except -1:
        """`detach` with the Close that was begun here."""
        close = <object>e.more.close
        return self.detach(fd, e, close.code, close.reason, close.cause, clean)

    cdef int fail_connection(self, int fd, Entry* e, int code, object cause) except -1:
        """They broke the protocol, or a handler raised: says so, and reads on only to throw away."""
        if e.phase == OPEN:
            payload = closing.pack_close(code)
            self.put(fd, e, codec.CLOSE, <uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), None, True)
            self.detach(fd, e, code, "", cause, False)
        elif e.phase == CLOSING:
            self.detach_closing(fd, e, False)
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
            self.detach(fd, e, 1006, "", cause, False)
        elif e.phase == CLOSING:
            self.detach_closing(fd, e, False)
        return self.end(fd, e)

    cdef int detach(self, int fd, Entry* e, int code, str reason, object cause, bint clean) except -1:
        """Parts the Connection from its row; on_close follows when no handler runs."""
        cdef Connection connection = None
        cdef object hook = self.close_hooks[self.endpoint(e)]
        self.row[C_OPEN] -= 1
        self.row[C_CLOSES + <int>CAUSE_NUMBER[cause]] += 1
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
        close = Close(code, reason, cause, clean)
        if connection.holds:
            connection.ending = ("on_close", hook, connection, close)
            self.ending.add(connection)
        else:
            self.deferred.append(("on_close", hook, connection, close))
            self.wake()
        return 0

    cdef int too_slow(self, int fd, Entry* e) except -1:
        return self.close_politely(fd, e, closing.pack_close(1013, "too slow"), 1013, "too slow", Cause.SLOW_CONSUMER)

    # ---- holding and stalling

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

    # ---- all connections

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
            e.seen_ms = self.now - self.ping_ms
            e.flags |= PINGED
            if e.more == NULL or e.more.output.bytes == 0:  # else what waits is the question already
                self.begin(fd)  # sent from the cork: a crowd's Pings never wait in memory together
                self.put(fd, e, codec.PING, b"", 0, None, True)
                return self.finish(fd, e)
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
