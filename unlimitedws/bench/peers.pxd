"""The connections of a load process, and how they send."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from unlimitedws.bench.answer cimport MOST_HEAD
from unlimitedws.bench.board cimport Call, Counters, Row, Sheet

cdef enum State:
    NEW             # to be dialled
    CONNECTING
    UPGRADING       # the request is sent
    OPEN
    HELD            # a slow or half-open one: not part of any count of messages
    CLOSING         # we, or the server, said Close
    GONE            # not to be dialled (again)

cdef enum:
    CLOSE_SEEN = 1
    REACHED = 2     # by a publication
    WRONG = 4       # the message that is coming in
    LOST = 8        # the server said Close first
    QUEUED = 16     # it has messages to send
    DEAF = 32       # it takes nothing any more; what it has said may say why

cdef enum Manner:   # of the special ones: the first `special` of the swarm
    PLAIN           # there are none
    SLOW            # asks, and reads `slow_bytes` each `slow_ns`
    TCP             # connects and says nothing
    REQUEST         # ... says half of its request
    SILENT          # upgrades, then says and reads nothing

# 112 bytes for each connection, and 8 for each message that it may have in flight in a closed loop.
cdef struct Peer:
    int fd
    uint8_t state
    uint8_t flags
    uint8_t key             # which of the requests it sent
    uint8_t generation      # of the descriptor: events of an earlier one are stale
    uint8_t in_frame        # its head is known, its payload is not complete
    uint8_t opcode          # of the frame
    uint8_t fin
    uint8_t message_opcode  # 0: between messages
    uint8_t head_size
    uint8_t control_size
    uint8_t head[MOST_HEAD]
    uint32_t touched_ms     # begin of what must not take too long
    uint32_t due            # messages it is to send; wraps
    uint32_t asked          # ... has sent
    uint32_t answered
    uint32_t rank           # its place in the order in which messages fall due
    uint16_t attempts       # that failed since it was open
    int64_t since_ns        # when it was to be dialled, was held; a NEW one: not before
    uint64_t frame_left
    uint64_t message_at     # bytes of the message so far
    uint8_t* message        # where it must be kept: in a broadcast, a cut response head
    uint8_t* control        # a control frame that is cut
    uint8_t* out            # what the kernel did not take
    uint32_t message_room
    uint32_t out_at
    uint32_t out_size

cdef class Peers:
    cdef Row row
    cdef Sheet* sheet
    cdef Counters* count
    cdef Peer* peers
    cdef int size, first_number         # the number of the first, over all processes
    cdef int special
    cdef Manner manner
    cdef int epoll
    cdef int64_t now, wake_ns
    cdef uint64_t chance
    cdef uint8_t* scratch
    cdef size_t scratch_size

    cdef void ended(self, Peer* peer) noexcept nogil
    cdef bint writable(self, Peer* peer) noexcept nogil
    cdef ssize_t receive(self, Peer* peer, uint8_t* buffer, size_t room) noexcept nogil
    cdef void wake(self, int64_t at) noexcept nogil
    cdef uint64_t random(self) noexcept nogil
    cdef void watch(self, Peer* peer, int operation) noexcept nogil
    cdef bint put(self, Peer* peer, const uint8_t* data, size_t size) noexcept nogil
    cdef void deaf(self, Peer* peer) noexcept nogil
    cdef bint flush(self, Peer* peer) noexcept nogil
    cdef size_t pack(self, uint8_t* to, int opcode, const uint8_t* payload, size_t size) noexcept nogil
    cdef bint put_frame(self, Peer* peer, int opcode, const uint8_t* payload, size_t size) noexcept nogil
    cdef void note(self, Call call) noexcept nogil
    cdef void note_errno(self, Call call, int number) noexcept nogil
    cdef bint is_special(self, Peer* peer) noexcept nogil
    cdef bint keep_bytes(self, Peer* peer, const uint8_t* at, size_t n) noexcept nogil
