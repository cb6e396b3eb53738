# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The orders to a load process's connections, and the loop over them.

Nothing of Python runs while the loop turns, and nothing is allocated for a connection that is between messages."""

import os

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, malloc
from libc.string cimport memcpy

from unlimitedws.bench.asking cimport WINDOWS
from unlimitedws.bench.board cimport Row
from unlimitedws.bench.dialling cimport SCAN_MS, Address
from unlimitedws.bench.peers cimport *
from unlimitedws.bench.publishing cimport STAMP
from unlimitedws.engine.codec cimport BINARY, MAX_CONTROL, MAX_HEAD, PING, TEXT
from unlimitedws.engine.kernel cimport *


# glibc has epoll_pwait2 since 2.35 only; the kernel since 5.11. Without it the loop wakes by whole milliseconds.
cdef extern from *:
    """
    #include <sys/syscall.h>
    #include <unistd.h>
    #include <time.h>
    #define UWS_EPOLL_PWAIT2 441
    static long uws_epoll_wait_ns(int epfd, void *events, int most, long long ns)
    {
        static int known = 1;
        if (ns < 0) ns = 0;
        if (known) {
            struct { long long s, ns; } wait = {ns / 1000000000, ns % 1000000000};
            long n = syscall(UWS_EPOLL_PWAIT2, epfd, events, most, &wait, (void *)0, 0);
            if (n >= 0 || errno != ENOSYS) return n;
            known = 0;
        }
        return epoll_wait(epfd, (struct epoll_event *)events, most, (int)((ns + 999999) / 1000000));
    }
    """
    long uws_epoll_wait_ns(int epoll, epoll_event* events, int most, int64_t ns) nogil

cdef extern from *:
    """
    #include <sys/prctl.h>
    static void uws_rest_until(long long ns)
    {
        struct timespec at = {ns / 1000000000, ns % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, (void *)0);
    }
    static int uws_timer_slack(unsigned long ns) { return prctl(PR_SET_TIMERSLACK, ns, 0, 0, 0); }  /* 0: the default */
    """
    void uws_rest_until(int64_t ns) nogil
    int uws_timer_slack(unsigned long ns) nogil

cdef enum:
    EVENTS = 512
    RECEIVE_BYTES = 64 * 1024
    PACK_BYTES = 64 * 1024          # of messages that go out by one send
    READS = 16                      # of one connection before the others have their turn
    # Each look at the sockets costs system calls, and the server a wake-up of this process. In a closed loop on many connections answers are
    # gathered for a part of the time that they take anyway: measured with 100 connections, load and server need 7% less CPU for each message,
    # so that an answer takes less time and not more. The open loop is not delayed: its latencies are exact.
    GATHERED_PART = 8
    LEAST_GATHERED_NS = 10000       # less is not worth the sleep
    MOST_GATHERED_NS = 100000
    FAR_APART_NS = 100000           # of messages of an open loop
    SLACK_NS = 1000                 # of the timer meanwhile: the kernel's usual 50 us would be longer than most of these times

cdef uint64_t CONTROL = <uint64_t>-1

MOST_PIPELINE = 4096
PATTERN_EXTRA = WINDOWS
PEER_BYTES = sizeof(Peer)
MANNERS = {"plain": PLAIN, "slow": SLOW, "tcp": TCP, "request": REQUEST, "silent": SILENT}


cdef class Swarm(Reading):
    # ---- making and giving back

    def __cinit__(self, Row row not None, int size, *, int first_number, list requests, list accepts, bytes offered, list targets,
                  list sources, bytes pattern, size_t message_bytes, int opcode, int pipeline, double timeout_s, int control=-1,
                  int special=0, str manner="plain", size_t slow_bytes=0, double slow_s=0.1, size_t stuff_bytes=0,
                  bytes subscription=b"", bint broadcasts=False, bint publishes=False, int subscribers=0,
                  bint local=False, make_tls=None):
        self.epoll = -1
        if size < 1 or not requests or len(requests) != len(accepts) or len(requests) > 255 or not targets:
            raise ValueError("a swarm needs a peer, a target, and an accept for each of its requests, 255 at most")
        if not 1 <= pipeline <= MOST_PIPELINE or not 0 <= special <= size or opcode not in (TEXT, BINARY, PING):
            raise ValueError("no such pipeline, special or opcode")
        if len(pattern) < message_bytes + WINDOWS or (opcode == PING and message_bytes > MAX_CONTROL):
            raise ValueError("the pattern is too short, or the message too long for its opcode")
        if broadcasts and message_bytes < STAMP:
            raise ValueError(f"a publication has at least {STAMP} bytes")
        self.row, self.sheet, self.count = row, row.sheet, &row.sheet.counters
        self.size, self.first_number, self.special = size, first_number, special
        self.manner, self.slow_bytes, self.slow_ns, self.stuff_bytes = MANNERS[manner], slow_bytes, <int64_t>(slow_s * 1e9), stuff_bytes
        self.opcode, self.message_size, self.pipeline, self.control = opcode, message_bytes, pipeline, control
        self.local = local
        self.make_tls, self.is_secure = make_tls, make_tls is not None
        self.sealed = [None] * size if self.is_secure else []
        self.timeout_ns = <int64_t>(timeout_s * 1e9)
        self.broadcasts, self.publishes, self.subscribers = broadcasts, publishes, subscribers
        self.request_count = len(requests)
        self.keep = [requests, accepts, offered, pattern, subscription]
        self.offered, self.offered_size = offered, len(offered)
        self.pattern = pattern
        self.subscription, self.subscription_size = subscription, len(subscription)
        self.chance = int.from_bytes(os.urandom(8), "little") | 1
        self.take_peers()
        self.times = <int64_t*>calloc(<size_t>size * pipeline, sizeof(int64_t))
        self.queue = <int*>calloc(size, sizeof(int))
        self.scratch_size = max(PACK_BYTES, message_bytes + MAX_HEAD)
        self.scratch = <uint8_t*>malloc(self.scratch_size)
        self.request = <const uint8_t**>calloc(len(requests), sizeof(uint8_t*))
        self.request_size = <size_t*>calloc(len(requests), sizeof(size_t))
        self.accept = <const uint8_t**>calloc(len(requests), sizeof(uint8_t*))
        self.targets = <Address*>calloc(len(targets), sizeof(Address))
        self.sources = <Address*>calloc(max(1, len(sources)), sizeof(Address))
        if (self.times == NULL or self.queue == NULL or self.scratch == NULL or self.request == NULL or self.request_size == NULL
                or self.accept == NULL or self.targets == NULL or self.sources == NULL):
            raise MemoryError
        self.take_words(requests, accepts)
        self.target_count, self.source_count = take_addresses(self.targets, targets), take_addresses(self.sources, sources)
        self.open_loop()

    cdef int take_peers(self) except -1:
        cdef int i
        self.peers = <Peer*>calloc(self.size, sizeof(Peer))
        if self.peers == NULL:
            raise MemoryError
        for i in range(self.size):
            self.peers[i].fd = -1
            self.peers[i].state = GONE
        return 0

    cdef int take_words(self, list requests, list accepts) except -1:
        cdef int i
        for i in range(len(requests)):
            if len(<bytes>accepts[i]) != 28:
                raise ValueError("a Sec-WebSocket-Accept has 28 characters")
            self.request[i], self.request_size[i] = <bytes>requests[i], len(<bytes>requests[i])
            self.accept[i] = <bytes>accepts[i]
        return 0

    cdef int open_loop(self) except -1:
        cdef epoll_event event
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, os.strerror(errno))
        if self.control >= 0:
            event.events, event.data.u64 = EPOLLIN, CONTROL
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.control, &event):
                raise OSError(errno, os.strerror(errno))
        return 0

    def order_done(self):
        self.count.orders += 1

    def close(self):
        cdef int i
        if self.peers == NULL:  # it was never made: its descriptors are no descriptors either
            return
        for i in range(self.size):
            if self.peers[i].fd >= 0:
                self.release(&self.peers[i], True)
        if self.epoll >= 0:
            os_close(self.epoll)
            self.epoll = -1

    def __dealloc__(self):
        self.close()

    # ---- orders

    def dial(self, int first, int end, int inflight, int64_t start_ns=0, double gap_ns=0, bint again=False, bint cycling=False, bint abrupt=False):
        cdef int i
        if not 0 <= first <= end <= self.size or inflight < 1:
            raise ValueError("no such peers")
        self.dial_first, self.dial_end, self.cursor, self.inflight = first, end, first, inflight
        self.dial_start, self.dial_gap, self.dial_number = start_ns, gap_ns, 0
        self.again, self.cycling, self.abrupt, self.waiting = again, cycling, abrupt, 0
        for i in range(first, end):
            if self.peers[i].state == GONE:
                self.peers[i].state = NEW
                self.peers[i].since_ns = 0
            if self.peers[i].state == NEW:
                self.waiting += 1

    def halt(self):
        self.waiting = 0
        self.again = False  # those who are on their way still end themselves, if they were to
        cdef int i
        for i in range(self.size):
            if self.peers[i].state == NEW:
                self.peers[i].state = GONE

    def flood(self):
        cdef int i
        self.flooding, self.paced = True, False
        uws_timer_slack(SLACK_NS)
        self.now = clock_ns()
        with nogil:
            for i in range(self.special, self.size):
                if self.peers[i].state == OPEN:
                    self.refill(&self.peers[i])

    def pace(self, int first, int64_t start_ns, double gap_ns, uint64_t number, uint64_t stride, uint64_t inverse):
        cdef int i
        if not self.special <= first < self.size or gap_ns <= 0:
            raise ValueError("no such peers or pace")
        self.pace_first, self.pace_size = first, self.size - first
        if stride * inverse % <uint64_t>self.pace_size != <uint64_t>(1 % self.pace_size):
            raise ValueError("a stride and its inverse modulo the number of peers, please")
        self.pace_start, self.pace_gap, self.pace_end, self.pace_number = start_ns, gap_ns, number, 0
        self.stride, self.pace_at = <int>(stride % <uint64_t>self.pace_size), 0
        self.queue_at = self.queue_size = 0
        # Where messages are far apart each has its own wake-up anyway, which may as well be exact; elsewhere the kernel's usual 50 us join some.
        uws_timer_slack(SLACK_NS if gap_ns >= FAR_APART_NS else 0)
        self.pacing = self.paced = True
        self.flooding = self.given_up = False
        for i in range(self.size):
            self.peers[i].due = self.peers[i].asked = self.peers[i].answered = 0
            self.peers[i].flags &= ~QUEUED
            if i >= first:
                self.peers[i].rank = <uint32_t>(<uint64_t>(i - first) * inverse % <uint64_t>self.pace_size)

    def publish(self, int64_t start_ns, double gap_ns, int64_t end_ns, int window):
        if not self.publishes:
            raise ValueError("this swarm has no publisher")
        self.publish_start, self.publish_gap, self.publish_end, self.window = start_ns, gap_ns, end_ns, window
        self.publish_number, self.publishing = 0, True

    def probe(self):
        self.now = clock_ns()
        if self.publishes and self.peers[self.size - 1].state == OPEN:
            self.send_publication(self.now, 0)

    def time(self, int64_t from_ns, int64_t to_ns):
        self.measure_from, self.measure_to = from_ns, to_ns

    def rest(self):
        self.flooding = self.pacing = self.publishing = False
        uws_timer_slack(0)

    def give_up(self):
        cdef int i
        self.now = clock_ns()
        self.fall_due()
        self.rest()
        for i in range(self.special, self.size):
            if self.peers[i].state == OPEN:
                self.abandon(&self.peers[i])
        self.given_up = True

    def leave(self, bint abrupt=False):
        cdef int i
        self.rest()
        self.halt()
        self.now = clock_ns()
        with nogil:
            for i in range(self.size):
                if self.peers[i].fd < 0:
                    continue
                if self.peers[i].state == OPEN and not abrupt:
                    self.say_close(&self.peers[i])
                else:
                    self.release(&self.peers[i], True)

    def vanish(self):
        cdef int i
        self.absent_since = self.now = clock_ns()
        with nogil:
            for i in range(self.special, self.size):
                if self.peers[i].fd >= 0:
                    self.release(&self.peers[i], True)

    # ---- the loop

    def turn(self, int64_t until_ns):
        with nogil:
            self.run(until_ns)
        told, self.told = self.told, False
        return told

    cdef void run(self, int64_t until) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef uint8_t buffer[RECEIVE_BYTES]
        cdef uint64_t mark
        cdef Peer* peer
        cdef long n, i
        self.now = clock_ns()
        while self.now < until and not self.told:
            self.wake_ns = until
            self.work()
            if self.flooding:
                self.gather()
            n = uws_epoll_wait_ns(self.epoll, events, EVENTS, self.wake_ns - clock_ns())
            self.now = self.looked_ns = clock_ns()
            for i in range(n):
                mark = events[i].data.u64
                if mark == CONTROL:
                    self.told = True
                    continue
                peer = self.peers + <uint32_t>mark
                if peer.fd >= 0 and peer.generation == <uint8_t>(mark >> 32):
                    self.ready(peer, events[i].events, buffer)

    cdef void gather(self) noexcept nogil:
        """Lets answers come, where there are many on their way."""
        cdef int64_t ns = min(self.usual_ns // GATHERED_PART, MOST_GATHERED_NS)
        if ns >= LEAST_GATHERED_NS and clock_ns() < self.looked_ns + ns:
            uws_rest_until(self.looked_ns + ns)

    cdef void work(self) noexcept nogil:
        """What no socket asks for. The loop wakes again when the next of it is due."""
        if self.waiting:
            self.dial_some()
        if self.pacing:
            self.pace_some()
        if self.publishing:
            self.publish_some()
        if self.count.held and self.manner == SLOW:
            self.read_slowly()
        if self.count.opening or self.count.closing:
            if self.now >= self.scan_ns:
                self.scan_ns = self.now + SCAN_MS * 1000000
                self.scan()
            self.wake(self.scan_ns)

    cdef void ready(self, Peer* peer, uint32_t events, uint8_t* buffer) noexcept nogil:
        if peer.state == CONNECTING:
            self.connected(peer)
            return
        if events & EPOLLOUT and peer.out != NULL and not self.flush(peer):
            return
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.receive_all(peer, buffer, 0)
        elif events & EPOLLIN and not (peer.state == HELD and (self.manner == SLOW or self.manner == SILENT)):
            self.receive_all(peer, buffer, RECEIVE_BYTES)

    cdef void receive_all(self, Peer* peer, uint8_t* buffer, ssize_t enough) noexcept nogil:
        """Takes what has come until there is nothing more. enough: so many bytes or more say that there may be."""
        cdef uint8_t generation = peer.generation
        cdef ssize_t n
        cdef int i
        for i in range(READS):
            n = self.receive(peer, buffer, RECEIVE_BYTES)
            if n <= 0 or n < enough or peer.generation != generation:
                return
        self.watch(peer, EPOLL_CTL_MOD)  # the others' turn; what is left is reported again


cdef int take_addresses(Address* to, list addresses) except -1:
    """Copies packed socket addresses; their number. Raises ValueError."""
    cdef int i
    for i in range(len(addresses)):
        if not isinstance(addresses[i], bytes) or not 2 < len(<bytes>addresses[i]) <= sizeof(sockaddr_storage):
            raise ValueError("no socket address")
        memcpy(&to[i].at, <const uint8_t*><bytes>addresses[i], len(<bytes>addresses[i]))
        to[i].size = <socklen_t>len(<bytes>addresses[i])
    return len(addresses)
