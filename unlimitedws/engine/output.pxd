"""Bytes on their way to a peer that the kernel has not taken yet."""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    BLOCK_BYTES = 4096      # of a pooled block, its header included: a page

# Memory that several queues may share: a broadcast is packed once, however many peers are slow.
cdef struct Block:
    Block* next             # in the pool
    PyObject* owner         # a Python object whose memory `data` is; NULL: the block's own
    uint8_t* data
    size_t size             # bytes filled
    size_t room
    uint32_t refs           # segments (and the engine's log) that hold it

cdef struct Segment:
    Block* block
    uint8_t* data
    size_t size

# A queue of segments: a ring that grows. All zero: empty.
cdef struct Output:
    Segment* segments
    uint32_t first
    uint32_t count
    uint32_t room           # a power of two
    size_t bytes            # waiting
    uint64_t sent           # since the queue was made, so that a place in it can be remembered

cdef Block* block_new(size_t room) noexcept
cdef Block* block_of(object owner, uint8_t* data, size_t size) noexcept
cdef void block_release(Block* block) noexcept
cdef void pool_trim() noexcept
cdef long blocks_held() noexcept

cdef bint output_copy(Output* output, const uint8_t* data, size_t size) noexcept
cdef bint output_share(Output* output, Block* block, uint8_t* data, size_t size) noexcept
cdef ssize_t output_send(Output* output, int fd) noexcept
cdef void output_free(Output* output) noexcept
