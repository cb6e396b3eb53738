# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""How connections end: politely, for a fault, or without ceremony; and what is called when they have."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from unlimitedws.engine cimport codec
from unlimitedws.engine.broadcasting cimport Broadcasting
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport *

from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause, Close

cdef object PEER_CLOSED = Cause.PEER_CLOSED  # the usual one; CPython 3.11 finds a member of an Enum by calls of Python
cdef dict CAUSE_NUMBER = {cause: number for number, cause in enumerate(Cause)}


cdef class Ending(Broadcasting):
    def __init__(self, config, front, row, call_soon, call_soon_threadsafe):
        Broadcasting.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        self.close_hooks = [endpoint.on_close for endpoint in front.endpoints]
        self.ending = set()

    cdef int count_close(self, object cause) except -1:
        self.row[C_CLOSES + <int>CAUSE_NUMBER[cause]] += 1
        return 0

    cdef int note_close(self, Entry* e, int code, object cause) except -1:
        """Keeps it among the last closes: `closes.note`."""
        cdef int64_t* place = self.ring + 1 + 2 * (self.ring[0] % RING_CLOSES)
        place[0] = <int64_t>e.id
        place[1] = <int64_t>(<uint64_t>self.now << 32 | <uint64_t>code << 16 | <uint64_t><int>CAUSE_NUMBER[cause])
        self.ring[0] += 1
        return self.count_close(cause)

    # ---- what waits until no handler is on the stack

    cdef int run_deferred(self) except -1:
        """Calls on_close and on_drain, and what a Stream has to hear, now that no handler is on the stack."""
        while self.deferred:
            name, hook, connection, argument = self.deferred.popleft()
            try:
                if connection is None:
                    self.tell(name, hook, argument)
                elif name == "on_close":
                    hook(connection, argument)
                else:
                    hook(connection)
            except BaseException as error:
                self.handler_error(connection, name, error)
        return 0

    cdef int tell(self, str name, object call, Pipe pipe) except -1:
        """Calls `drained` or `lost` of a Stream."""
        if name == "drained" and not pipe.is_streaming():
            return 0
        try:
            call()
        except BaseException as error:
            self.stream_error(error)
            if pipe.is_streaming():
                self.lose(pipe.fd, pipe.entry, Cause.HANDLER_ERROR)
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

    # ---- by the rules

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
            self.detach(fd, e, code, reason, PEER_CLOSED, True)
        else:
            self.detach_closing(fd, e, True)
        self.linger(fd, e)
        # Nothing follows a Close but the Pong to a Ping that crossed it (section 5.5.2). Unread, that would turn our end into a reset,
        # and with it a Close that the network dropped would not be sent again.
        if last and not e.flags & PONG_DUE:
            e.flags |= FINAL
        return 0

    cdef int detach_closing(self, int fd, Entry* e, bint clean) except -1:
        """`detach` with the Close that was begun here."""
        close = <object>e.more.close
        return self.detach(fd, e, close.code, close.reason, close.cause, clean)

    cdef int too_slow(self, int fd, Entry* e) except -1:
        return self.close_politely(fd, e, closing.pack_close(1013, "too slow"), 1013, "too slow", Cause.SLOW_CONSUMER)

    # ---- for a fault

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
        self.note_interrupt(error)
        self.front.handler_failed(connection, hook, error)
        if connection.entry != NULL:
            self.fail_connection(connection.fd, connection.entry, 1011, Cause.HANDLER_ERROR)
            self.settle_lingering(connection.fd)
        return 0

    cdef int stream_error(self, object error) except -1:
        self.note_interrupt(error)
        self.front.stream_failed(error)
        return 0

    cdef int note_interrupt(self, object error) except -1:
        """A KeyboardInterrupt is the program's: `run` raises it once everything is in order."""
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        return 0

    cdef int settle_lingering(self, int fd) except -1:
        """A failing that came from outside the connection's own turn: its output leaves with the others'."""
        if self.cork_fd != fd:
            self.make_dirty(fd, &self.table[fd])
        return 0

    # ---- the rest of it

    cdef int linger(self, int fd, Entry* e) except -1:
        """Nothing more to say: what waits is sent, what comes is thrown away."""
        cdef Unfinished* more = self.unfinished(e)
        e.phase = LINGER
        e.active_ms = self.now
        e.flags &= ~(PAUSED | PINGED | HALF_CLOSED)
        more.thrown_away = 0
        more.input_size = 0
        return self.read_on(fd, e)

    cdef int lose(self, int fd, Entry* e, object cause) except -1:
        """The end without ceremony."""
        if e.phase == HANDSHAKE:
            self.handshake_lost(e, cause)
        elif e.phase == STREAM:
            self.part(e)
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
        self.note_close(e, code, cause)
        if self.logs_access:
            self.offer(fd, e)  # so that the last words count
        if self.contexts:
            self.contexts.pop(fd, None)
        if e.connection != NULL or hook is not None or self.logs_access:
            connection = self.connection(fd, e)
            connection.facts = self.facts(fd, e)
            connection.entry = NULL
            e.connection = NULL
            if e.flags & PINNED:
                e.flags &= ~PINNED
                Py_DECREF(connection)
        self.routes.release(e.route)
        if hook is None and not self.logs_access:
            return 0
        close = Close(code, reason, cause, clean)
        if self.logs_access:
            self.log_access(fd, connection, close)
        if hook is None:
            return 0
        if connection.holds:
            connection.ending = ("on_close", hook, connection, close)
            self.ending.add(connection)
        else:
            self.deferred.append(("on_close", hook, connection, close))
            self.wake()
        return 0

    cdef int offer(self, int fd, Entry* e) except -1:
        """Gives the kernel what waits for it, of a connection that may be at work."""
        if self.cork_fd == fd:
            return self.uncork(fd, e)
        if e.more != NULL and e.more.output.bytes and not e.interest & 4:
            return self.flush(fd, e)
        return 0

    cdef int log_access(self, int fd, Connection connection, object close) except -1:
        cdef Meter* meter = &self.meters[fd]
        self.front.ended(connection, close, meter.bytes_in, max(<int64_t>0, meter.bytes_out), <uint32_t>(self.now - meter.opened_ms) / 1000.0)
        return 0

    # ---- what never became a WebSocket

    cdef int handshake_over(self, object cause) except -1:
        """Counts a request that did not become a WebSocket."""
        self.row[C_PENDING] -= 1
        self.row[C_HTTP if cause is Cause.HTTP_ANSWERED else C_FAILURES] += 1
        return self.count_close(cause)

    cdef int handshake_lost(self, Entry* e, object cause) except -1:
        """The end before a whole request; no failure where one was answered and nothing of a next has come."""
        if not e.flags & ANSWERED or e.more != NULL and e.more.input_size:
            return self.handshake_over(cause)
        self.row[C_PENDING] -= 1
        return self.count_close(Cause.HTTP_ANSWERED)

    cdef int answered_over(self, int fd, Entry* e) except -1:
        """They asked all they will, and were answered; the end of the last answer may still wait."""
        self.handshake_lost(e, Cause.HTTP_ANSWERED)
        self.linger(fd, e)
        return self.settle_lingering(fd)

    cdef int part(self, Entry* e) except -1:
        """Parts a Stream from its connection; `lost` follows when no handler runs."""
        cdef Pipe pipe = <Pipe>e.more.pipe
        e.more.pipe = NULL
        e.phase = HANDSHAKE
        e.flags &= ~(HELD | OVER)
        self.deferred.append(("lost", pipe.stream.lost, None, pipe))
        pipe.address = self.address(pipe.fd, e)
        pipe.entry = NULL
        pipe.stream = None
        Py_DECREF(pipe)
        self.wake()
        return 0
