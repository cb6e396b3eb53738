"""The engine: turns of the loop, accepting, the handshake, frames in, closing, the clock hand."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from unlimitedws.engine.codec cimport Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport epoll_event, sockaddr_storage
from unlimitedws.engine.sender cimport Sender
from unlimitedws.engine.table cimport Entry

cdef enum:
    EVENTS = 512                    # contract.EVENTS_PER_BATCH


cdef class Engine(Sender):
    cdef list connect_hooks, message_hooks, close_hooks
    cdef set ending                     # connections whose on_close waits for a release
    cdef list waiting                   # for each endpoint: (fd, id) of its stalled connections, in line
    cdef list stalled
    cdef int stalls                     # endpoints stalled now
    cdef object interrupt

    cdef uint64_t next_id
    cdef list listeners
    cdef bint accepting, accept_paused
    cdef uint32_t paused_ms, reported_ms
    cdef long most_connections
    cdef epoll_event events[EVENTS]

    cdef uint8_t* buffer                # what was read; shared by all connections
    cdef size_t receive_bytes, head_bytes
    cdef Reader reader                  # of the connection at work, while it has none of its own

    cdef uint64_t message_limit
    cdef uint32_t handshake_ms, ping_ms, pong_ms, close_ms, idle_ms
    cdef uint32_t last_tick, grace_until
    cdef bint in_grace
    cdef int hand, drain_hand
    cdef long peak

    cdef int take_limits(self, config) except -1
    cdef int handle(self, uint64_t data, uint32_t events) except -1
    cdef int run_ready(self) except -1
    cdef int run_lines(self) except -1
    cdef int run_deferred(self) except -1
    cdef int watch_listener(self, int fd) except -1
    cdef int accept_batch(self, int listener) except -1
    cdef int admit(self, int fd, sockaddr_storage* address) except -1
    cdef int pause_accepting(self, int why) except -1
    cdef int resume_accepting(self) except -1
    cdef int readable(self, int fd, Entry* e) except -1
    cdef int readable_while_paused(self, int fd, Entry* e, uint32_t events) except -1
    cdef int stream_ended(self, int fd, Entry* e, int failed) except -1
    cdef int read_head(self, int fd, Entry* e, size_t size, size_t searched) except -1
    cdef long find_route(self, bytes target) except? -2
    cdef int answer(self, int fd, Entry* e, Py_ssize_t head, size_t size) except -1
    cdef int refuse(self, int fd, Entry* e, bytes response, object cause) except -1
    cdef int handshake_over(self, object cause) except -1
    cdef int open(self, int fd, Entry* e, uint32_t route, uint8_t* rest, uint8_t* end) except -1
    cdef int consume(self, int fd, Entry* e, uint8_t* at, uint8_t* end) except -1
    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept
    cdef bint must_wait(self, int fd, Entry* e, int handled) except -1
    cdef int deliver(self, object hook, Connection connection, object payload) except -1
    cdef int hook_raised(self, Connection connection, str name) except -1
    cdef int resume(self, int fd, Entry* e) except -1
    cdef int peer_closed(self, int fd, Entry* e, int code, str reason, bint last) except -1
    cdef int detach_closing(self, int fd, Entry* e, bint clean) except -1
    cdef int fail_connection(self, int fd, Entry* e, int code, object cause) except -1
    cdef int handler_error(self, Connection connection, str hook, object error) except -1
    cdef int settle_lingering(self, int fd) except -1
    cdef int linger(self, int fd, Entry* e) except -1
    cdef int detach(self, int fd, Entry* e, int code, str reason, object cause, bint clean) except -1
    cdef int settle(self) except -1
    cdef int wait_for_room(self, int fd, Entry* e) except -1
    cdef int judge(self, int fd, Entry* e) except -1
    cdef int heartbeat(self, int fd, Entry* e, uint32_t silent) except -1
    cdef int give_back(self) except -1
