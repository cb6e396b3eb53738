# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The native engine: one epoll set, one flat table, one receive buffer (contract: `contract.py`).

Built in classes that stand on each other, each in a file, so that one calls downwards, or what it declares and
one above gives:

    native.pyx          Engine: turns of the loop, and what the floor above asks for
    reading.pyx         from readiness to bytes, and whose they are; ends of streams
    handling.pyx        messages to their handlers, as long as the connection may go on
    accepting.pyx       listeners, limits, running out of descriptors
    moving.pyx          connections that leave for another engine, and those that come from one
    clock.pyx           the clock hand: deadlines, heartbeats, rates, memory given back
    opening.pyx         how a connection begins: prefaces, TLS, requests, Streams
    ending.pyx          how connections are closed, failed and lost
    broadcasting.pyx    one message to many, packed once
    sender.pyx          how bytes leave: the cork, the queue
    table.pyx           rows of 48 bytes, and what they borrow; output.pyx: what waits; routes.pyx: what rows share

    codec.pyx           bytes to frames, head.pyx: bytes to clean upgrades; they know no descriptor
    connection.pyx      what a handler is given; pipe.pyx: what a Stream is given

Three rules keep it right:

1. A row is freed by `end` alone, and `end` zeroes it. After anything that may run a handler, code
   here compares `entry.id` with the id it knew before it touches the row again.
2. Sending never ends a connection: a broken one is marked, and ended when epoll reports it. So a
   handler can send to anybody without a row vanishing under the caller.
3. Handlers other than on_connect and on_message are never called from inside a handler: they wait
   in `deferred` until the engine is back in its own loop.

Epoll is level-triggered, and an idle connection costs no system call: interest changes only when
reads pause or output waits."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport block_release, blocks_held
from unlimitedws.engine.reading cimport Reading
from unlimitedws.engine.table cimport *

from unlimitedws.engine import counters
from unlimitedws.engine.connection import Connection  # the public name
from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause

cdef enum:
    MAX_BATCHES = 8                 # batches in one turn of the loop, and
    MAX_TURN_MS = 5                 # time after which no further batch is begun


def native_blocks():
    """Output blocks in use in this process, a broadcast log of each engine included. For tests."""
    return blocks_held()


@cython.final
cdef class Engine(Reading):
    """See `contract.Engine`."""

    name = "native"

    def __init__(self, config, front, row, serial, call_soon, call_soon_threadsafe):
        Reading.__init__(self, config, front, row, serial, call_soon, call_soon_threadsafe)
        for number, bound in enumerate(counters.MESSAGE_HANDLING.bounds):
            self.handling_bounds[<int>number] = bound

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
        finally:
            self.leave_turn(False)

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
