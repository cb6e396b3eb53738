# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Slow readers and half-open connections: how long a server holds them, and what it says when it does not."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcmp

from unlimitedws.bench.board cimport STATUSES
from unlimitedws.bench.peers cimport HELD, OPEN, REQUEST, SLOW, TCP
from unlimitedws.engine.codec cimport MAX_HEAD


cdef class Holding(Asking):
    cdef bint writable(self, Peer* peer) noexcept nogil:
        if peer.state == HELD and self.manner == SLOW:
            return self.stuff(peer)
        return self.send_due(peer) if peer.state == OPEN else True

    cdef bint says_half(self, Peer* peer) noexcept nogil:
        """Whether this one never sends a whole request."""
        return self.is_special(peer) and (self.manner == TCP or self.manner == REQUEST)

    cdef void hold(self, Peer* peer) noexcept nogil:
        """From now on the server has a connection that does not behave."""
        self.count.opening -= 1
        self.count.opened += 1
        self.count.held += 1
        self.count.last_ns = self.now
        peer.state, peer.since_ns = HELD, self.now

    cdef bint stuff(self, Peer* peer) noexcept nogil:
        """Sends to a server whatever it takes, up to a limit. False: the connection is gone."""
        cdef size_t n
        while peer.out == NULL and <uint64_t>peer.asked * self.message_size < self.stuff_bytes:
            n = 0
            while self.scratch_size - n >= self.message_size + MAX_HEAD and <uint64_t>peer.asked * self.message_size < self.stuff_bytes:
                n += self.pack(self.scratch + n, self.opcode, self.payload(peer, peer.asked), self.message_size)
                peer.asked += 1
            if not self.put(peer, self.scratch, n):
                return False
        return True

    cdef void read_slowly(self) noexcept nogil:
        cdef int i
        if self.slow_bytes == 0:
            return
        if self.now >= self.slow_next:
            self.slow_next = self.now + self.slow_ns
            for i in range(self.special):
                if self.peers[i].state == HELD:
                    self.receive_slowly(&self.peers[i])
        self.wake(self.slow_next)

    cdef void receive_slowly(self, Peer* peer) noexcept nogil:
        cdef uint8_t buffer[4096]
        cdef size_t left = self.slow_bytes
        cdef ssize_t n = 1
        while left and n > 0:
            n = self.receive(peer, buffer, min(left, sizeof(buffer)))
            left -= max(n, 0)

    cdef void refused(self, const uint8_t* p, size_t n) noexcept nogil:
        """A half-open one hears from the server: a status, as 408."""
        cdef int status
        if n >= 12 and memcmp(p, b"HTTP/1.", 7) == 0:
            status = (p[9] - 48) * 100 + (p[10] - 48) * 10 + p[11] - 48
            if 0 <= status < STATUSES:
                self.sheet.statuses[status] += 1
