# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""How a connection begins: a proxy's preface, the request, and what comes of it.

A clean upgrade is answered here, without Python but for its Accept key. Any other request, and a clean
one for a guarded endpoint, the front answers: with an upgrade, with a refusal, or with a Stream that takes
the connection over until it knows."""

import hashlib
from binascii import b2a_base64
from functools import partial

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove

from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.ending cimport Ending
from unlimitedws.engine.head cimport Request, head_end, may_begin, parse_upgrade
from unlimitedws.engine.kernel cimport *
from unlimitedws.engine.pipe cimport Pipe
from unlimitedws.engine.table cimport *

from unlimitedws.engine.contract import Refusal, Upgrade
from unlimitedws.engine.pipe import Pipe  # the public name
from unlimitedws.wire.closing import Cause
from unlimitedws.wire.deflate import Context
from unlimitedws.wire.handshake import no_request, too_large

cdef enum:
    MOST_PREFACE = 4096     # bytes of a proxy's preface, more than any has
    MOST_RECORD = 20480     # bytes of a TLS record that began before what is read (RFC 8446, section 5.2), and to spare

cdef bytes GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
cdef bytes SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)
cdef Py_ssize_t ACCEPT_BYTES = PyBytes_GET_SIZE(SWITCHING) + 28 + 4  # a whole 101 of ours
cdef tuple NOWHERE = (None, -1)
cdef object sha1 = partial(hashlib.sha1, usedforsecurity=False)
cdef object base64 = b2a_base64


cdef class Opening(Ending):
    def __init__(self, config, front, row, call_soon, call_soon_threadsafe):
        Ending.__init__(self, config, front, row, call_soon, call_soon_threadsafe)
        endpoints = front.endpoints
        self.connect_hooks = [endpoint.on_connect for endpoint in endpoints]
        self.endpoints = list(endpoints)
        self.receive_bytes, self.head_bytes = config.receive_bytes, config.head_bytes
        # Half a request head or preface is put in front of what is read next.
        self.buffer = <uint8_t*>malloc(self.receive_bytes + max(self.head_bytes, <size_t>MOST_PREFACE) + MOST_RECORD)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    # ---- the request

    cdef int read_preface(self, int fd, Entry* e, size_t size) except -1:
        """What a proxy says before the request: `size` bytes in the buffer."""
        try:
            found = self.front.preface(self.buffer[:size], self.address(fd, e))
        except ValueError:
            return self.lose(fd, e, Cause.HANDSHAKE_REFUSED)
        if found is None:
            if size > MOST_PREFACE:
                return self.lose(fd, e, Cause.HANDSHAKE_REFUSED)
            return self.keep_input(e, self.buffer, self.buffer + size)
        used, address = found
        e.flags &= ~PREFACE
        if e.more != NULL:
            self.drop_input(e.more)
        if address is not None and not self.move(fd, e, address):
            return self.lose(fd, e, Cause.LIMIT)
        if used == size:
            return 0
        memmove(self.buffer, self.buffer + <size_t>used, size - <size_t>used)
        return self.take_secure(fd, e, 0, size - <size_t>used) if e.flags & SECURE else self.take(fd, e, 0, size - <size_t>used)

    cdef int read_head(self, int fd, Entry* e, size_t size, size_t searched) except -1:
        """The request, as far as it has come: `size` bytes in the buffer."""
        cdef Request request
        cdef long route, endpoint
        cdef bytes target
        cdef Pipe pipe
        cdef Py_ssize_t head = parse_upgrade(self.buffer, size, searched, &request)
        if head > <Py_ssize_t>self.head_bytes:
            return self.refuse(fd, e, too_large(self.head_bytes).response, Cause.HANDSHAKE_REFUSED)
        if head > 0:
            target = request.target[:request.target_size]
            route = self.routes.find(target)
            if route >= 0:
                path, endpoint = <object>self.routes.routes[route].path, self.routes.routes[route].endpoint
            else:
                path, endpoint = self.front.route(target) or NOWHERE
            if endpoint >= 0 and self.endpoints[endpoint].guarded:
                pipe = self.pipe(fd, e)
                verdict = self.front.admit(self.buffer[:head], request.key[:24], path, endpoint, pipe)
                return self.answer(fd, e, pipe, verdict, head, size, target)
            if endpoint >= 0 and (e.more == NULL or e.more.output.bytes == 0):
                if route < 0:  # kept for a connection only: whoever invents paths and is refused leaves nothing behind
                    route = self.routes.add(path, endpoint, None, None, target)
                self.begin(fd)
                self.cork_bytes(SWITCHING)
                self.cork_bytes(base64(sha1(request.key[:24] + GUID).digest(), newline=False))
                self.cork_bytes(b"\r\n\r\n")
                return self.open(fd, e, <uint32_t>route, None, self.buffer + head, self.buffer + size)
        head = head_end(self.buffer, size, searched)
        if head == 0 and size < self.head_bytes:
            if searched == 0 and not may_begin(self.buffer[0]):
                return self.refuse(fd, e, no_request().response, Cause.HANDSHAKE_REFUSED)
            return self.keep_input(e, self.buffer, self.buffer + size)
        if head == 0 or head > <Py_ssize_t>self.head_bytes:
            return self.refuse(fd, e, too_large(self.head_bytes).response, Cause.HANDSHAKE_REFUSED)
        pipe = self.pipe(fd, e)
        return self.answer(fd, e, pipe, self.front.answer(self.buffer[:head], pipe), head, size, None)

    cdef Pipe pipe(self, int fd, Entry* e):
        cdef Pipe pipe = Pipe.__new__(Pipe)
        pipe.engine, pipe.entry, pipe.fd, pipe.id = self, e, fd, e.id
        return pipe

    cdef int answer(self, int fd, Entry* e, Pipe pipe, object verdict, size_t head, size_t size, bytes target) except -1:
        if type(verdict) is Upgrade:
            return self.upgrade(fd, e, verdict, self.buffer + head, self.buffer + size, target)
        if type(verdict) is Refusal:
            return self.refuse(fd, e, verdict.response, verdict.cause)
        return self.begin_stream(fd, e, pipe, verdict, self.buffer + head, self.buffer + size)

    cdef int refuse(self, int fd, Entry* e, bytes response, object cause) except -1:
        """Answers with plain HTTP and ends."""
        cdef Unfinished* more = self.unfinished(e)
        self.handshake_over(cause)
        self.drop_input(more)
        self.queue_plain(fd, e, <uint8_t*>PyBytes_AS_STRING(response), PyBytes_GET_SIZE(response))
        self.linger(fd, e)
        return self.flush(fd, e)

    cdef int upgrade(self, int fd, Entry* e, object verdict, uint8_t* rest, uint8_t* end, bytes target) except -1:
        """The front's word: a WebSocket, with whatever terms it comes. target: a plain one, to be found again by; or None."""
        cdef bytes response = verdict.response
        if verdict.remote_address is not None and not self.move(fd, e, verdict.remote_address):
            return self.lose(fd, e, Cause.LIMIT)
        self.begin(fd)
        if e.more != NULL and e.more.output.bytes or not self.cork_bytes(response):
            # An answer to an earlier request waits before it, or it is larger than the cork.
            self.queue_plain(fd, e, <uint8_t*>PyBytes_AS_STRING(response), PyBytes_GET_SIZE(response))
            self.make_dirty(fd, e)
        if verdict.deflate is not None:
            e.flags |= DEFLATE
            if verdict.deflate.server_takeover or verdict.deflate.client_takeover:
                self.contexts[fd] = Context(verdict.deflate, self.deflate_level)
        if verdict.subprotocol is not None or verdict.deflate is not None:
            target = None
        route = self.routes.add(verdict.path, verdict.endpoint, verdict.subprotocol, verdict.deflate, target)
        return self.open(fd, e, route, verdict, rest, end)

    cdef bint move(self, int fd, Entry* e, object address) except -1:
        """Takes the address that a proxy told of; False: the gate refuses it."""
        if self.gate is not None and not self.gate.move(self.address(fd, e), address):
            return False
        self.set_address(fd, e, address)
        return True

    cdef int open(self, int fd, Entry* e, uint32_t route, object verdict, uint8_t* rest, uint8_t* end) except -1:
        """The 101 is on its way: from here on it is a WebSocket; `rest` came with the request."""
        cdef uint64_t id = e.id
        cdef Connection connection
        e.route = route
        self.routes.routes[route].users += 1
        if e.more != NULL:
            self.drop_input(e.more)
        e.phase = OPEN
        e.active_ms = self.now
        if self.ping_ms:  # spreads the first Pings of those who came together over one interval
            e.seen_ms = self.now - <uint32_t>(id * 2654435761u) % (self.ping_ms - self.ping_ms // PING_SPREAD)
        self.row[C_PENDING] -= 1
        self.row[C_OPENED] += 1
        self.row[C_OPEN] += 1
        if self.meters != NULL:
            self.start_meter(fd, end - rest, ACCEPT_BYTES if verdict is None else len(verdict.response))
        hook = self.connect_hooks[self.endpoint(e)]
        if hook is not None or verdict is not None and (verdict.state is not None or verdict.expires_at is not None):
            connection = self.connection(fd, e)
            try:
                if verdict is not None:
                    if verdict.state is not None:
                        connection.state = verdict.state
                    if verdict.expires_at is not None:
                        self.front.expires(connection, verdict.expires_at)
                if hook is not None:
                    hook(connection)
            except BaseException as error:
                self.handler_error(connection, "on_connect", error)
            if e.id != id:
                self.cork_fd = -1
                return 0
        if e.phase == OPEN and (e.flags & (HELD | OVER) or self.is_stalled(e)):
            if rest < end:
                self.keep_input(e, rest, end)
                if not e.flags & (HELD | OVER):
                    self.wait_for_room(fd, e)
            return self.finish(fd, e)
        if e.phase == LINGER or rest == end:
            return self.finish(fd, e)
        return self.consume(fd, e, rest, end)

    # ---- TLS

    cdef ssize_t open_tls(self, int fd, Entry* e, size_t kept, size_t n) except -2:
        """Makes plaintext of the ciphertext behind what was kept; its size, or -1: it failed, or that was all."""
        cdef bytes plain
        tls = self.secured[fd]
        try:
            plain = tls.open((self.buffer + kept)[:n])
        except OSError:  # ssl.SSLError is one; the context's files may have another
            return self.tls_failed(fd, e, tls)
        self.send_now(fd, e, tls.take())
        n = PyBytes_GET_SIZE(plain)
        memcpy(self.buffer + kept, PyBytes_AS_STRING(plain), n)
        return n

    cdef ssize_t tls_failed(self, int fd, Entry* e, object tls) except -2:
        """The alert is the last they hear."""
        tls.has_parted = True
        if e.phase != HANDSHAKE:
            self.send_now(fd, e, tls.take())
            self.lose(fd, e, Cause.TLS_ERROR)
            return -1
        alert = tls.take()
        self.handshake_over(Cause.TLS_ERROR)
        self.enqueue(e, <uint8_t*>PyBytes_AS_STRING(alert), PyBytes_GET_SIZE(alert))
        self.linger(fd, e)
        self.flush(fd, e)
        return -1

    # ---- streams

    cdef int begin_stream(self, int fd, Entry* e, Pipe pipe, object stream, uint8_t* rest, uint8_t* end) except -1:
        """The connection belongs to `stream` from here on; `rest` came behind the head."""
        cdef uint64_t id = e.id
        cdef Unfinished* more = self.unfinished(e)
        if rest < end:
            self.keep_input(e, rest, end)
        else:
            self.drop_input(more)
        e.phase = STREAM
        pipe.stream = stream
        Py_INCREF(pipe)
        more.pipe = <PyObject*>pipe
        try:
            stream.begin(pipe)
        except BaseException as error:
            return self.stream_raised(fd, e, error) if e.id == id and e.phase == STREAM else self.stream_error(error)
        if e.id == id and e.phase == STREAM:
            return self.feed_kept(fd, e)
        return 0

    cdef int feed(self, int fd, Entry* e, bytes data) except -1:
        cdef uint64_t id = e.id
        stream = (<Pipe>e.more.pipe).stream
        try:
            stream.received(data)
        except BaseException as error:
            return self.stream_raised(fd, e, error) if e.id == id and e.phase == STREAM else self.stream_error(error)
        return 0

    cdef int feed_kept(self, int fd, Entry* e) except -1:
        """Gives the stream what came with the request, as far as it wants it; then what the kernel has."""
        cdef uint64_t id = e.id
        if e.flags & PAUSED:
            return self.read_off(fd, e)
        if e.more.input_size:
            self.feed(fd, e, self.take_input(e, b""))
            if e.id != id or e.phase != STREAM:
                return 0
        if e.flags & PAUSED:
            return self.read_off(fd, e)
        return self.ask(fd, e, e.interest & 4) if (<Pipe>e.more.pipe).has_ended else self.read_on(fd, e)

    cdef int stream_half_closed(self, int fd, Entry* e) except -1:
        """They said all they will; they can still be answered."""
        cdef uint64_t id = e.id
        cdef Pipe pipe = <Pipe>e.more.pipe
        stream = pipe.stream
        pipe.has_ended = True
        self.ask(fd, e, e.interest & 4)  # epoll would tell of their end again and again
        try:
            stream.ended()
        except BaseException as error:
            return self.stream_raised(fd, e, error) if e.id == id and e.phase == STREAM else self.stream_error(error)
        return 0

    cdef int stream_raised(self, int fd, Entry* e, object error) except -1:
        self.stream_error(error)
        return self.lose(fd, e, Cause.HANDLER_ERROR)

    cdef bytes take_input(self, Entry* e, bytes before):
        """What waits unread, behind `before`; it is kept no longer."""
        cdef Unfinished* more = e.more
        cdef bytes data = before
        if more.input_size:
            data = before + (more.input + more.input_start)[:more.input_size]
        self.drop_input(more)
        return data

    # ---- what a Pipe asks for

    cdef object tls_of(self, int fd, Entry* e):
        return self.secured[fd].object if e.flags & SECURE else None

    cdef bint pipe_write(self, int fd, Entry* e, bytes data) except -1:
        if e.flags & BROKEN or not data:
            return True
        self.queue_plain(fd, e, <uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.make_dirty(fd, e)
        return self.under_high_water(fd, e)

    cdef int pipe_pause(self, int fd, Entry* e) except -1:
        e.flags |= HELD
        return self.read_off(fd, e)

    cdef int pipe_resume(self, int fd, Entry* e) except -1:
        if e.flags & HELD:
            e.flags &= ~HELD
            self.make_ready(fd, e)
        return 0

    cdef int pipe_answer(self, int fd, Entry* e, object verdict, bytes data) except -1:
        cdef uint64_t id = e.id
        cdef bint running = self.running
        cdef int at_work = self.cork_fd
        cdef uint64_t at_work_id = 0
        self.running = True
        if not running:
            self.now = clock_ms()
        if at_work >= 0 and at_work != fd:  # another connection's handler brought this about: its answers leave first
            at_work_id = self.table[at_work].id
            self.uncork(at_work, &self.table[at_work])
        try:
            data = self.take_input(e, data)
            self.part(e)
            self.read_on(fd, e)
            if type(verdict) is Refusal:
                self.refuse(fd, e, verdict.response, verdict.cause)
            else:
                self.upgrade(fd, e, verdict, NULL, NULL, None)
                if e.id == id and e.phase == OPEN and data:
                    if self.meters != NULL:
                        self.meters[fd].bytes_in += PyBytes_GET_SIZE(data)
                    self.go_on(fd, e, data)
        finally:
            if at_work_id and self.table[at_work].id == at_work_id:
                self.begin(at_work)
            self.leave_turn(running)
        return 0

    cdef int pipe_restart(self, int fd, Entry* e, bytes data) except -1:
        cdef bint has_ended = (<Pipe>e.more.pipe).has_ended
        data = self.take_input(e, data)
        self.part(e)
        self.row[C_HTTP] += 1
        e.flags = e.flags & ~HALF_CLOSED | ANSWERED
        e.active_ms = clock_ms()
        if has_ended and not data:
            return self.answered_over(fd, e)
        if PyBytes_GET_SIZE(data) > <Py_ssize_t>self.receive_bytes:  # behind a request that was answered already
            return self.lose(fd, e, Cause.HANDSHAKE_REFUSED)
        if e.more.output.bytes > self.high_water:
            e.flags |= OVER
        if data:
            return self.go_on(fd, e, data)
        return self.read_off(fd, e) if e.flags & OVER else self.read_on(fd, e)

    cdef int go_on(self, int fd, Entry* e, bytes data) except -1:
        """Input that came before: its turn is the next batch."""
        cdef uint8_t* at = <uint8_t*>PyBytes_AS_STRING(data)
        self.keep_input(e, at, at + PyBytes_GET_SIZE(data))
        return self.make_ready(fd, e)

    cdef int pipe_close(self, int fd, Entry* e) except -1:
        self.part(e)
        e.flags |= ANSWERED
        self.handshake_over(Cause.HTTP_ANSWERED)
        self.linger(fd, e)
        return self.settle_lingering(fd)

    cdef int pipe_abort(self, int fd, Entry* e) except -1:
        self.lose(fd, e, Cause.HANDSHAKE_REFUSED)
        return self.wake()

    cdef int leave_turn(self, bint running) except -1:
        """Ends a turn that the floor above began; one that was under way goes on."""
        if running:
            return 0
        try:
            if self.dirty_count:
                self.flush_dirty()
            self.run_deferred()
        finally:
            self.running = False
            self.wake()
        return 0

    # ---- what Clock, Handling and Reading give

    cdef int take(self, int fd, Entry* e, size_t kept, size_t n) except -1:
        raise NotImplementedError

    cdef int take_secure(self, int fd, Entry* e, size_t kept, size_t n) except -1:
        raise NotImplementedError

    cdef int start_meter(self, int fd, Py_ssize_t received, Py_ssize_t response) except -1:
        raise NotImplementedError

    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1:
        raise NotImplementedError

    cdef bint is_stalled(self, Entry* e) except -1:
        raise NotImplementedError

    cdef int wait_for_room(self, int fd, Entry* e) except -1:
        raise NotImplementedError
