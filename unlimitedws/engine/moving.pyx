# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Connections that outlive this engine: their rows given to another, and rows taken over from one.

A connection on its way out is frozen: epoll does not tell of it, what is said to it is kept (said.py), its row and what it
borrowed stay as they are, until the other side has it (`departed`) or will not have it (`stay`)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.clock cimport Clock
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport Segment
from unlimitedws.engine.table cimport *

from unlimitedws.engine.moved import Meter as MovedMeter
from unlimitedws.engine.moved import Moved, Tokens
from unlimitedws.engine.said import say_again
from unlimitedws.wire import closing, frames
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.frames import Begun, Frame, pack_frame, unmask
from unlimitedws.wire.replay import replay, rotated


cdef uint32_t back_ms(uint32_t now, double seconds) noexcept:
    """The time so many seconds ago."""
    return now - <uint32_t>min(seconds * 1000, <double>0x7FFFFFFF)


cdef class Moving(Clock):
    # ---- out

    def depart(self, long at_most, *, objects=False, but=()):
        cdef int fd
        cdef Entry* e
        cdef list found = []
        self.now = clock_ms()
        while self.dirty_count:
            self.flush_dirty()
        self.settle()  # an on_drain that was due: it may send more, or hold its connection
        for fd in range(self.departing_hand, self.highest + 1):
            e = &self.table[fd]
            if not self.may_depart(fd, e) or but and fd in but:
                continue
            if len(found) >= at_most:
                self.departing_hand = fd
                break
            moved = self.moved(fd, e)
            connection = self.connection(fd, e) if e.phase == OPEN and (objects or e.connection != NULL) else None
            found.append((fd, moved, connection))
            self.departing[fd] = e.phase
            e.phase = DEPARTING
            e.flags &= ~(READY | STALLED)
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
            e.interest = 0
        else:
            self.departing_hand = 0
        return found

    def held(self):
        cdef int fd
        cdef Entry* e
        cdef long count = 0
        for fd in range(self.highest + 1):
            e = &self.table[fd]
            count += e.phase == STREAM or e.phase == OPEN and e.flags & (HELD | DIRTY) != 0 and not e.flags & SECURE
        return count

    cdef bint may_depart(self, int fd, Entry* e):
        if e.flags & (HELD | DIRTY | SECURE | BROKEN | PREFACE):
            return False
        if e.phase == HANDSHAKE:
            return not e.flags & ANSWERED and (e.more == NULL or e.more.output.bytes == 0)
        return e.phase == OPEN and fd not in self.contexts

    cdef object moved(self, int fd, Entry* e):
        cdef uint32_t seen = self.now - e.seen_ms, active = self.now - e.active_ms
        cdef Meter* meter
        address = self.address(fd, e)
        if e.phase == HANDSHAKE:
            return Moved(e.id, None, None, None, address, seen / 1000.0, active / 1000.0, None, self.unread(e))
        path, subprotocol = <object>self.routes.routes[e.route].path, <object>self.routes.routes[e.route].subprotocol
        deflate = <object>self.routes.routes[e.route].deflate
        pinged = max(<int>(seen - self.ping_ms), 0) / 1000.0 if e.flags & PINGED else None
        if e.more == NULL and self.meters == NULL and not e.flags & RANGED:
            return Moved(e.id, path, subprotocol, deflate, address, seen / 1000.0, active / 1000.0, pinged)
        metered = tokens = None
        if self.meters != NULL:
            meter = &self.meters[fd]
            metered = MovedMeter(meter.bytes_in, meter.bytes_out, <uint32_t>(self.now - meter.opened_ms) / 1000.0)
            if self.rated:
                self.refill(meter)
                tokens = Tokens(meter.messages, meter.bytes)
        output = self.unsent(fd, e)
        return Moved(
            e.id, path, subprotocol, deflate, address, seen / 1000.0, active / 1000.0, pinged,
            self.unread(e), output, e.flags & OVER != 0, metered, tokens,
        )

    cdef bytes unread(self, Entry* e):
        """What was read and not handled, from the beginning of the message it belongs to."""
        cdef Unfinished* more = e.more
        cdef codec.Reader* r
        if more == NULL:
            return b""
        r = &more.reader
        rest = (more.input + more.input_start)[:more.input_size] if more.input_size else b""
        if codec.reader_clean(r):
            return rest
        message = frame = None
        if r.message_opcode:
            payload = r.message[:r.message_size] if r.message_size else b""
            message = Begun(r.message_opcode, r.compressed != 0, payload)
        if r.in_frame:
            key = (<uint8_t*>&r.mask)[:4]
            first = r.fin << 7 | r.opcode
            if r.opcode >= codec.CLOSE:
                key = rotated(key, -<int>r.control_size)
                rest = unmask((<uint8_t*>r.control)[:r.control_size], key) + rest
                frame = Frame(first, r.control_size + r.frame_left, key)
            else:
                frame = Frame(first, r.frame_left, key)
        return replay(message, frame, (<uint8_t*>r.head)[:r.head_size] + rest)

    cdef bytes unsent(self, int fd, Entry* e):
        """What waits to be written; a Pong that waited for its turn behind it."""
        cdef uint32_t i
        cdef Segment* segment
        cdef list parts = []
        self.settle_range(fd, e)
        if e.more == NULL or e.more.output.bytes == 0:
            return b""
        for i in range(e.more.output.count):
            segment = &e.more.output.segments[(e.more.output.first + i) & (e.more.output.room - 1)]
            parts.append(segment.data[:segment.size])
        if e.more.pong_waits:
            parts.append(pack_frame(frames.PONG, (<uint8_t*>e.more.pong)[:e.more.pong_size]))
        return b"".join(parts)

    def departed(self, fds):
        cdef int fd
        cdef Entry* e
        cdef dict said = {}
        for fd in fds:
            e = &self.table[fd]
            if fd in self.said:
                said[e.id] = self.said.pop(fd)
            self.go(fd, e)
        return said

    cdef int go(self, int fd, Entry* e) except -1:
        """Another engine has it. The descriptor is closed, the connection is not ended."""
        cdef Connection connection
        if self.departing.pop(fd) == HANDSHAKE:
            self.row[C_PENDING] -= 1
            return self.free_row(fd, e)
        self.row[C_OPEN] -= 1
        if e.connection != NULL:
            connection = <Connection>e.connection
            connection.facts = self.facts(fd, e)
            connection.entry = NULL
            e.connection = NULL
            if e.flags & PINNED:
                Py_DECREF(connection)
        self.routes.release(e.route)
        return self.free_row(fd, e)

    def stay(self, fds, *, resumed=()):
        cdef int fd
        cdef Entry* e
        cdef epoll_event event
        for fd in fds:
            e = &self.table[fd]
            e.phase = self.departing.pop(fd)
            said = self.said.pop(fd, None)
            if fd in resumed:
                e.flags |= RESUMED
                if e.connection != NULL:
                    (<Connection>e.connection).resumed = True
            event.events = EPOLLIN
            event.data.u64 = (e.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
                self.lose(fd, e, Cause.NETWORK_ERROR)
                continue
            e.interest = 1
            self.make_dirty(fd, e)
            self.make_ready(fd, e)
            if said is not None:
                say_again(self, self.connection(fd, e), said)

    # ---- in

    def adopt(self, int fd, moved, uint32_t endpoint):
        cdef Entry* e
        cdef epoll_event event
        if <uint64_t>fd >= self.table_room:
            raise OSError(errno, f"descriptor {fd} is over the limit")
        e = &self.table[fd]
        self.now = clock_ms()
        try:
            self.set_address(fd, e, moved.address)
            event.events = EPOLLIN
            event.data.u64 = (<uint64_t>moved.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
                raise OSError(errno, "epoll cannot watch one more connection")
        except BaseException:
            self.names.pop(fd, None)
            memset(e, 0, sizeof(Entry))
            raise
        e.id = moved.id
        e.interest = 1
        if self.gate is not None:
            self.gate.take_over(moved.address)
        if fd > self.highest:
            self.highest = fd
        self.entries += 1
        e.seen_ms, e.active_ms = back_ms(self.now, moved.seen_s), back_ms(self.now, moved.active_s)
        if moved.path is None:
            e.phase = HANDSHAKE
            self.row[C_PENDING] += 1
        else:
            e.route = self.routes.add(moved.path, endpoint, moved.subprotocol, moved.deflate, None)
            self.routes.routes[e.route].users += 1
            e.phase = OPEN
            e.flags |= RESUMED
            if moved.deflate is not None:
                e.flags |= DEFLATE
            self.row[C_OPEN] += 1
            if moved.pinged_s is not None and self.ping_ms:
                e.flags |= PINGED | PONG_DUE
                e.seen_ms = back_ms(self.now, moved.pinged_s) - self.ping_ms
        self.settle_in(fd, e, moved)

    cdef int settle_in(self, int fd, Entry* e, object moved) except -1:
        """What it brings that is unfinished."""
        cdef Meter* meter
        cdef bytes unread = moved.input, output = moved.output
        cdef uint8_t* at
        if self.meters != NULL and e.phase == OPEN:
            self.start_meter(fd, 0, 0)
            meter = &self.meters[fd]
            if moved.meter is not None:
                meter.bytes_in, meter.bytes_out = moved.meter.bytes_in, moved.meter.bytes_out
                meter.opened_ms = back_ms(self.now, moved.meter.opened_s)
            if moved.tokens is not None:
                meter.messages, meter.bytes = moved.tokens.messages, moved.tokens.bytes
                if self.rated and (meter.messages < 0 or meter.bytes < 0):
                    e.flags |= THROTTLED
        if output:
            self.enqueue(e, <uint8_t*>PyBytes_AS_STRING(output), PyBytes_GET_SIZE(output))
            self.make_dirty(fd, e)
            if moved.is_over:
                e.flags |= OVER
        if unread:
            at = <uint8_t*>PyBytes_AS_STRING(unread)
            self.keep_input(e, at, at + PyBytes_GET_SIZE(unread))
            self.make_ready(fd, e)
        return self.read_off(fd, e) if e.flags & (OVER | THROTTLED) else 0

    def connection_at(self, int fd):
        return self.connection(fd, &self.table[fd]) if self.is_open(fd, &self.table[fd]) else None

    def part_with(self, Connection connection not None):
        if connection.entry != NULL:
            payload = closing.pack_close(1012, "state was lost")
            self.close_politely(connection.fd, connection.entry, payload, 1012, "state was lost", Cause.NOT_RESUMED)
