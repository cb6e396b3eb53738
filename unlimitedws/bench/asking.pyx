# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Messages and the answers to them.

- **Every answer is checked.** A message is a window on a pattern, cut where the number of its connection and its own number say: the
  answer to it is compared byte by byte while it comes in, kept nowhere, and a lost, doubled or exchanged one does not fit.
- **The loop is open or closed.** In a closed one (`flooding`) a connection sends its next message when it has its answer, so that a server that
  stalls is asked less: its stalls hardly show. In an open one (`pacing`) the k-th message is due at start + k * gap whatever the server does, and
  its latency counts from then. When it was due follows from its number: nothing has to be remembered, however many are outstanding."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free

from unlimitedws.bench.board cimport record
from unlimitedws.bench.peers cimport OPEN, QUEUED
from unlimitedws.engine.codec cimport MAX_HEAD
from unlimitedws.engine.kernel cimport clock_ns

cdef enum:
    BURST = 256                     # of those who send before the loop looks at its sockets again


cdef class Asking(Sealing):
    def __dealloc__(self):
        free(self.times)
        free(self.queue)

    cdef const uint8_t* payload(self, Peer* peer, uint32_t number) noexcept nogil:
        """Message `number` of this peer."""
        cdef uint32_t who = <uint32_t>(self.first_number + (peer - self.peers))
        return self.pattern + ((number * 2654435761U ^ who * 2246822519U) >> 16) % WINDOWS

    cdef bint refill(self, Peer* peer) noexcept nogil:
        """The closed loop: as many in flight as the pipeline is long."""
        cdef uint32_t due = peer.answered + <uint32_t>self.pipeline
        self.count.due += <uint32_t>(due - peer.due)
        peer.due = due
        return self.send_due(peer)

    cdef bint send_due(self, Peer* peer) noexcept nogil:
        """Sends the messages that are due, as long as the kernel takes them. False: the connection is gone."""
        cdef size_t n
        while peer.asked != peer.due and peer.out == NULL:
            n = 0
            while peer.asked != peer.due and self.scratch_size - n >= self.message_size + MAX_HEAD:
                n += self.pack(self.scratch + n, self.opcode, self.payload(peer, peer.asked), self.message_size)
                if not self.paced:
                    self.times[(peer - self.peers) * self.pipeline + peer.asked % <uint32_t>self.pipeline] = self.now
                peer.asked += 1
                self.count.asked += 1
            if not self.put(peer, self.scratch, n):
                return False
        return True

    cdef void pace_some(self) noexcept nogil:
        """Sends what is due. What has become due for one peer meanwhile goes out together: a load that is late catches up so."""
        cdef int burst
        cdef Peer* peer
        self.fall_due()
        for burst in range(BURST):
            if not self.queue_size:
                break
            peer = &self.peers[self.queue[self.queue_at]]
            self.queue_at = self.queue_at + 1 if self.queue_at + 1 < self.size else 0
            self.queue_size -= 1
            peer.flags &= ~QUEUED
            if peer.state == OPEN:
                self.send_late(peer)
        if self.queue_size:
            self.wake(self.now)
        elif self.pace_number < self.pace_end:
            self.wake(self.next_due_at())
        else:
            self.pacing = False

    cdef void send_late(self, Peer* peer) noexcept nogil:
        """Sends what is due, and counts how late this program is with it: not where it is the kernel that takes no more."""
        cdef int64_t due
        if peer.out == NULL:
            due = self.due_at(peer, peer.asked)
            if self.measure_from <= due < self.measure_to:
                record(&self.sheet.late, clock_ns() - due)
        self.send_due(peer)

    cdef int64_t next_due_at(self) noexcept nogil:
        return self.pace_start + <int64_t>(<double>self.pace_number * self.pace_gap)

    cdef void fall_due(self) noexcept nogil:
        """Takes note of everything that is due by now."""
        while self.pacing and self.pace_number < self.pace_end and self.next_due_at() <= self.now:
            self.next_due()

    cdef void next_due(self) noexcept nogil:
        """One more message is due of him whose turn it is."""
        cdef int number = self.pace_first + self.pace_at
        cdef Peer* peer = &self.peers[number]
        self.pace_at += self.stride
        if self.pace_at >= self.pace_size:
            self.pace_at -= self.pace_size
        self.pace_number += 1
        self.count.due += 1
        peer.due += 1
        if peer.state != OPEN:  # lost meanwhile: an answer that will not come
            peer.answered = peer.asked = peer.due
            self.count.unanswered += 1
        elif not peer.flags & QUEUED:
            peer.flags |= QUEUED
            self.queue[(self.queue_at + self.queue_size) % self.size] = number
            self.queue_size += 1

    cdef int64_t due_at(self, Peer* peer, uint32_t number) noexcept nogil:
        """When this message of the peer was due, in the open loop."""
        return self.pace_start + <int64_t>((<double>number * self.pace_size + peer.rank) * self.pace_gap)

    cdef void abandon(self, Peer* peer) noexcept nogil:
        """Its messages will not be answered any more. In an open loop each of them has waited until now, at least."""
        while peer.answered != peer.due:
            self.count.unanswered += 1
            if self.paced:
                self.take_latency(self.due_at(peer, peer.answered))
            peer.answered += 1
        peer.asked = peer.due

    cdef void check(self, Peer* peer, bint fits, int opcode) noexcept nogil:
        """Takes an answer for the oldest message that has none."""
        if peer.message_at != self.message_size:
            self.count.wrong_length += 1
        elif not fits:
            self.count.wrong_content += 1
        elif opcode != self.opcode:
            self.count.wrong_opcode += 1
        else:
            self.count.answered += 1
        if self.paced:
            self.take_latency(self.due_at(peer, peer.answered))
        else:
            self.take_latency(self.times[(peer - self.peers) * self.pipeline + peer.answered % <uint32_t>self.pipeline])
        peer.answered += 1

    cdef void take_latency(self, int64_t since) noexcept nogil:
        """In an open loop the messages count that were due in the measured time, in a closed one those that were answered in it."""
        cdef int64_t when = since if self.paced else self.now
        self.usual_ns += (self.now - since - self.usual_ns) >> 6
        if self.measure_from <= when < self.measure_to:
            self.count.measured += 1
            record(&self.sheet.latency, self.now - since)
