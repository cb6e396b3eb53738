# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A broadcast: one connection publishes, the others receive.

A publication carries its time and number, found again wherever they lie in what the server makes of it: it may wrap it, as in JSON."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from unlimitedws.bench.board cimport record
from unlimitedws.bench.peers cimport OPEN, REACHED
from unlimitedws.engine.codec cimport pack_head
from unlimitedws.engine.kernel cimport clock_ns


cdef extern from "bytes.h" nogil:
    uint8_t uws_unmask(uint8_t* dst, const uint8_t* src, size_t n, uint32_t mask)

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t n, const void* needle, size_t m)

cdef enum:
    BURST = 256                     # due ones before the loop looks at its sockets again
    MARKER = 6
    SEARCHED = 4096                 # bytes in which the marker is looked for

cdef const char* HEX = b"0123456789abcdef"


cdef class Publishing(Dialling):
    cdef void publish_some(self) noexcept nogil:
        cdef Peer* publisher = &self.peers[self.size - 1]
        cdef int64_t due
        cdef uint64_t everywhere
        cdef int burst
        for burst in range(BURST):
            if publisher.state != OPEN or publisher.out != NULL:
                self.wake(self.now + 1000000)
                return
            if self.publish_gap > 0:
                due = self.publish_start + <int64_t>(<double>self.publish_number * self.publish_gap)
            else:
                everywhere = self.row.delivered_by_all() // <uint64_t>max(1, self.subscribers)
                due = self.now
                if self.publish_number >= everywhere + <uint64_t>self.window:
                    if self.row.rows > 1:
                        self.wake(self.now + 100000)  # deliveries of other processes wake nobody here
                    return
            if due >= self.publish_end:
                self.publishing = False
                return
            if due > self.now:
                self.wake(due)
                return
            self.publish_number += 1
            self.count.published += 1
            if self.publish_gap > 0 and self.measure_from <= due < self.measure_to:
                record(&self.sheet.late, clock_ns() - due)
            self.send_publication(due, self.publish_number)
        self.wake(self.now)

    cdef void send_publication(self, int64_t when, uint64_t number) noexcept nogil:
        cdef uint8_t* frame = self.scratch
        cdef int head = pack_head(frame, self.opcode, self.message_size), i
        cdef uint8_t* at = frame + head + 4
        cdef uint32_t mask = <uint32_t>self.random()
        frame[1] |= 0x80
        memcpy(frame + head, &mask, 4)
        memcpy(at, b"~bench", MARKER)
        for i in range(16):
            at[MARKER + i] = HEX[(<uint64_t>when >> (60 - 4 * i)) & 15]
        for i in range(8):
            at[MARKER + 16 + i] = HEX[(number >> (28 - 4 * i)) & 15]
        memcpy(at + STAMP, self.pattern, self.message_size - STAMP)
        uws_unmask(at, at, self.message_size, mask)
        self.put(&self.peers[self.size - 1], frame, head + 4 + self.message_size)

    cdef void publication(self, Peer* peer) noexcept nogil:
        """A whole message in a broadcast: ours where the marker is in it, wherever; servers may wrap it."""
        cdef const uint8_t* end = peer.message + peer.message_at
        cdef const uint8_t* at = peer.message + self.marker_hint
        cdef uint64_t when = 0, number = 0
        cdef int i
        if self.marker_hint + STAMP > peer.message_at or memcmp(at, b"~bench", MARKER) != 0:
            at = NULL
            if peer.message_at >= STAMP:
                at = <const uint8_t*>memmem(peer.message, min(peer.message_at, SEARCHED), b"~bench", MARKER)
        if at == NULL or end - at < STAMP or (self.publishes and peer == &self.peers[self.size - 1]):
            self.count.other += 1
            return
        self.marker_hint = at - peer.message
        for i in range(16):
            when = when << 4 | digit(at[MARKER + i])
        for i in range(8):
            number = number << 4 | digit(at[MARKER + 16 + i])
        if number == 0:
            if not peer.flags & REACHED:
                peer.flags |= REACHED
                self.count.reached += 1
            return
        if <size_t>(end - at) < self.message_size:
            self.count.wrong_length += 1
        elif memcmp(at + STAMP, self.pattern, self.message_size - STAMP) != 0:
            self.count.wrong_content += 1
        if number <= peer.answered:
            self.count.doubled += 1
            return
        self.count.missing += number - peer.answered - 1
        peer.answered = <uint32_t>number
        peer.due = peer.asked = peer.answered
        self.count.delivered += 1
        if self.measure_from <= <int64_t>when < self.measure_to:
            self.count.measured += 1
            record(&self.sheet.latency, self.now - <int64_t>when)


cdef inline uint64_t digit(uint8_t character) noexcept nogil:
    return character - 48 if character <= 57 else (character | 0x20) - 87
