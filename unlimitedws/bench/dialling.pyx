# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""How connections begin and end."""

from libc.errno cimport EAGAIN, EINPROGRESS, ENOTCONN, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from unlimitedws.bench.answer cimport WELCOME, judge
from unlimitedws.bench.board cimport BIND, CONNECT, SOCKET, record
from unlimitedws.bench.peers cimport *
from unlimitedws.engine.codec cimport CLOSE, TEXT
from unlimitedws.engine.head cimport head_end
from unlimitedws.engine.kernel cimport *


cdef extern from "sys/socket.h" nogil:
    int new_socket "socket"(int family, int kind, int protocol)
    int new_connection "connect"(int fd, const sockaddr* address, socklen_t size)
    int bind_to "bind"(int fd, const sockaddr* address, socklen_t size)
    int setsockopt(int fd, int level, int name, const void* value, socklen_t size)
    enum: SOCK_STREAM, SO_LINGER, SO_RCVBUF

cdef extern from *:
    """
    struct uws_linger { int on, seconds; };
    """
    struct uws_linger:
        int on, seconds

cdef enum:
    IPPROTO_IP = 0
    IPPROTO_TCP = 6
    TCP_NODELAY = 1
    TCP_CONGESTION = 13
    IP_BIND_ADDRESS_NO_PORT = 24
    MOST_RESPONSE = 16 * 1024       # bytes of a response head
    BURST = 256                     # dialled ones before the loop looks at its sockets again
    BACKOFF_MS = 50
    MOST_BACKOFF_MS = 2000
    SLOW_RECEIVE_BYTES = 8 * 1024   # of kernel memory: a small window fills a server's queue soon


cdef class Dialling(Holding):
    def __dealloc__(self):
        free(self.request)
        free(self.request_size)
        free(self.accept)
        free(self.targets)
        free(self.sources)

    cdef void dial_some(self) noexcept nogil:
        cdef int burst
        cdef int64_t due
        cdef Peer* peer
        for burst in range(BURST):
            if self.waiting <= 0 or self.count.opening >= <uint64_t>self.inflight:
                return  # an event will come
            due = self.dial_start + <int64_t>(<double>self.dial_number * self.dial_gap)
            if self.dial_gap > 0 and due > self.now:
                self.wake(due)
                return
            peer = self.next_new()
            if peer == NULL:
                self.wake(self.now + BACKOFF_MS * 1000000 // 5)
                return
            self.dial_number += 1
            self.open(peer, due if self.dial_gap > 0 else clock_ns())
        self.wake(self.now)

    cdef Peer* next_new(self) noexcept nogil:
        cdef int i
        cdef Peer* peer
        for i in range(self.dial_end - self.dial_first):
            if self.cursor >= self.dial_end:
                self.cursor = self.dial_first
            peer = &self.peers[self.cursor]
            self.cursor += 1
            if peer.state == NEW and peer.since_ns <= self.now:
                return peer
        return NULL

    cdef void open(self, Peer* peer, int64_t since) noexcept nogil:
        cdef int number = self.first_number + <int>(peer - self.peers), one = 1, small = SLOW_RECEIVE_BYTES
        cdef Address* source = &self.sources[number % max(1, self.source_count)]
        cdef Address* target = &self.targets[number // max(1, self.source_count) % self.target_count]
        self.waiting -= 1
        self.count.opening += 1
        self.count.dialled += 1
        if self.count.first_ns == 0:
            self.count.first_ns = since
        peer.state, peer.since_ns, peer.touched_ms = CONNECTING, since, clock_ms()
        peer.generation += 1
        peer.key = <uint8_t>(self.random() % <uint64_t>self.request_count)
        peer.fd = new_socket(target.at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if peer.fd < 0:
            self.note(SOCKET)
            self.ended(peer)
            return
        setsockopt(peer.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if self.local:
            # There is no congestion on the way, and no pacing by BBR is to be seen in the latencies.
            setsockopt(peer.fd, IPPROTO_TCP, TCP_CONGESTION, <const char*>b"reno", 4)
        if self.is_special(peer) and self.manner == SLOW:
            setsockopt(peer.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small))
        if self.source_count:
            # The port is chosen when it connects, for that pair of addresses: far more than one range of ports.
            setsockopt(peer.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
            if bind_to(peer.fd, <sockaddr*>&source.at, source.size):
                self.note(BIND)
                self.ended(peer)
                return
        if new_connection(peer.fd, <sockaddr*>&target.at, target.size) and errno != EINPROGRESS:
            self.note(CONNECT)
            self.ended(peer)
            return
        if not self.is_secure and not self.says_half(peer) and not self.ask_to_upgrade(peer):
            return
        self.watch(peer, EPOLL_CTL_ADD)

    cdef bint ask_to_upgrade(self, Peer* peer) noexcept nogil:
        """Over loopback a connection is up when connect returns: an event and a change of what is watched are saved. False: it is gone."""
        cdef size_t size = self.request_size[peer.key]
        cdef ssize_t n = send(peer.fd, self.request[peer.key], size, MSG_NOSIGNAL)
        if n == <ssize_t>size:
            self.count.bytes_out += size
            peer.state = UPGRADING
            return True
        if n < 0 and (errno == EAGAIN or errno == ENOTCONN):
            return True  # `connected` will say it
        self.note(CONNECT)
        self.ended(peer)
        return False

    cdef void connected(self, Peer* peer) noexcept nogil:
        cdef int error = 0
        cdef socklen_t size = sizeof(error)
        getsockopt(peer.fd, SOL_SOCKET, SO_ERROR, &error, &size)
        if error:
            self.note_errno(CONNECT, error)
            self.ended(peer)
            return
        if self.is_secure and not (self.is_special(peer) and self.manner == TCP):
            peer.state = UPGRADING
            self.begin_tls(peer)
        else:
            self.greet(peer)

    cdef bint greet(self, Peer* peer) noexcept nogil:
        if self.says_half(peer):
            record(&self.sheet.connect, self.now - peer.since_ns)
            self.hold(peer)
            return self.manner != REQUEST or self.put(peer, self.request[peer.key], self.request_size[peer.key] // 2)
        peer.state = UPGRADING
        return self.put(peer, self.request[peer.key], self.request_size[peer.key])

    cdef uint8_t* upgrade(self, Peer* peer, uint8_t* at, size_t n) noexcept nogil:
        """Goes on with the response. What follows it; NULL: nothing does, or the connection is gone."""
        cdef uint8_t* head = at
        cdef size_t had = peer.message_at
        cdef Py_ssize_t end
        cdef int verdict
        if had:
            if not self.keep_bytes(peer, at, n):
                return NULL
            head = peer.message
        end = head_end(head, had + n, had)
        if end <= 0:
            if end == 0 and had + n <= MOST_RESPONSE:
                if not had:
                    self.keep_bytes(peer, at, n)
                return NULL
            verdict = -1
        else:
            verdict = judge(head, end, self.accept[peer.key], self.offered, self.offered_size)
        peer.message_at = 0
        if verdict != WELCOME:
            if verdict > 0:
                self.sheet.statuses[verdict] += 1
            else:
                self.count.not_websocket += 1
            self.failed(peer)
            return NULL
        self.opened(peer)
        if peer.fd < 0 or <size_t>end == had + n:
            return NULL
        return at + (<size_t>end - had)

    cdef void opened(self, Peer* peer) noexcept nogil:
        record(&self.sheet.connect, self.now - peer.since_ns)
        if self.absent_since:
            record(&self.sheet.latency, self.now - self.absent_since)
        peer.attempts = 0
        peer.due = peer.asked = peer.answered = 0
        if self.is_special(peer):
            self.hold(peer)
            if self.manner == SLOW:
                self.stuff(peer)
            return
        self.count.opening -= 1
        self.count.opened += 1
        self.count.up += 1
        self.count.last_ns = self.now
        peer.state = OPEN
        if self.cycling:
            self.take_cycle(peer)
            if self.abrupt:
                self.release(peer, True)
            else:
                self.say_close(peer)
        elif self.subscription_size and not (self.publishes and peer == &self.peers[self.size - 1]):
            self.put_frame(peer, TEXT, self.subscription, self.subscription_size)
        elif self.flooding:
            self.refill(peer)

    cdef void take_cycle(self, Peer* peer) noexcept nogil:
        cdef int64_t when = peer.since_ns if self.dial_gap > 0 else self.now
        if self.measure_from <= when < self.measure_to:
            self.count.measured += 1
            record(&self.sheet.latency, self.now - peer.since_ns)

    cdef void ended(self, Peer* peer) noexcept nogil:
        if peer.state == CONNECTING or peer.state == UPGRADING:
            self.failed(peer)
            return
        if peer.state == HELD:
            self.count.cut += 1
            record(&self.sheet.kept, self.now - peer.since_ns)
        elif peer.state == OPEN:
            self.count.lost += 1
        elif peer.state == CLOSING and not peer.flags & CLOSE_SEEN:  # cut instead of answering our Close
            self.count.lost += 1
        self.release(peer, False)

    cdef void failed(self, Peer* peer) noexcept nogil:
        self.count.failed += 1
        if peer.attempts < 16:
            peer.attempts += 1
        self.release(peer, True)

    cdef void release(self, Peer* peer, bint reset) noexcept nogil:
        """Gives back what a peer has. reset: with a RST, so that neither end keeps it in TIME_WAIT."""
        cdef uws_linger linger
        if peer.fd >= 0:
            if reset:
                linger.on, linger.seconds = 1, 0
                setsockopt(peer.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger))
            os_close(peer.fd)
            peer.fd = -1
        if peer.state == CONNECTING or peer.state == UPGRADING:
            self.count.opening -= 1
        elif peer.state == HELD:
            self.count.held -= 1
        elif peer.state == CLOSING:
            self.count.closing -= 1
            self.count.closed += peer.flags & (CLOSE_SEEN | LOST) == CLOSE_SEEN
        elif peer.state == OPEN:
            self.count.up -= 1
            self.abandon(peer)
        if self.is_secure:
            self.forget_tls(peer)
        free(peer.message)
        free(peer.control)
        free(peer.out)
        peer.message = peer.control = peer.out = NULL
        peer.message_room = peer.out_at = peer.out_size = 0
        peer.message_at = peer.frame_left = 0
        peer.flags &= REACHED
        peer.in_frame = peer.head_size = peer.control_size = peer.message_opcode = 0
        if self.again and not self.is_special(peer):
            peer.state = NEW
            peer.since_ns = self.now + self.backoff(peer) if peer.attempts else 0
            self.waiting += 1
        else:
            peer.state = GONE

    cdef int64_t backoff(self, Peer* peer) noexcept nogil:
        """Doubles from attempt to attempt; half of it is chance, so that those who failed together do not come back together."""
        cdef int64_t ms = min(<int64_t>BACKOFF_MS << min(peer.attempts, 8), <int64_t>MOST_BACKOFF_MS)
        return (ms // 2 + <int64_t>(self.random() % <uint64_t>(ms // 2))) * 1000000

    cdef void say_close(self, Peer* peer) noexcept nogil:
        cdef uint8_t code[2]
        self.abandon(peer)
        self.count.up -= 1
        self.count.closing += 1
        peer.state, peer.touched_ms = CLOSING, clock_ms()
        code[0], code[1] = 0x03, 0xE8  # 1000
        self.put_frame(peer, CLOSE, code, 2)

    cdef void scan(self) noexcept nogil:
        """Ends handshakes and closings that take too long."""
        cdef uint32_t now = clock_ms(), most = <uint32_t>(self.timeout_ns // 1000000)
        cdef int i
        cdef Peer* peer
        for i in range(self.size):
            peer = &self.peers[i]
            if peer.state not in (CONNECTING, UPGRADING, CLOSING) or now - peer.touched_ms < most:
                continue
            self.count.timeouts += 1
            if peer.state == CLOSING:
                self.release(peer, True)
            else:
                self.failed(peer)

    cdef void violation(self, Peer* peer) noexcept nogil:
        self.count.protocol_errors += 1
        if peer.state == OPEN:
            self.count.lost += 1
        self.release(peer, True)
