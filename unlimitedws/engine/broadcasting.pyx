# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""One message to many. It is packed once into a log; a connection notes two numbers, the stretch of the log that it has
still to get, and several broadcasts of one turn make one stretch. It leaves straight from the log, and what the kernel does
not take shares its memory."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from unlimitedws.engine cimport codec
from unlimitedws.engine.connection cimport Connection, check_message, message_bytes
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport block_new, block_release, output_share
from unlimitedws.engine.sender cimport Range, Sender
from unlimitedws.engine.table cimport *

cdef enum:
    LOG_BYTES = 256 * 1024


cdef class Broadcasting(Sender):
    def __dealloc__(self):
        if self.log != NULL:
            block_release(self.log)

    def broadcast(self, message, connections=None, *, text=None, departing=True):
        cdef bytes payload
        cdef int fd, reached
        cdef long count = 0, later = 0
        cdef uint32_t start, size
        cdef Entry* e
        if this_thread() != self.thread:
            raise RuntimeError("broadcast belongs to the worker's own thread; use loop.call_soon_threadsafe")
        check_message(message, text)
        opcode = codec.TEXT if (isinstance(message, str) if text is None else text) else codec.BINARY
        payload = message_bytes(message)
        self.deflating = [] if <size_t>PyBytes_GET_SIZE(payload) >= self.deflate_threshold else None
        self.log_frame(opcode, payload, &start, &size)
        said = ("send", message if isinstance(message, str) else payload, text)
        if connections is None:
            for fd in range(self.highest + 1):
                e = &self.table[fd]
                if e.phase == OPEN:
                    count += self.publish(fd, e, start, size)
                elif e.phase == DEPARTING and departing and self.say_later(fd, e, said):
                    later += 1
        else:
            for connection in connections:
                reached = self.publish_to(connection, start, size, said)
                if reached == 2:
                    later += 1
                else:
                    count += reached
        deflating, self.deflating = self.deflating, None
        self.row[C_MESSAGES_OUT] += count
        if deflating:
            count += self.broadcast_deflated(opcode, payload, deflating)
        if count == 0 and self.dirty_count == 0:
            self.rewind_log()
        return count + later

    cdef long broadcast_deflated(self, int opcode, bytes payload, list descriptors) except -1:
        """The part of a broadcast that goes to those who agreed on compression: packed once for each window."""
        cdef long count = 0, reached
        cdef uint32_t start, size
        cdef int fd
        cdef bytes packed
        groups = {}
        for fd in descriptors:
            terms = self.terms(&self.table[fd])
            if terms.server_takeover:
                count += self.broadcast_to(fd, opcode, payload)
            else:
                groups.setdefault(terms.server_bits, []).append(fd)
        for bits, members in groups.items():
            packed = self.compressor(bits).compress(payload)
            if PyBytes_GET_SIZE(packed) < PyBytes_GET_SIZE(payload):
                self.log_frame(opcode | codec.RSV1, packed, &start, &size)
            else:
                self.log_frame(opcode, payload, &start, &size)
            reached = 0
            for fd in members:
                reached += self.publish(fd, &self.table[fd], start, size)
            self.row[C_MESSAGES_OUT] += reached
            count += reached
        return count

    cdef long broadcast_to(self, int fd, int opcode, bytes payload) except -1:
        """To one with context takeover, whose compressed messages are like nobody's. Whether it was queued."""
        cdef int64_t before = self.row[C_MESSAGES_OUT]
        self.put(fd, &self.table[fd], opcode, <uint8_t*>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), payload, False)
        return self.row[C_MESSAGES_OUT] - before

    cdef int publish_to(self, object connection, uint32_t start, uint32_t size, tuple said) except -1:
        """1: it was queued. 2: it is kept, since the connection departs. 0: it was dropped, or the connection is over."""
        cdef Connection peer
        if type(connection) is not Connection:
            raise TypeError(f"broadcast needs connections of this worker, not {type(connection).__name__}")
        peer = <Connection>connection
        if peer.entry == NULL or peer.entry.phase != OPEN:
            return 2 if peer.entry != NULL and peer.engine is self and self.say_later(peer.fd, peer.entry, said) else 0
        if peer.engine is not self:
            raise ValueError("broadcast needs connections of this worker; this one is another's")
        return self.publish(peer.fd, peer.entry, start, size)

    cdef int log_frame(self, int opcode, bytes payload, uint32_t* start, uint32_t* size) except -1:
        """Packs a frame once, behind those of this turn; where it lies in the log."""
        cdef uint8_t head[10]
        cdef size_t length = PyBytes_GET_SIZE(payload)
        cdef int head_size = codec.pack_head(head, opcode, length)
        if length > <size_t>1 << 31:
            raise ValueError("a broadcast of more than 2 GiB")
        if self.log != NULL and self.log.room - self.log.size < head_size + length:
            self.new_log()
        if self.log == NULL:
            if self.ranges == NULL:
                self.ranges = <Range*>reserve(self.table_room * sizeof(Range))
            self.log = block_new(max(<size_t>LOG_BYTES, head_size + length))
            if self.log == NULL:
                raise MemoryError
        start[0] = <uint32_t>self.log.size
        size[0] = <uint32_t>(head_size + length)
        memcpy(self.log.data + self.log.size, head, head_size)
        memcpy(self.log.data + self.log.size + head_size, PyBytes_AS_STRING(payload), length)
        self.log.size += size[0]
        return 0

    cdef int new_log(self) except -1:
        """The log is full: what is still to be sent from it shares its memory."""
        cdef size_t i
        cdef int fd
        for i in range(self.dirty_count):
            fd = self.dirty[i]
            if self.table[fd].flags & RANGED:
                self.settle_range(fd, &self.table[fd])
        block_release(self.log)
        self.log = NULL
        return 0

    cdef int rewind_log(self) except -1:
        """The turn is over: the log is used again, unless slow peers still share it or it grew."""
        if self.log == NULL:
            return 0
        if self.log.refs == 1 and self.log.room <= LOG_BYTES:
            self.log.size = 0
        else:
            block_release(self.log)
            self.log = NULL
        return 0

    cdef bint publish(self, int fd, Entry* e, uint32_t start, uint32_t size) except -1:
        """Queues a frame of the log for one connection: in the usual case two numbers."""
        cdef Range* r
        cdef size_t waiting
        if e.flags & BROKEN:
            return False
        if e.flags & DEFLATE and self.deflating is not None:
            self.deflating.append(fd)  # its turn comes when the frame has been compressed
            return False
        waiting = self.waiting_bytes(fd, e)
        if waiting and waiting + size > self.queue_limit and not self.makes_room(fd, e, size):
            return False
        if e.flags & SECURE:
            self.queue_cork(fd, e)
            self.queue_plain(fd, e, self.log.data + start, size)
            self.make_dirty(fd, e)
            self.under_high_water(fd, e)
            return True
        if self.cork_fd == fd and self.cork_size or e.more != NULL and e.more.output.bytes:
            self.settle_range(fd, e)
            self.queue_cork(fd, e)
            self.share_log(e, start, size)
            self.under_high_water(fd, e)
        else:
            r = &self.ranges[fd]
            if e.flags & RANGED and r.end != start:
                self.settle_range(fd, e)
                self.share_log(e, start, size)
            elif e.flags & RANGED:
                r.end += size
            else:
                r.start, r.end = start, start + size
                e.flags |= RANGED
        self.make_dirty(fd, e)
        return True

    cdef ssize_t flush_range(self, int fd, Entry* e) except -2:
        """Sends a stretch of the broadcast log, straight from the log; the rest shares its memory."""
        cdef Range* r = &self.ranges[fd]
        cdef ssize_t n
        cdef size_t size = r.end - r.start
        if e.more != NULL and e.more.output.bytes:
            self.settle_range(fd, e)
            return 0
        e.flags &= ~RANGED
        n = send(fd, self.log.data + r.start, size, MSG_NOSIGNAL)
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                return -1
            n = 0
        self.sent(fd, n)
        if <size_t>n < size:
            self.share_log(e, r.start + n, size - n)
        return n

    cdef int share_log(self, Entry* e, size_t start, size_t size) except -1:
        if not output_share(&self.unfinished(e).output, self.log, self.log.data + start, size):
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    cdef int settle_range(self, int fd, Entry* e) except -1:
        """Moves a pending stretch of the log into the queue, so that something else can follow it."""
        cdef Range* r
        if e.flags & RANGED:
            r = &self.ranges[fd]
            e.flags &= ~RANGED
            self.share_log(e, r.start, r.end - r.start)
        return 0
