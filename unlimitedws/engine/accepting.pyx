# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Taking new connections: in batches, under a limit, and not at all while descriptors are lacking."""

import os

from libc.errno cimport EAGAIN, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.moving cimport Moving
from unlimitedws.engine.table cimport *

from unlimitedws.engine.tls import Tls
from unlimitedws.wire.closing import Cause

cdef enum:
    ACCEPTS = 64                    # connections accepted for one readiness event
    REPORT_MS = 30000               # between two reports of the same shortage

cdef uint64_t LISTENER = <uint64_t>1 << 63


cdef str unix_name(sockaddr_storage* address, socklen_t size):
    """The path a Unix peer is bound to, "@" and its name for an abstract one, "" for none (unix(7))."""
    cdef bytes name = (<char*>address)[sizeof(address.ss_family):size] if size > sizeof(address.ss_family) else b""
    if name.startswith(b"\0"):
        return "@" + os.fsdecode(name[1:]) if len(name) > 1 else ""
    return os.fsdecode(name.partition(b"\0")[0])


cdef class Accepting(Moving):
    def __init__(self, config, front, row, uint64_t serial, call_soon, call_soon_threadsafe):
        Moving.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        self.listeners = {}
        self.accepting = True
        self.next_id = serial << 40
        self.most_connections = config.max_connections
        self.reported_ms = self.now - REPORT_MS

    def listen(self, int fd, *, proxied=False, tls=None):
        self.thread = this_thread()
        self.listeners[fd] = (PREFACE if proxied else 0, tls)
        if not self.accept_paused:
            self.watch_listener(fd)

    def unlisten(self, int fd):
        if self.listeners.pop(fd, None) is not None:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)

    cdef int watch_listener(self, int fd) except -1:
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = LISTENER | <uint32_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:
            raise OSError(errno, f"cannot watch the listener {fd}")
        return 0

    def stop_listening(self):
        self.accepting = self.accept_paused = False
        for fd in self.listeners:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        self.listeners = {}

    cdef int accept_batch(self, int listener) except -1:
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int i, fd, failed
        cdef uint32_t flags
        flags, tls = self.listeners[listener]
        for i in range(ACCEPTS):
            size = sizeof(address)
            fd = accept4(listener, <sockaddr*>&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                failed = errno
                if failed in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    return self.pause_accepting(failed)
                if failed == EAGAIN:
                    return 0
                if failed == EINVAL:  # its owner has shut it down, and epoll would tell so for ever
                    self.unlisten(listener)
                    return 0
                continue  # the new connection's own trouble: accept(2) passes on errors of its network
            self.row[C_ACCEPTED] += 1
            if <uint64_t>fd >= self.table_room or self.most_connections and self.entries >= self.most_connections:
                self.row[C_REFUSED] += 1
                self.count_close(Cause.LIMIT)
                os_close(fd)
                continue
            self.admit(fd, &address, size, flags, tls)
        return 0

    cdef int admit(self, int fd, sockaddr_storage* address, socklen_t size, uint32_t flags, object tls) except -1:
        cdef Entry* e = &self.table[fd]
        cdef epoll_event event
        self.next_id += 1
        e.id = self.next_id
        event.events = EPOLLIN
        event.data.u64 = (e.id & 0x7FFFFFFF) << 32 | <uint32_t>fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) != 0:  # max_user_watches, or memory
            return self.turn_away(fd, e)
        e.phase = HANDSHAKE
        e.interest = 1
        e.flags = flags
        if address.ss_family == AF_UNIX:
            self.set_address(fd, e, unix_name(address, size))
        e.seen_ms = e.active_ms = self.now
        if address.ss_family == AF_INET:
            e.ipv4 = (<sockaddr_in*>address).sin_addr.s_addr
            e.port = ntohs((<sockaddr_in*>address).sin_port)
        elif address.ss_family == AF_INET6:
            if self.v6 == NULL:
                self.v6 = <uint8_t*>reserve(self.table_room * 16)
            memcpy(self.v6 + 16 * fd, (<sockaddr_in6*>address).sin6_addr.s6_addr, 16)
            e.port = ntohs((<sockaddr_in6*>address).sin6_port)
            e.flags |= V6
        if self.gate is not None and not self.gate.enter(self.address(fd, e)):
            return self.turn_away(fd, e)
        if fd > self.highest:
            self.highest = fd
        self.entries += 1
        self.row[C_PENDING] += 1
        if tls is not None:
            e.flags |= SECURE
            self.secured[fd] = Tls(tls)
        return 0

    cdef int turn_away(self, int fd, Entry* e) except -1:
        """The gate does not want it, or epoll cannot take it: closed at once, before a row is counted."""
        self.row[C_REFUSED] += 1
        self.count_close(Cause.LIMIT)
        self.names.pop(fd, None)
        memset(e, 0, sizeof(Entry))
        os_close(fd)
        return 0

    cdef int pause_accepting(self, int why) except -1:
        """Out of descriptors: leaves the queue to the kernel until some are free, without spinning."""
        self.row[C_PAUSES] += 1
        self.accept_paused = True
        self.paused_ms = self.now
        for fd in self.listeners:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, NULL)
        if <uint32_t>(self.now - self.reported_ms) >= REPORT_MS:
            self.reported_ms = self.now
            self.front.accepting_paused(os.strerror(why))
        return 0

    cdef int resume_accepting(self) except -1:
        self.accept_paused = False
        for fd in self.listeners:
            self.watch_listener(fd)
        return 0

    cdef int descriptor_freed(self) except -1:
        if self.accept_paused and self.accepting:
            return self.resume_accepting()
        return 0
