# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Messages and the answers to them.

- **Every answer is checked.** A message is a window on a pattern, cut where the number of its connection and its own number say: the
  answer to it is compared byte by byte while it comes in, kept nowhere, and a lost, doubled or exchanged one does not fit.
- **The loop is open or closed.** In a closed one (`flooding`) a connection sends its next message when it has its answer, so that a server that
  stalls is asked less: its stalls hardly show. In an open one (`pacing`) the k-th message is due at start + k * gap whatever the server does, and
  its latency counts from then. When it was due follows from its number: nothing has to be remembered, however many are outstanding."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from unlimitedws.bench.board cimport record
from unlimitedws.bench.peers cimport OPEN
from unlimitedws.engine.codec cimport MAX_HEAD

cdef enum:
    BURST = 256                     # due ones before the loop looks at its sockets again


cdef class Asking(Peers):
    def __dealloc__(self):
        free(self.times)

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
        cdef int burst
        cdef int64_t due
        cdef Peer* peer
        for burst in range(BURST):
            if self.pace_number >= self.pace_end:
                self.pacing = False
                return
            due = self.pace_start + <int64_t>(<double>self.pace_number * self.pace_gap)
            if due > self.now:
                self.wake(due)
                return
            peer = self.next_due()
            if peer.state == OPEN:
                self.send_due(peer)
        self.wake(self.now)

    cdef Peer* next_due(self) noexcept nogil:
        """Whose turn it is: one more message of his is due."""
        cdef Peer* peer = &self.peers[self.pace_first + <int>(self.pace_number * self.stride % <uint64_t>self.pace_size)]
        self.pace_number += 1
        self.count.due += 1
        peer.due += 1
        if peer.state != OPEN:  # lost meanwhile: an answer that will not come
            peer.answered = peer.asked = peer.due
            self.count.unanswered += 1
        return peer

    cdef void fall_due(self) noexcept nogil:
        """What this process was too late for as well."""
        while (self.pacing and self.pace_number < self.pace_end
               and self.pace_start + <int64_t>(<double>self.pace_number * self.pace_gap) <= self.now):
            self.next_due()

    cdef int64_t paced_due(self, Peer* peer) noexcept nogil:
        """When the message was due whose answer comes next."""
        cdef uint64_t rank = <uint64_t>(peer - self.peers - self.pace_first) * self.inverse % <uint64_t>self.pace_size
        return self.pace_start + <int64_t>((<double>peer.answered * self.pace_size + rank) * self.pace_gap)

    cdef void abandon(self, Peer* peer) noexcept nogil:
        """Its messages will not be answered any more. In an open loop each of them has waited until now, at least."""
        while peer.answered != peer.due:
            self.count.unanswered += 1
            if self.paced:
                self.take_latency(self.paced_due(peer))
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
            self.take_latency(self.paced_due(peer))
        else:
            self.take_latency(self.times[(peer - self.peers) * self.pipeline + peer.answered % <uint32_t>self.pipeline])
        peer.answered += 1

    cdef void take_latency(self, int64_t since) noexcept nogil:
        """In an open loop the messages count that were due in the measured time, in a closed one those that were answered in it."""
        cdef int64_t when = since if self.paced else self.now
        if self.measure_from <= when < self.measure_to:
            self.count.measured += 1
            record(&self.sheet.latency, self.now - since)
