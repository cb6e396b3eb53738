# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""From readiness to bytes, and whose they are; ends of streams."""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from unlimitedws.engine.accepting cimport is_listener
from unlimitedws.engine.handling cimport Handling
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport *

from unlimitedws.wire.closing import Cause

cdef enum:
    LINGER_BYTES = 1 << 20          # contract.LINGER_BYTES


cdef class Reading(Handling):
    cdef int handle(self, uint64_t data, uint32_t events) except -1:
        """One readiness event: of a listener, or of the descriptor and the id in `data`."""
        cdef int fd = <int>(data & 0x7FFFFFFF)
        cdef Entry* e
        cdef uint64_t id
        if is_listener(data):
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

    cdef int readable(self, int fd, Entry* e) except -1:
        """Reads once, one receive buffer at most: what is left in the kernel has its turn in the next batch."""
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
        """As `take`, of ciphertext."""
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

    # ---- ends

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
