# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The connections of a load process: their table, and how they send.

A frame's key comes from xorshift64*, seeded by the kernel: what a key protects from is a proxy that reads payload as HTTP, which a load does
not fear; that it is new for each frame is what costs a server its unmasking."""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from unlimitedws.bench.board cimport ERRNOS, SEND
from unlimitedws.engine.codec cimport pack_head
from unlimitedws.engine.kernel cimport *


cdef extern from "bytes.h" nogil:
    uint8_t uws_unmask(uint8_t* dst, const uint8_t* src, size_t n, uint32_t mask)

cdef extern from "sys/epoll.h" nogil:
    enum: EPOLLET

cdef enum:
    MOST_MESSAGE = 1 << 30          # bytes that are kept of one


cdef class Peers:
    def __dealloc__(self):
        free(self.peers)
        free(self.scratch)

    # ---- what the floors above do

    cdef void ended(self, Peer* peer) noexcept nogil:
        """The server or an error has ended it."""

    cdef bint writable(self, Peer* peer) noexcept nogil:
        """The kernel has taken everything. False: the connection is gone."""
        return True

    cdef ssize_t receive(self, Peer* peer, uint8_t* buffer, size_t room) noexcept nogil:
        """Takes what has come, once; how many bytes. 0: nothing is left; -1: the connection is gone."""
        return 0

    # ---- for all of them

    cdef void wake(self, int64_t at) noexcept nogil:
        if at < self.wake_ns:
            self.wake_ns = at

    cdef uint64_t random(self) noexcept nogil:
        self.chance ^= self.chance >> 12
        self.chance ^= self.chance << 25
        self.chance ^= self.chance >> 27
        return self.chance * 0x2545F4914F6CDD1DULL >> 32

    cdef void watch(self, Peer* peer, int operation) noexcept nogil:
        cdef epoll_event event
        cdef uint32_t number = <uint32_t>(peer - self.peers)
        # Edge-triggered: a level-triggered one is looked at twice for each message. `ready` reads until nothing is left.
        event.events = EPOLLIN | EPOLLRDHUP | EPOLLET
        if peer.state == CONNECTING or peer.out != NULL:
            event.events |= EPOLLOUT
        event.data.u64 = <uint64_t>peer.generation << 32 | number
        epoll_ctl(self.epoll, operation, peer.fd, &event)

    cdef bint put(self, Peer* peer, const uint8_t* data, size_t size) noexcept nogil:
        """Sends, and keeps what the kernel does not take. False: the connection is gone."""
        cdef ssize_t n = 0
        cdef uint8_t* room
        if peer.flags & DEAF:
            return True
        if peer.out == NULL:
            n = send(peer.fd, data, size, MSG_NOSIGNAL)
            if n < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.deaf(peer)
                    return True
                n = 0
            self.count.bytes_out += n
            if <size_t>n == size:
                return True
        size -= n
        room = <uint8_t*>realloc(peer.out, peer.out_at + peer.out_size + size)
        if room == NULL:
            self.ended(peer)
            return False
        memcpy(room + peer.out_at + peer.out_size, data + n, size)
        if peer.out == NULL:
            peer.out = room
            self.watch(peer, EPOLL_CTL_MOD)
        peer.out = room
        peer.out_size += <uint32_t>size
        return True

    cdef void deaf(self, Peer* peer) noexcept nogil:
        """It takes nothing any more. Its Close may lie there unread: what is left is read, and then the connection ends."""
        self.note(SEND)
        peer.flags |= DEAF
        free(peer.out)
        peer.out = NULL
        peer.out_at = peer.out_size = 0
        self.watch(peer, EPOLL_CTL_MOD)

    cdef bint flush(self, Peer* peer) noexcept nogil:
        """Goes on with what the kernel did not take, then with what is due. False: the connection is gone."""
        cdef ssize_t n = send(peer.fd, peer.out + peer.out_at, peer.out_size, MSG_NOSIGNAL)
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return True
            self.deaf(peer)
            return True
        self.count.bytes_out += n
        peer.out_at += <uint32_t>n
        peer.out_size -= <uint32_t>n
        if peer.out_size:
            return True
        free(peer.out)
        peer.out = NULL
        peer.out_at = 0
        return self.writable(peer)

    cdef size_t pack(self, uint8_t* to, int opcode, const uint8_t* payload, size_t size) noexcept nogil:
        """A whole masked frame; its bytes, at most size + MAX_HEAD."""
        cdef int head = pack_head(to, opcode, size)
        cdef uint32_t mask = <uint32_t>self.random()
        to[1] |= 0x80
        memcpy(to + head, &mask, 4)
        uws_unmask(to + head + 4, payload, size, mask)
        return head + 4 + size

    cdef bint put_frame(self, Peer* peer, int opcode, const uint8_t* payload, size_t size) noexcept nogil:
        """A frame that fits into the scratch buffer: a control frame, a subscription, a publication."""
        return self.put(peer, self.scratch, self.pack(self.scratch, opcode, payload, size))

    cdef void note(self, Call call) noexcept nogil:
        self.note_errno(call, errno)

    cdef void note_errno(self, Call call, int number) noexcept nogil:
        self.sheet.errnos[<int>call][number if 0 <= number < ERRNOS else 0] += 1

    cdef bint is_special(self, Peer* peer) noexcept nogil:
        return peer - self.peers < self.special

    cdef bint keep_bytes(self, Peer* peer, const uint8_t* at, size_t n) noexcept nogil:
        """Appends to the peer's message. False: the connection is gone."""
        cdef size_t need = peer.message_at + n
        cdef uint8_t* room
        if need > MOST_MESSAGE:
            self.count.protocol_errors += 1
            self.ended(peer)
            return False
        if need > peer.message_room:
            room = <uint8_t*>realloc(peer.message, need + need // 2)
            if room == NULL:
                self.ended(peer)
                return False
            peer.message, peer.message_room = room, <uint32_t>(need + need // 2)
        if n:
            memcpy(peer.message + peer.message_at, at, n)
        peer.message_at = need
        return True
