"""How bytes leave: answers corked together, frames queued for slow peers."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from unlimitedws.engine.codec cimport Event
from unlimitedws.engine.table cimport Entry, Table

# A stretch of the broadcast log that a connection has still to get.
cdef struct Range:
    uint32_t start
    uint32_t end


cdef class Sender(Table):
    cdef list drain_hooks
    cdef uint64_t queue_limit, high_water, low_water
    cdef bint drops                     # the policy at queue_limit: drop the message, else close
    cdef uint32_t* dirty                # connections to flush at the end of the turn
    cdef size_t dirty_room
    cdef Range* ranges                  # NULL until a broadcast
    cdef size_t deflate_threshold
    cdef int deflate_level
    cdef uint64_t message_limit         # of a message that comes, as it is and inflated
    cdef dict compressors               # window bits -> Compressor
    cdef dict contexts                  # descriptor -> Context, of those with context takeover

    cdef int too_slow(self, int fd, Entry* e) except -1
    cdef int begin(self, int fd) except -1
    cdef bint cork_bytes(self, bytes data) except -1
    cdef int finish(self, int fd, Entry* e) except -1
    cdef int finish_gone(self) except -1
    cdef int uncork(self, int fd, Entry* e) except -1
    cdef int send_now(self, int fd, Entry* e, bytes data) except -1
    cdef bytes seal(self, int fd, Entry* e, bytes data)
    cdef int queue_plain(self, int fd, Entry* e, const uint8_t* data, size_t size) except -1
    cdef int queue_cork(self, int fd, Entry* e) except -1
    cdef bint part_tls(self, int fd, Entry* e) except -1
    cdef int queue_rest(self, int fd, Entry* e, ssize_t n, uint8_t* data, size_t size) except -1
    cdef int enqueue(self, Entry* e, const uint8_t* data, size_t size) except -1
    cdef bytes deflated(self, int fd, Entry* e, const uint8_t* data, size_t size)
    cdef object terms(self, Entry* e)
    cdef object compressor(self, int bits)
    cdef object inflated(self, int fd, Entry* e, int opcode, Event* event)
    cdef int send_direct(self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner) except -1
    cdef int enqueue_payload(self, Entry* e, const uint8_t* data, size_t size, object owner) except -1
    cdef int queue_frame(self, int fd, Entry* e, uint8_t* head, size_t head_size, const uint8_t* data, size_t size, object owner) except -1
    cdef bint under_high_water(self, int fd, Entry* e) except -1
    cdef bint makes_room(self, int fd, Entry* e, size_t size) except -1
    cdef size_t waiting_bytes(self, int fd, Entry* e) noexcept
    cdef int make_dirty(self, int fd, Entry* e) except -1
    cdef int flush_dirty(self) except -1
    cdef int flush(self, int fd, Entry* e) except -1
    cdef int blocked(self, int fd, Entry* e) except -1
    cdef int fell(self, int fd, Entry* e) except -1
    cdef int drained(self, int fd, Entry* e) except -1
    cdef void note_progress(self, Entry* e) noexcept
    cdef int discard_output(self, int fd, Entry* e) except -1
    cdef int pong(self, int fd, Entry* e, uint8_t* payload, size_t size) except -1

    # What Broadcasting gives.
    cdef ssize_t flush_range(self, int fd, Entry* e) except -2
    cdef int settle_range(self, int fd, Entry* e) except -1
    cdef int rewind_log(self) except -1
