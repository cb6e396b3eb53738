# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""What has been read: messages to their handlers, one behind the other, as long as the connection may go on."""

from collections import deque

cimport cython
from cpython.ref cimport Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.accepting cimport Accepting
from unlimitedws.engine.codec cimport Event, Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.table cimport *

from unlimitedws.wire.closing import Cause

cdef enum:
    MESSAGES_PER_TURN = 256         # contract.MESSAGES_PER_TURN

cdef dict VIOLATIONS = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


cdef int raise_pending() except -1:
    """Turns an error that C code left pending into an exception of this language."""
    return -1


cdef class Handling(Accepting):
    def __init__(self, config, front, row, serial, call_soon, call_soon_threadsafe):
        Accepting.__init__(self, config, front, row, serial, call_soon, call_soon_threadsafe)
        endpoints = front.endpoints
        self.message_hooks = [endpoint.on_message for endpoint in endpoints]
        self.waiting = [deque() for _ in endpoints]
        self.stalled = [False for _ in endpoints]

    def __dealloc__(self):
        codec.reader_free(&self.reader)

    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1:
        """Handles input, message by message, until it is used up or the connection must wait."""
        cdef uint64_t id = e.id
        cdef Reader* reader = &e.more.reader if e.more != NULL else &self.reader
        cdef Event event
        cdef int kind, delivered, handled = 0
        if self.cork_fd != fd:
            self.begin(fd)
        while at < end:
            if e.phase == LINGER:  # a handler raised
                at = end
                break
            if e.phase == OPEN:
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
                if kind == codec.PONG:
                    e.flags &= ~PONG_DUE
                elif e.phase == OPEN:
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

    @cython.final
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

    cdef int hook_raised(self, Connection connection, str name) except -1:
        try:
            raise_pending()
        except BaseException as error:
            self.handler_error(connection, name, error)
        return 0

    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept:
        """Whether input waits that this turn did not take from: kept while reading from elsewhere."""
        return e.more.input_size != 0 and not e.more.input <= at <= e.more.input + e.more.input_room

    # ---- whether it may go on

    @cython.final
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

    cdef bint is_stalled(self, Entry* e) except -1:
        return self.stalls and self.stalled[self.endpoint(e)]

    cdef int wait_for_room(self, int fd, Entry* e) except -1:
        """Its endpoint's thread queue is full: waits in line."""
        if not e.flags & STALLED:
            e.flags |= STALLED
            self.waiting[self.endpoint(e)].append((fd, e.id))
        return self.read_off(fd, e)
