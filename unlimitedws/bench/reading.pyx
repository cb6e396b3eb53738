# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What comes from the server: frames, and what they mean here. Nothing is allocated for one that is whole when it comes."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcmp, memcpy

from unlimitedws.bench.answer cimport measure
from unlimitedws.bench.board cimport CODES, RECEIVE
from unlimitedws.bench.peers cimport *
from unlimitedws.engine.codec cimport BINARY, CLOSE, CONTINUATION, MAX_CONTROL, NO_STATUS, PING, PONG, TEXT
from unlimitedws.engine.kernel cimport clock_ms, clock_ns, recv


cdef class Reading(Publishing):
    cdef ssize_t receive(self, Peer* peer, uint8_t* buffer, size_t room) noexcept nogil:
        cdef ssize_t n = recv(peer.fd, buffer, room, 0)
        self.now = clock_ns()
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            self.note(RECEIVE)
            self.ended(peer)
            return -1
        if n == 0:
            if peer.state == UPGRADING and peer.message_at:  # it said something, and that was no response
                self.count.not_websocket += 1
            elif peer.state == UPGRADING:
                self.count.hung_up += 1
            elif not peer.flags & CLOSE_SEEN:
                self.count.eof += 1
            self.ended(peer)
            return -1
        self.count.bytes_in += n
        return n if (self.open_tls(peer, buffer, n) if self.is_secure else self.take(peer, buffer, n)) else -1

    cdef bint take(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        cdef uint8_t* end = at + n
        if peer.state == UPGRADING:
            at = self.upgrade(peer, at, n)
            if at == NULL:
                return peer.fd >= 0
        elif peer.state == HELD and self.says_half(peer):
            self.refused(at, n)
            return True
        if not self.frames(peer, at, end):
            return False
        return self.refill(peer) if self.flooding and peer.state == OPEN else True

    cdef bint frames(self, Peer* peer, uint8_t* at, uint8_t* end) noexcept nogil:
        """Goes through what has come. False: the connection is gone."""
        cdef size_t n
        cdef uint8_t* payload
        while at < end:
            if not peer.in_frame:
                n = self.take_head(peer, at, end)
                if n == 0:
                    return False
                at += n
                if not peer.in_frame:
                    return True
            n = min(<size_t>(end - at), peer.frame_left)
            payload = at
            if peer.opcode >= CLOSE:
                payload = self.take_control(peer, at, n)
                if payload == NULL:
                    return False
            elif not self.take_piece(peer, at, n):
                return False
            at += n
            peer.frame_left -= n
            if peer.frame_left:
                return True
            peer.in_frame = 0
            if peer.opcode >= CLOSE:
                if not self.control_frame(peer, payload):
                    return False
            elif peer.fin and not self.message(peer):
                return False
        return True

    cdef size_t take_head(self, Peer* peer, uint8_t* at, uint8_t* end) noexcept nogil:
        """Bytes of the next frame's head, or what there is of it; 0: the connection is gone."""
        cdef uint64_t length = 0
        cdef uint8_t* head = at
        cdef size_t used = 0
        cdef int size
        if peer.head_size:
            while True:
                size = measure(peer.head, peer.head_size, &length)
                if size != 0 or at + used == end:
                    break
                peer.head[peer.head_size] = at[used]
                peer.head_size += 1
                used += 1
            head = peer.head
        else:
            size = measure(at, end - at, &length)
            used = size if size > 0 else end - at
            if size == 0:
                memcpy(peer.head, at, used)
                peer.head_size = <uint8_t>used
        if size == 0:
            return used
        if size < 0 or not self.may_follow(peer, head[0] & 0x0F):
            self.violation(peer)
            return 0
        peer.opcode, peer.fin = head[0] & 0x0F, head[0] >> 7
        peer.frame_left, peer.in_frame, peer.head_size, peer.control_size = length, 1, 0, 0
        if peer.opcode == TEXT or peer.opcode == BINARY:
            peer.message_opcode, peer.message_at = peer.opcode, 0
            peer.flags &= ~WRONG
        return used

    cdef bint may_follow(self, Peer* peer, int opcode) noexcept nogil:
        # RFC 6455, section 5.4
        return opcode >= CLOSE or (opcode == CONTINUATION) == (peer.message_opcode != 0)

    cdef uint8_t* take_control(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        """A control frame's payload, so far; NULL: out of memory, the connection is gone."""
        if peer.control_size == 0 and n == peer.frame_left:
            peer.control_size = <uint8_t>n
            return at
        if peer.control == NULL:
            peer.control = <uint8_t*>malloc(MAX_CONTROL)
            if peer.control == NULL:
                self.ended(peer)
                return NULL
        memcpy(peer.control + peer.control_size, at, n)
        peer.control_size += <uint8_t>n
        return peer.control

    cdef bint control_frame(self, Peer* peer, uint8_t* payload) noexcept nogil:
        cdef int code = NO_STATUS
        if peer.opcode == PING:
            self.count.pings += 1
            if peer.state == HELD and self.manner == SILENT:
                return True
            return self.put_frame(peer, PONG, payload, peer.control_size)
        if peer.opcode == PONG:
            if self.opcode != PING or peer.state != OPEN or peer.answered == peer.asked:
                return True  # nobody asked, which is allowed (section 5.5.3)
            peer.message_at = peer.control_size
            self.check(peer, peer.control_size == self.message_size
                       and memcmp(payload, self.payload(peer, peer.answered), self.message_size) == 0, PING)
            return True
        if peer.control_size >= 2:
            code = payload[0] << 8 | payload[1]
        peer.flags |= CLOSE_SEEN
        if peer.state == CLOSING:
            return True  # the server ends the connection (section 7.1.1)
        self.sheet.closes[code if 0 <= code < CODES else 0] += 1
        if peer.state == OPEN:
            self.abandon(peer)
            self.count.lost += 1
            self.count.up -= 1
            self.count.closing += 1
            peer.flags |= LOST
            peer.state, peer.touched_ms = CLOSING, clock_ms()
        return self.put_frame(peer, CLOSE, payload, min(peer.control_size, 2))

    cdef bint take_piece(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        """Part of a message. False: out of memory, the connection is gone."""
        if peer.state != OPEN:
            return True
        if self.broadcasts:
            # Kept, whole or not: a message that lies whole in the buffer is the usual case, and its copy is 128 bytes.
            return self.keep_bytes(peer, at, n)
        if peer.message_at + n > self.message_size or peer.answered == peer.asked:
            peer.flags |= WRONG
        elif not peer.flags & WRONG and memcmp(at, self.payload(peer, peer.answered) + peer.message_at, n) != 0:
            peer.flags |= WRONG
        peer.message_at += n
        return True

    cdef bint message(self, Peer* peer) noexcept nogil:
        cdef int opcode = peer.message_opcode
        peer.message_opcode = 0
        if peer.state != OPEN or self.given_up:
            return True
        if self.broadcasts:
            self.publication(peer)
        elif self.opcode == PING or peer.asked == 0:
            self.count.other += 1
        elif peer.answered == peer.asked:
            self.count.unasked += 1
        else:
            self.check(peer, not peer.flags & WRONG, opcode)
        return True
