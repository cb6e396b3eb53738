# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The native engine: one epoll set, one flat table, one receive buffer (contract: `contract.py`).

Built in steps that stand on each other, each a file: `Table` (rows and their memory), `Sender` (how bytes
leave), `Ending` (how connections end), `Opening` (requests and what comes of them), `Clock` (deadlines) and
`Engine` here (turns of the loop, accepting, frames in, holding).

Three rules keep it right:

1. A row is freed by `end` alone, and `end` zeroes it. After anything that may run a handler, code
   here compares `entry.id` with the id it knew before it touches the row again.
2. Sending never ends a connection: a broken one is marked, and ended when epoll reports it. So a
   handler can send to anybody without a row vanishing under the caller.
3. Handlers other than on_connect and on_message are never called from inside a handler: they wait
   in `deferred` until the engine is back in its own loop.

Epoll is level-triggered, and an idle connection costs no system call: interest changes only when
reads pause or output waits."""

import os
from collections import deque

cimport cython
from cpython.ref cimport Py_XDECREF, PyObject
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPIPE, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.codec cimport Event, Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.moving cimport Moving
from unlimitedws.engine.output cimport block_release, blocks_held
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport *

from unlimitedws.engine import counters
from unlimitedws.engine.connection import Connection  # the public name
from unlimitedws.engine.tls import Tls
from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause

cdef enum:
    MAX_BATCHES = 8                 # batches in one turn of the loop, and
    MAX_TURN_MS = 5                 # time after which no further batch is begun
    ACCEPTS = 64                    # connections accepted for one readiness event
    MESSAGES_PER_TURN = 256         # contract.MESSAGES_PER_TURN
    LINGER_BYTES = 1 << 20          # contract.LINGER_BYTES
    REPORT_MS = 30000               # between two reports of the same shortage

cdef uint64_t LISTENER = <uint64_t>1 << 63

cdef dict VIOLATIONS = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


def native_blocks():
    """Output blocks in use in this process, a broadcast log of each engine included. For tests."""
    return blocks_held()


cdef int raise_pending() except -1:
    """Turns an error that C code left pending into an exception of this language."""
    return -1


cdef str unix_name(sockaddr_storage* address, socklen_t size):
    """The path a Unix peer is bound to, "@" and its name for an abstract one, "" for none (unix(7))."""
    cdef bytes name = (<char*>address)[sizeof(address.ss_family):size] if size > sizeof(address.ss_family) else b""
    if name.startswith(b"\0"):
        return "@" + os.fsdecode(name[1:]) if len(name) > 1 else ""
    return os.fsdecode(name.partition(b"\0")[0])


@cython.final
cdef class Engine(Moving):
    """See `contract.Engine`."""

    name = "native"

    def __init__(self, config, front, row, uint64_t serial, call_soon, call_soon_threadsafe):
        Moving.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        endpoints = front.endpoints
        self.message_hooks = [endpoint.on_message for endpoint in endpoints]
        self.waiting = [deque() for _ in endpoints]
        self.stalled = [False for _ in endpoints]
        self.listeners = {}
        self.accepting = True
        self.next_id = serial << 40
        self.message_limit = config.message_bytes
        self.most_connections = config.max_connections
        self.reported_ms = self.now - REPORT_MS
        for number, bound in enumerate(counters.MESSAGE_HANDLING.bounds):
            self.handling_bounds[<int>number] = bound

    def __dealloc__(self):
        codec.reader_free(&self.reader)

    # ---- turns of the loop

    def fileno(self):
        return self.epoll

    def run(self):
        cdef int i, n, batch
        cdef uint32_t began
        cdef int64_t began_ns, handled
        if self.running or self.epoll < 0:
            return
        self.thread = this_thread()
        self.running = True
        self.scheduled = False
        began_ns = clock_ns()
        self.now = began = <uint32_t>(began_ns // 1000000)
        handled = self.row[C_MESSAGES_IN]
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
            self.note_handling(began_ns, self.row[C_MESSAGES_IN] - handled)
            self.wake()
        if self.interrupt is not None:
            error, self.interrupt = self.interrupt, None
            raise error

    cdef void note_handling(self, int64_t began_ns, int64_t handled) noexcept:
        """Counts the messages of a turn in `counters.MESSAGE_HANDLING`, each with an equal part of its time: a clock
        for every message would cost as much as handling it."""
        cdef int64_t each
        cdef int i = 0
        if handled == 0:
            return
        each = (clock_ns() - began_ns) // handled
        while i < HANDLING_BOUNDS and each > self.handling_bounds[i]:
            i += 1
        self.handling[i] += handled
        self.handling[HANDLING_BOUNDS + 1] += each * handled

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
            if e.flags & PAUSED and may_pause(e):
                self.readable_while_paused(fd, e, events)
            elif events & (EPOLLHUP | EPOLLERR) and self.has_said_all(e):
                self.gone(fd, e)
            else:
                self.readable(fd, e)
        if self.deferred:
            self.run_deferred()
        return 0

    cdef bint has_said_all(self, Entry* e) noexcept:
        """Whether they ended their side before, so that reading would only give that end once more."""
        return e.phase == STREAM and (<Pipe>e.more.pipe).has_ended or e.phase == LINGER and e.flags & HALF_CLOSED != 0

    cdef int gone(self, int fd, Entry* e) except -1:
        """They had ended their side, and now the connection is over."""
        cdef int failed = 0
        cdef socklen_t size = sizeof(failed)
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &size)
        if failed == ECONNRESET or failed == EPIPE or e.flags & BROKEN:
            return self.lose(fd, e, Cause.PEER_RESET)
        return self.lose(fd, e, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

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

    # ---- accepting

    def listen(self, int fd, *, proxied=False, tls=None):
        self.thread = this_thread()
        self.listeners[fd] = (PREFACE if proxied else 0, tls)
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
        self.listeners = {}

    cdef int accept_batch(self, int listener) except -1:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int i, fd, failed
        cdef uint32_t flags
        flags, tls = self.listeners[listener]
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
                self.count_close(Cause.LIMIT)
                os_close(fd)
                continue
            self.admit(fd, &address, size, flags, tls)
        return 0

    cdef int admit(self, int fd, sockaddr_storage* address, socklen_t size, uint32_t flags, object tls) except -1:
        cdef Entry* e = &self.table[fd]
        cdef epoll_event event
        self.next_id += 1
        e.id = self.next_id
        event.events = EPOLLIN
        event.data.u64 = (e.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:  # max_user_watches, or memory
            return self.turn_away(fd, e)
        e.phase = HANDSHAKE
        e.interest = 1
        e.flags = flags
        if address.ss_family == AF_UNIX:
            self.set_address(fd, e, unix_name(address, size))
        e.seen_ms = e.active_ms = self.now
        if address.ss_family == AF_INET:
            e.ipv4 = (<sockaddr_in*>address).sin_addr.s_addr
            e.port = ntohs((<sockaddr_in*>address).sin_port)
        elif address.ss_family == AF_INET6:
            if self.v6 == NULL:
                self.v6 = <uint8_t*>reserve(self.table_room * 16)
            memcpy(self.v6 + 16 * fd, (<sockaddr_in6*>address).sin6_addr.s6_addr, 16)
            e.port = ntohs((<sockaddr_in6*>address).sin6_port)
            e.flags |= V6
        if self.gate is not None and not self.gate.enter(self.address(fd, e)):
            return self.turn_away(fd, e)
        if fd > self.highest:
            self.highest = fd
        self.entries += 1
        self.row[C_PENDING] += 1
        if tls is not None:
            e.flags |= SECURE
            self.secured[fd] = Tls(tls)
        return 0

    cdef int turn_away(self, int fd, Entry* e) except -1:
        """The gate does not want it, or epoll cannot take it: closed at once, before a row is counted."""
        self.row[C_REFUSED] += 1
        self.count_close(Cause.LIMIT)
        self.names.pop(fd, None)
        memset(e, 0, sizeof(Entry))
        os_close(fd)
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
        if e.flags & (PREFACE | SECURE):
            return self.read_preface(fd, e, kept + n) if e.flags & PREFACE else self.take_secure(fd, e, kept, n)
        return self.take(fd, e, kept, n)

    cdef int take(self, int fd, Entry* e, size_t kept, size_t n) except -1:
        """Input for whoever the connection belongs to: `n` bytes in the buffer, behind what was kept."""
        if e.phase == HANDSHAKE:
            if e.flags & ANSWERED and kept == 0:
                e.active_ms = self.now  # the deadline of a request begins with it
            return self.read_head(fd, e, kept + n, kept)
        if e.phase == STREAM:
            return self.feed(fd, e, self.buffer[:n])
        if self.meters != NULL:
            self.meter_input(fd, e, n)
        return self.consume(fd, e, self.buffer, self.buffer + n)

    cdef int take_secure(self, int fd, Entry* e, size_t kept, size_t n) except -1:
        cdef uint64_t id = e.id
        cdef ssize_t plain
        tls = self.secured[fd]
        if tls.object is None and self.gate is not None and not self.gate.secure(self.address(fd, e)):
            return self.lose(fd, e, Cause.SHED)
        plain = self.open_tls(fd, e, kept, n)
        if plain < 0:
            return 0
        if plain > 0:
            self.take(fd, e, kept, plain)
        if tls.has_ended and e.id == id and e.phase != LINGER:
            return self.stream_ended(fd, e, 0)
        return 0

    cdef int meter_input(self, int fd, Entry* e, size_t n) except -1:
        self.meters[fd].bytes_in += n
        if self.rated and e.phase == OPEN:
            if self.cork_fd != fd:
                self.begin(fd)
            self.charge(fd, e, 0, n)
        return 0

    cdef int readable_while_paused(self, int fd, Entry* e, uint32_t events) except -1:
        """Input for a connection that must wait: leave it in the kernel, but notice the end."""
        if e.flags & WAITING == READY:
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

    cdef int peer_left(self, int fd, Entry* e, int failed) except -1:
        """In LINGER: they said all they will. What waits for them still leaves, unless they are gone altogether."""
        if failed or e.flags & (BROKEN | HALF_CLOSED) or e.more == NULL or e.more.output.bytes == 0:
            return self.end(fd, e)
        e.flags |= HALF_CLOSED
        return self.ask(fd, e, e.interest & 4)

    cdef int stream_ended(self, int fd, Entry* e, int failed) except -1:
        """recv gave nothing more. failed: an errno, or 0 for the end of the stream."""
        if e.phase == LINGER:
            return self.peer_left(fd, e, failed)
        if e.phase == STREAM and failed == 0 and not e.flags & BROKEN:
            return 0 if (<Pipe>e.more.pipe).has_ended else self.stream_half_closed(fd, e)
        if e.phase == HANDSHAKE and failed == 0 and e.flags & ANSWERED and (e.more == NULL or e.more.input_size == 0):
            return self.answered_over(fd, e)
        if failed == 0 and e.flags & BROKEN or failed in (ECONNRESET, EPIPE):
            return self.lose(fd, e, Cause.PEER_RESET)
        return self.lose(fd, e, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

    # ---- frames

    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1:
        """Handles input, message by message, until it is used up or the connection must wait."""
        cdef uint64_t id = e.id
        cdef Reader* reader = &e.more.reader if e.more != NULL else &self.reader
        cdef Event event
        cdef int kind, delivered, handled = 0
        if self.cork_fd != fd:
            self.begin(fd)
        while True:
            if e.phase == LINGER:  # a handler raised
                at = end
                break
            if e.phase == OPEN and at < end:
                if self.must_wait(fd, e, handled):
                    self.keep_input(e, at, end)
                    break
                delivered = self.consume_short(fd, e, reader, &at, end, MESSAGES_PER_TURN - handled)
                if e.id != id:
                    return self.finish_gone()
                if delivered:
                    handled += delivered
                    continue
            kind = codec.next_event(reader, &at, end, self.message_limit, e.flags & DEFLATE != 0, &event)
            if kind == codec.NEED_MORE:
                break
            if kind == codec.TEXT or kind == codec.BINARY:
                handled += 1
                if self.take_message(fd, e, reader, kind, &event):
                    if e.id != id:
                        return self.finish_gone()
                    continue
                kind = codec.VIOLATION
            if kind == codec.PING or kind == codec.PONG:
                handled += 1  # a flood of them has its turns, like one of messages
                count_control(e)
                if e.phase == OPEN and kind == codec.PING:
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

    cdef int consume_short(self, int fd, Entry* e, Reader* reader, uint8_t** at, uint8_t* end, int most) except -1:
        """Delivers the usual input, short whole messages one behind the other; how many.

        Leaves to the general way what is anything else, and stops at whatever `must_wait` may have to look at."""
        cdef uint64_t id = e.id
        cdef Event event
        cdef uint8_t* next = at[0]  # here, and not where the caller sees it: so it stays in a register
        cdef int kind, handled = 0
        cdef object hook = self.message_hooks[self.endpoint(e)]
        cdef vectorcallfunc call = NULL
        cdef Connection connection = None
        cdef PyObject* payload = NULL
        cdef PyObject* arguments[3]
        cdef PyObject* result
        if hook is None:
            return 0
        try:
            while handled < most:
                kind = codec.short_message(reader, &next, end, self.message_limit, &event)
                if kind == codec.NEED_MORE:
                    break
                if kind == codec.BINARY:
                    codec.uws_bytes(&payload, event.data, event.size, event.mask)
                elif not codec.uws_ascii(&payload, event.data, event.size, event.mask):
                    break
                at[0] = next
                if call == NULL:
                    connection = self.connection(fd, e)  # one for all of them
                    call = PyVectorcall_Function(hook)
                    if call == NULL:
                        call = PyObject_Vectorcall
                    e.active_ms = self.now
                handled += 1
                # Called by hand: a try block would save and restore the exception state around every message.
                arguments[1], arguments[2] = <PyObject*>connection, payload
                result = call(<PyObject*>hook, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL)
                if result == NULL:
                    self.hook_raised(connection, "on_message")
                Py_XDECREF(result)
                if self.rated and e.id == id and e.phase == OPEN:
                    self.charge(fd, e, 1, 0)
                if e.id != id or e.phase != OPEN or e.flags & (HELD | OVER | THROTTLED) or self.stalls:
                    break
        finally:
            Py_XDECREF(payload)
            self.row[C_MESSAGES_IN] += handled
        return handled

    cdef bint take_message(self, int fd, Entry* e, Reader* reader, int kind, Event* event) except -1:
        """Any message: large, compressed, of several fragments, or not wanted any more. False: not what it should be."""
        cdef object payload = None
        self.row[C_MESSAGES_IN] += 1
        event.code = 1007
        if not event.compressed:
            payload = codec.take_payload(kind, event)
        elif e.phase == OPEN:  # else it may be rubbish, and nobody wants it
            payload = self.inflated(fd, e, kind, event)
        if event.assembled:
            codec.message_taken(reader)
        if e.phase != OPEN:
            return payload is not None or event.compressed
        if payload is None:
            return False
        e.active_ms = self.now
        self.deliver(fd, e, payload)
        return True

    cdef int deliver(self, int fd, Entry* e, object payload) except -1:
        cdef uint64_t id = e.id
        cdef Connection connection
        hook = self.message_hooks[self.endpoint(e)]
        if hook is not None:
            connection = self.connection(fd, e)
            try:
                hook(connection, payload)
            except BaseException as error:
                self.handler_error(connection, "on_message", error)
        if self.rated and e.id == id and e.phase == OPEN:
            self.charge(fd, e, 1, 0)
        return 0
    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept:
        """Whether input waits that this turn did not take from: kept while reading from elsewhere."""
        return e.more.input_size != 0 and not e.more.input <= at <= e.more.input + e.more.input_room

    cdef bint must_wait(self, int fd, Entry* e, int handled) except -1:
        """With input at hand: whether it has to wait."""
        if e.flags & (HELD | OVER | THROTTLED):
            return True
        if self.stalls and self.stalled[self.endpoint(e)]:
            self.wait_for_room(fd, e)
            return True
        if handled >= MESSAGES_PER_TURN:
            self.make_ready(fd, e)
            return True
        return False

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
        if e.flags & WAITING and may_pause(e):
            return 0
        if e.phase == STREAM:
            return self.feed_kept(fd, e)
        if e.phase == HANDSHAKE:
            return self.look_again(fd, e)
        if self.stalls and e.phase == OPEN and self.stalled[self.endpoint(e)]:
            return self.wait_for_room(fd, e)
        if e.more != NULL and e.more.input_size:
            at = e.more.input + e.more.input_start
            self.consume(fd, e, at, at + e.more.input_size)
            if e.id != id:
                return 0
        if e.phase == OPEN and e.flags & PAUSED:
            return 0
        return self.read_on(fd, e)

    # ---- closing

    cdef int look_again(self, int fd, Entry* e) except -1:
        """A request, or a part of one, came before its turn."""
        cdef uint64_t id = e.id
        cdef size_t kept
        if e.more != NULL and e.more.input_size:
            kept = e.more.input_size
            memcpy(self.buffer, e.more.input + e.more.input_start, kept)
            self.drop_input(e.more)
            self.read_head(fd, e, kept, 0)
            if e.id != id or e.phase != HANDSHAKE:
                return 0
        return self.read_on(fd, e)

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

    def expire(self, Connection connection not None):
        if connection.entry != NULL and not self.say_later(connection.fd, connection.entry, ("expire",)):
            payload = closing.pack_close(1008, "expired")
            self.close_politely(connection.fd, connection.entry, payload, 1008, "expired", Cause.EXPIRED)

    cdef bint is_stalled(self, Entry* e) except -1:
        return self.stalls and self.stalled[self.endpoint(e)]

    cdef int wait_for_room(self, int fd, Entry* e) except -1:
        """Its endpoint's thread queue is full: waits in line."""
        if not e.flags & STALLED:
            e.flags |= STALLED
            self.waiting[self.endpoint(e)].append((fd, e.id))
        return self.read_off(fd, e)

    # ---- all connections

    def connections(self):
        cdef int fd
        return [self.connection(fd, &self.table[fd]) for fd in range(self.highest + 1) if self.is_open(fd, &self.table[fd])]

    def page(self, int start, int at_most):
        cdef int fd
        cdef list found = []
        for fd in range(max(0, start), self.highest + 1):
            if self.is_open(fd, &self.table[fd]):
                if len(found) >= at_most:
                    return found, fd
                found.append(self.connection(fd, &self.table[fd]))
        return found, None

    def find(self, uint64_t id):
        cdef int fd
        for fd in range(self.highest + 1):
            if self.table[fd].id == id and self.is_open(fd, &self.table[fd]):
                return self.connection(fd, &self.table[fd])
        return None

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
        self.stay(list(self.departing))
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
