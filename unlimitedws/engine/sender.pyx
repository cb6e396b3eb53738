# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""Sending. Three ways, one order:

- Answers to the input at work are corked and leave in one system call at its end.
- What is sent from elsewhere is queued, and flushed at the end of the turn.
- A broadcast is packed once into a log (broadcasting.pyx), and flushed at the end of the turn, too.

Whatever the kernel does not take waits in the connection's queue, sharing memory where it can."""

from functools import partial
from ssl import SSLError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from unlimitedws.engine cimport codec
from unlimitedws.engine.connection cimport Connection, check_message
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.output cimport Block, block_of, block_release, output_copy, output_free, output_send, output_share
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport *

from unlimitedws.engine.connection import posted_send
from unlimitedws.wire.deflate import Compressor, Corrupt, TooBig, inflate

cdef enum:
    FLUSHES = 2048          # peers flushed in one turn: about 10 ms of system calls
    DIRECT_BYTES = 4096     # from here on a payload is sent from where it lies, not copied


cdef class Sender(Table):
    def __init__(self, config, front, row, call_soon, call_soon_threadsafe):
        Table.__init__(self, front, row, call_soon, call_soon_threadsafe)
        self.drain_hooks = [endpoint.on_drain for endpoint in front.endpoints]
        self.queue_limit, self.drops = config.queue_bytes, config.queue_policy == "drop"
        self.high_water, self.low_water = config.high_water_bytes, config.low_water_bytes
        self.deflate_threshold, self.deflate_level = config.deflate_threshold_bytes, config.deflate_level
        self.message_limit = config.message_bytes
        self.compressors, self.contexts = {}, {}
        self.cork = <uint8_t*>malloc(CORK_BYTES)
        if self.cork == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.ranges != NULL:
            munmap(self.ranges, self.table_room * sizeof(Range))
        free(self.dirty)
        free(self.cork)

    cdef int too_slow(self, int fd, Entry* e) except -1:
        """For the engine: the queue reached its limit, and the policy is to close."""
        raise NotImplementedError

    # ---- the cork

    cdef int begin(self, int fd) except -1:
        """What is sent to `fd` from now on leaves in one system call, at `finish`."""
        self.cork_fd = fd
        self.cork_size = 0
        return 0

    cdef bint cork_bytes(self, bytes data) except -1:
        cdef size_t size = PyBytes_GET_SIZE(data)
        if self.cork_size + size > CORK_BYTES:
            return False
        memcpy(self.cork + self.cork_size, PyBytes_AS_STRING(data), size)
        self.cork_size += size
        return True

    cdef int finish(self, int fd, Entry* e) except -1:
        """The end of a connection's turn: its answers leave."""
        self.uncork(fd, e)
        self.cork_fd = -1
        if e.more != NULL and not e.flags & DIRTY and e.more.output.bytes == 0:
            return self.drained(fd, e)
        return 0

    cdef int finish_gone(self) except -1:
        self.cork_fd = -1
        self.cork_size = 0
        return 0

    cdef int uncork(self, int fd, Entry* e) except -1:
        cdef ssize_t n
        cdef size_t size = self.cork_size
        if size == 0:
            return 0
        self.cork_size = 0
        if e.flags & SECURE:
            return self.send_now(fd, e, self.seal(fd, e, self.cork[:size]))
        n = send(fd, self.cork, size, MSG_NOSIGNAL)
        if n == <ssize_t>size:
            self.sent(fd, n)
            return 0
        return self.queue_rest(fd, e, n, self.cork, size)

    cdef int queue_rest(self, int fd, Entry* e, ssize_t n, uint8_t* data, size_t size) except -1:
        """Queues what a send left over; n is its result."""
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                e.flags |= BROKEN
                return 0
            n = 0
        self.sent(fd, n)
        self.enqueue(e, data + n, size - n)
        return self.blocked(fd, e)

    cdef int enqueue(self, Entry* e, const uint8_t* data, size_t size) except -1:
        if not output_copy(&self.unfinished(e).output, data, size):
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    # ---- TLS: what waits is ciphertext, so that it is sealed in the order in which it was said

    cdef bytes seal(self, int fd, Entry* e, bytes data):
        """The records of what is to be sent."""
        if self.meters != NULL:
            self.meters[fd].bytes_out += PyBytes_GET_SIZE(data)
        try:
            return self.secured[fd].seal(data)
        except SSLError:  # OpenSSL gave up on this connection before
            e.flags |= BROKEN
            return b""

    cdef int send_now(self, int fd, Entry* e, bytes data) except -1:
        """Offers ciphertext to the kernel at once, unless some waits already."""
        cdef ssize_t n
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size == 0:
            return 0
        if e.more != NULL and e.more.output.bytes:
            self.enqueue(e, <uint8_t*>PyBytes_AS_STRING(data), size)
            return self.make_dirty(fd, e)
        n = send(fd, PyBytes_AS_STRING(data), size, MSG_NOSIGNAL)
        if n == size:
            self.sent(fd, n)
            return 0
        return self.queue_rest(fd, e, n, <uint8_t*>PyBytes_AS_STRING(data), size)

    cdef bint part_tls(self, int fd, Entry* e) except -1:
        """Says close_notify behind everything else; False: it has been said."""
        tls = self.secured[fd]
        if tls.has_parted or e.flags & BROKEN:
            return False
        self.send_now(fd, e, tls.part())
        return e.more != NULL and e.more.output.bytes != 0

    cdef int queue_plain(self, int fd, Entry* e, const uint8_t* data, size_t size) except -1:
        """Queues what is not ciphertext yet, or never will be."""
        cdef bytes sealed
        if not e.flags & SECURE:
            return self.enqueue(e, data, size)
        sealed = self.seal(fd, e, data[:size])
        return self.enqueue(e, <uint8_t*>PyBytes_AS_STRING(sealed), PyBytes_GET_SIZE(sealed))

    cdef int queue_cork(self, int fd, Entry* e) except -1:
        """What was corked waits with the rest, before what follows."""
        cdef size_t size = self.cork_size
        if self.cork_fd == fd and size:
            self.cork_size = 0
            return self.queue_plain(fd, e, self.cork, size)
        return 0

    # ---- frames

    cdef int put(self, int fd, Entry* e, int opcode, const uint8_t* data, size_t size, object owner, bint control) except -1:
        """Sends one frame. 1: queued, under high water; 0: queued but over it, or not queued.

        owner: an immutable object whose memory `data` is, which may then wait where it lies; or None."""
        cdef uint8_t head[10]
        cdef uint8_t* to
        cdef int head_size
        cdef bint corked = self.cork_fd == fd and not e.flags & RANGED and (e.more == NULL or e.more.output.bytes == 0)
        cdef bint has_room = control
        cdef bytes packed
        if e.flags & BROKEN:
            return 0
        if e.flags & DEFLATE and not control and size >= self.deflate_threshold:
            if not corked and self.contexts and fd in self.contexts:
                if not self.makes_room(fd, e, size):  # now: once it is compressed, the next message refers to it
                    return 0
                has_room = True
            packed = self.deflated(fd, e, data, size)
            if packed is not None:
                opcode |= codec.RSV1
                owner, data, size = packed, <uint8_t*>PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed)
        if corked and size < DIRECT_BYTES:
            if self.cork_size + 10 + size > CORK_BYTES:
                self.uncork(fd, e)
                corked = e.more == NULL or e.more.output.bytes == 0
            if corked:
                to = self.cork + self.cork_size
                head_size = codec.pack_head(to, opcode, size)
                memcpy(to + head_size, data, size)
                self.cork_size += head_size + size
                self.row[C_MESSAGES_OUT] += not control
                return 1
        head_size = codec.pack_head(head, opcode, size)
        if corked and not e.flags & SECURE:
            self.row[C_MESSAGES_OUT] += not control
            return self.send_direct(fd, e, head, head_size, data, size, owner)
        if not has_room and not self.makes_room(fd, e, head_size + size):
            return 0
        self.row[C_MESSAGES_OUT] += not control
        return self.queue_frame(fd, e, head, head_size, data, size, owner)

    cdef int send_direct(
        self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner
    ) except -1:
        """A large payload goes to the kernel from where it lies, with all that was corked before it."""
        cdef iovec parts[3]
        cdef msghdr message
        cdef ssize_t n
        cdef size_t part, corked = self.cork_size
        cdef int i
        parts[0].iov_base, parts[0].iov_len = self.cork, corked
        parts[1].iov_base, parts[1].iov_len = head, head_size
        parts[2].iov_base, parts[2].iov_len = <void*>data, size
        memset(&message, 0, sizeof(message))
        message.msg_iov, message.msg_iovlen = parts, 3
        self.cork_size = 0
        n = sendmsg(fd, &message, MSG_NOSIGNAL)
        if n == <ssize_t>(corked + head_size + size):
            self.sent(fd, n)
            return 1
        if n < 0:
            if errno not in (EAGAIN, EINTR):
                e.flags |= BROKEN
                return 0
            n = 0
        self.sent(fd, n)
        for i in range(3):
            part = min(<size_t>n, parts[i].iov_len)
            n -= part
            if i == 2:
                self.enqueue_payload(e, data + part, size - part, owner)
            else:
                self.enqueue(e, <uint8_t*>parts[i].iov_base + part, parts[i].iov_len - part)
        self.blocked(fd, e)
        return e.more.output.bytes <= self.high_water

    cdef int enqueue_payload(self, Entry* e, const uint8_t* data, size_t size, object owner) except -1:
        """Queues a payload: by reference where it is large and cannot change, else as a copy."""
        cdef Block* block
        cdef bint queued
        if owner is None or size < DIRECT_BYTES:
            return self.enqueue(e, data, size)
        block = block_of(owner, <uint8_t*>data, size)
        queued = block != NULL and output_share(&self.unfinished(e).output, block, <uint8_t*>data, size)
        if block != NULL:
            block_release(block)
        if not queued:
            raise MemoryError
        self.row[C_QUEUED] += size
        return 0

    cdef int queue_frame(
        self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner
    ) except -1:
        cdef bytes sealed
        self.settle_range(fd, e)
        self.queue_cork(fd, e)
        if e.flags & SECURE:
            sealed = self.seal(fd, e, head[:head_size] + data[:size])
            self.enqueue_payload(e, <uint8_t*>PyBytes_AS_STRING(sealed), PyBytes_GET_SIZE(sealed), sealed)
        else:
            self.enqueue(e, head, head_size)
            self.enqueue_payload(e, data, size, owner)
        self.make_dirty(fd, e)
        return self.under_high_water(fd, e)

    cdef bint under_high_water(self, int fd, Entry* e) except -1:
        """Whether what waits stays under the mark; the kernel is offered it before it is judged."""
        if e.more.output.bytes > self.high_water and not e.interest & 4:
            self.flush(fd, e)
        if e.more == NULL or e.more.output.bytes <= self.high_water:
            return True
        if may_pause(e):
            e.flags |= OVER
        return False

    cdef bint makes_room(self, int fd, Entry* e, size_t size) except -1:
        """Whether a message may be queued; if not, the policy has been applied."""
        if self.waiting_bytes(fd, e) == 0 or self.waiting_bytes(fd, e) + size <= self.queue_limit:
            return True
        if not e.interest & 4:
            self.flush(fd, e)  # the kernel may take what waits only for the end of the turn
            if self.waiting_bytes(fd, e) == 0 or self.waiting_bytes(fd, e) + size <= self.queue_limit:
                return True
        if self.drops:
            self.row[C_DROPPED] += 1
        else:
            self.too_slow(fd, e)
        return False

    cdef size_t waiting_bytes(self, int fd, Entry* e) noexcept:
        cdef size_t size = e.more.output.bytes if e.more != NULL else 0
        if e.flags & RANGED:
            size += self.ranges[fd].end - self.ranges[fd].start
        return size

    cdef size_t queued(self, int fd, Entry* e) noexcept:
        return self.waiting_bytes(fd, e) + (self.cork_size if self.cork_fd == fd else 0)

    cdef int pong(self, int fd, Entry* e, uint8_t* payload, size_t size) except -1:
        """Answers a Ping; while one answer waits for a slow peer, only the latest follows it
        (RFC 6455, section 5.5.3)."""
        cdef Unfinished* more = e.more
        if more == NULL or more.output.bytes == 0:
            self.put(fd, e, codec.PONG, payload, size, None, True)
            return 0
        if more.pong_end > more.output.sent:
            memcpy(more.pong, payload, size)
            more.pong_size = <uint8_t>size
            more.pong_waits = True
            return 0
        self.put(fd, e, codec.PONG, payload, size, None, True)
        if e.more != NULL:
            e.more.pong_end = e.more.output.sent + e.more.output.bytes
        return 0

    cdef object post_send(self, Connection connection, object message, object text):
        """`send` from another thread: the loop does it; what is known now is the answer."""
        if not connection.is_open:
            return False
        check_message(message, text)
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)  # it may change before its turn comes
        size = len(message.encode() if isinstance(message, str) else message)
        connection.posted += size
        self.call_soon_threadsafe(partial(posted_send, connection, message, text, size))
        return connection.queued_bytes <= self.high_water

    # ---- compression

    cdef object terms(self, Entry* e):
        return <object>self.routes.routes[e.route].deflate

    cdef object compressor(self, int bits):
        """The one of all connections that agreed on such a window."""
        found = self.compressors.get(bits)
        if found is None:
            found = self.compressors[bits] = Compressor(bits, self.deflate_level)
        return found

    cdef bytes deflated(self, int fd, Entry* e, const uint8_t* data, size_t size):
        """The payload compressed; None: it goes as it is, because it would not be smaller."""
        cdef bytes packed
        message = data[:size]
        context = self.contexts.get(fd)
        if context is not None and context.compresses:
            return context.compress(message)
        packed = self.compressor(self.terms(e).server_bits).compress(message)
        return packed if <size_t>PyBytes_GET_SIZE(packed) < size else None

    cdef object inflated(self, int fd, Entry* e, int opcode, Event* event):
        """The message in a compressed payload; None: `event.code` says what it is closed with."""
        payload = codec.take_payload(codec.BINARY, event)
        context = self.contexts.get(fd)
        try:
            if context is None:
                message = inflate(payload, self.terms(e).client_bits, self.message_limit)
            else:
                message = context.inflate(payload, self.message_limit)
            return message if opcode == codec.BINARY else message.decode()
        except TooBig:
            event.code = 1009
        except (Corrupt, UnicodeDecodeError):
            event.code = 1007
        return None

    # ---- the queue

    cdef int make_dirty(self, int fd, Entry* e) except -1:
        cdef void* moved
        if e.flags & DIRTY or e.interest & 4:
            return 0
        if self.dirty_count == self.dirty_room:
            moved = realloc(self.dirty, max(<size_t>256, self.dirty_room * 2) * sizeof(uint32_t))
            if moved == NULL:
                raise MemoryError
            self.dirty = <uint32_t*>moved
            self.dirty_room = max(<size_t>256, self.dirty_room * 2)
        e.flags |= DIRTY
        self.dirty[self.dirty_count] = fd
        self.dirty_count += 1
        if self.dirty_count == 1:
            self.wake()
        return 0

    cdef int flush_dirty(self) except -1:
        """Sends what this turn queued: once for each connection, however much it was."""
        cdef size_t i, count = min(self.dirty_count, <size_t>FLUSHES)
        cdef int fd
        cdef Entry* e
        for i in range(count):
            fd = self.dirty[i]
            e = &self.table[fd]
            if e.flags & DIRTY:
                self.flush(fd, e)
        # Handlers of on_drain do not run in here, so nothing was appended but by `drained`.
        self.dirty_count -= count
        if self.dirty_count:
            memmove(self.dirty, self.dirty + count, self.dirty_count * sizeof(uint32_t))
        else:
            self.rewind_log()
        return 0

    cdef int flush(self, int fd, Entry* e) except -1:
        """Offers the kernel what waits. Never ends a connection but a lingering one."""
        cdef ssize_t n = 0
        e.flags &= ~DIRTY
        if self.cork_fd == fd and self.cork_size:
            self.uncork(fd, e)  # it was said first: nothing waited when it was corked
        if e.flags & RANGED:
            n = self.flush_range(fd, e)
        if n >= 0 and e.more != NULL and e.more.output.bytes:
            n = output_send(&e.more.output, fd)
            if n > 0:
                self.sent(fd, n)
                self.row[C_QUEUED] -= n
        if n < 0:
            e.flags |= BROKEN
            self.discard_output(fd, e)
        elif n > 0 and e.interest & 4:  # it had not read, and now it does: a sign of life
            e.seen_ms = self.now
            e.flags &= ~PINGED
            if e.more != NULL:
                self.note_progress(e)
        if e.more != NULL and e.more.output.bytes:
            return self.blocked(fd, e)
        return self.drained(fd, e)

    cdef int blocked(self, int fd, Entry* e) except -1:
        """The kernel takes no more: wait for room, and read no more from a peer that does not read."""
        if not e.interest & 4:
            self.note_progress(e)
            self.ask(fd, e, e.interest | 4)
        if may_pause(e) and e.more.output.bytes > self.high_water:
            e.flags |= OVER
        return self.fell(fd, e)

    cdef int fell(self, int fd, Entry* e) except -1:
        """Some output left: a Pong that waited for its turn, and the way down through low water."""
        cdef Unfinished* more = e.more
        if more.pong_waits and more.output.sent >= more.pong_end and e.phase == OPEN:
            more.pong_waits = False
            self.put(fd, e, codec.PONG, more.pong, more.pong_size, None, True)
            more.pong_end = more.output.sent + more.output.bytes
        if e.flags & OVER and more.output.bytes <= self.low_water:
            e.flags &= ~OVER
            if e.phase == OPEN:
                hook = self.drain_hooks[self.endpoint(e)]
                if hook is not None:
                    self.deferred.append(("on_drain", hook, self.connection(fd, e), None))
            elif e.phase == STREAM:
                self.deferred.append(("drained", (<Pipe>more.pipe).stream.drained, None, <Pipe>more.pipe))
            if may_pause(e):
                self.make_ready(fd, e)
                self.wake()
        return 0

    cdef int drained(self, int fd, Entry* e) except -1:
        """Nothing waits any more."""
        self.ask(fd, e, e.interest & 3)
        if e.more != NULL:
            self.fell(fd, e)
            if e.more.output.bytes:
                return 0
        if e.phase == LINGER:
            if e.flags & SECURE and self.part_tls(fd, e):
                return 0
            if e.flags & (FINAL | BROKEN | HALF_CLOSED):
                return self.end(fd, e)
            if not e.flags & SHUT:
                e.flags |= SHUT
                e.active_ms = self.now
                shutdown(fd, SHUT_WR)
        elif e.more != NULL:
            self.tidy(fd, e)
        return 0

    cdef void note_progress(self, Entry* e) noexcept:
        e.more.moved_ms, e.more.left = self.now, 0x7FFFFFFF

    cdef int discard_output(self, int fd, Entry* e) except -1:
        e.flags &= ~RANGED
        if e.more != NULL:
            self.row[C_QUEUED] -= e.more.output.bytes
            output_free(&e.more.output)
            e.more.pong_waits = False
        return 0

    # ---- what Broadcasting gives

    cdef ssize_t flush_range(self, int fd, Entry* e) except -2:
        raise NotImplementedError

    cdef int settle_range(self, int fd, Entry* e) except -1:
        raise NotImplementedError

    cdef int rewind_log(self) except -1:
        raise NotImplementedError
