"""The engine: turns of the loop, accepting, frames in, holding and stalling."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from unlimitedws.engine.codec cimport Event, Reader
from unlimitedws.engine.connection cimport Connection
from unlimitedws.engine.kernel cimport epoll_event, sockaddr_storage, socklen_t
from unlimitedws.engine.moving cimport Moving
from unlimitedws.engine.table cimport HANDLING_BOUNDS, Entry

cdef enum:
    EVENTS = 512                    # contract.EVENTS_PER_BATCH



cdef class Engine(Moving):
    cdef list message_hooks
    cdef list waiting                   # for each endpoint: (fd, id) of its stalled connections, in line
    cdef list stalled
    cdef int stalls                     # endpoints stalled now

    cdef uint64_t next_id
    cdef dict listeners                 # descriptor -> (flags of its connections, TLS context or None)
    cdef bint accepting
    cdef uint32_t reported_ms
    cdef long most_connections
    cdef epoll_event events[EVENTS]
    cdef Reader reader                  # of the connection at work, while it has none of its own
    cdef uint64_t message_limit
    cdef int drain_hand
    cdef int64_t handling_bounds[HANDLING_BOUNDS]

    cdef void note_handling(self, int64_t began_ns, int64_t handled) noexcept
    cdef int handle(self, uint64_t data, uint32_t events) except -1
    cdef int run_ready(self) except -1
    cdef int run_lines(self) except -1
    cdef int watch_listener(self, int fd) except -1
    cdef int accept_batch(self, int listener) except -1
    cdef int admit(self, int fd, sockaddr_storage* address, socklen_t size, uint32_t flags, object tls) except -1
    cdef int turn_away(self, int fd, Entry* e) except -1
    cdef int pause_accepting(self, int why) except -1
    cdef int resume_accepting(self) except -1
    cdef int readable(self, int fd, Entry* e) except -1
    cdef int meter_input(self, int fd, Entry* e, size_t n) except -1
    cdef bint has_said_all(self, Entry* e) noexcept
    cdef int gone(self, int fd, Entry* e) except -1
    cdef int peer_left(self, int fd, Entry* e, int failed) except -1
    cdef int readable_while_paused(self, int fd, Entry* e, uint32_t events) except -1
    cdef int stream_ended(self, int fd, Entry* e, int failed) except -1
    cdef bint keeps(self, Entry* e, uint8_t* at, uint8_t* end) noexcept
    cdef bint must_wait(self, int fd, Entry* e, int handled) except -1
    cdef int consume_short(self, int fd, Entry* e, Reader* reader, uint8_t** at, uint8_t* end, int most) except -1
    cdef bint take_message(self, int fd, Entry* e, Reader* reader, int kind, Event* event) except -1
    cdef int deliver(self, int fd, Entry* e, object payload) except -1
    cdef int hook_raised(self, Connection connection, str name) except -1
    cdef int resume(self, int fd, Entry* e) except -1
    cdef int look_again(self, int fd, Entry* e) except -1
