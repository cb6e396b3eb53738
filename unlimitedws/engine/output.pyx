# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The output queue of a slow peer, and the pool its blocks come from.

One pool for each process: a worker is one thread, and several engines in one process (tests,
notebooks) hold the interpreter lock while they are in here."""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from unlimitedws.engine.kernel cimport MSG_NOSIGNAL, iovec, msghdr, sendmsg

cdef enum:
    POOL_KEEPS = 256        # free blocks kept: 1 MiB
    SENT_AT_ONCE = 64       # segments for each system call

cdef Block* pool = NULL
cdef size_t pooled = 0
cdef long held = 0


cdef Block* block_new(size_t room) noexcept:
    """A block with at least this much room, one reference, nothing in it; NULL: out of memory."""
    global pool, pooled, held
    cdef Block* block = pool
    cdef size_t least = BLOCK_BYTES - sizeof(Block)
    if room <= least:
        if block != NULL:
            pool = block.next
            pooled -= 1
        else:
            block = <Block*>malloc(BLOCK_BYTES)
        room = least
    else:
        block = <Block*>malloc(sizeof(Block) + room)
    if block == NULL:
        return NULL
    memset(block, 0, sizeof(Block))
    block.data = <uint8_t*>block + sizeof(Block)
    block.room = room
    block.refs = 1
    held += 1
    return block


cdef Block* block_of(object owner, uint8_t* data, size_t size) noexcept:
    """A block over the memory of an immutable Python object, which it keeps alive."""
    global held
    cdef Block* block = <Block*>malloc(sizeof(Block))
    if block == NULL:
        return NULL
    memset(block, 0, sizeof(Block))
    Py_INCREF(owner)
    block.owner = <PyObject*>owner
    block.data = data
    block.size = block.room = size
    block.refs = 1
    held += 1
    return block


cdef void block_release(Block* block) noexcept:
    global pool, pooled, held
    block.refs -= 1
    if block.refs:
        return
    held -= 1
    if block.owner != NULL:
        Py_DECREF(<object>block.owner)
        free(block)
    elif block.room == BLOCK_BYTES - sizeof(Block) and pooled < POOL_KEEPS:
        block.next = pool
        pool = block
        pooled += 1
    else:
        free(block)


cdef void pool_trim() noexcept:
    """Gives the free blocks back."""
    global pool, pooled
    cdef Block* block
    while pool != NULL:
        block = pool
        pool = block.next
        free(block)
    pooled = 0


cdef long blocks_held() noexcept:
    return held


cdef Segment* append(Output* output) noexcept:
    cdef Segment* grown
    cdef uint32_t room, i
    if output.count == output.room:
        room = output.room * 2 if output.room else 4
        grown = <Segment*>malloc(room * sizeof(Segment))
        if grown == NULL:
            return NULL
        for i in range(output.count):
            grown[i] = output.segments[(output.first + i) & (output.room - 1)]
        free(output.segments)
        output.segments = grown
        output.first = 0
        output.room = room
    output.count += 1
    return &output.segments[(output.first + output.count - 1) & (output.room - 1)]


cdef bint output_share(Output* output, Block* block, uint8_t* data, size_t size) noexcept:
    """Queues part of a block, without a copy. False: out of memory, nothing queued."""
    cdef Segment* segment = append(output)
    if segment == NULL:
        return False
    block.refs += 1
    segment.block = block
    segment.data = data
    segment.size = size
    output.bytes += size
    return True


cdef bint output_copy(Output* output, const uint8_t* data, size_t size) noexcept:
    """Queues a copy, in the last block where that is this queue's own and has room."""
    cdef Segment* last
    cdef Block* block
    cdef bint queued
    if size == 0:
        return True
    if output.count:
        last = &output.segments[(output.first + output.count - 1) & (output.room - 1)]
        block = last.block
        if (block.refs == 1 and block.owner == NULL and last.data + last.size == block.data + block.size
                and block.room - block.size >= size):
            memcpy(block.data + block.size, data, size)
            block.size += size
            last.size += size
            output.bytes += size
            return True
    block = block_new(size)
    if block == NULL:
        return False
    memcpy(block.data, data, size)
    block.size = size
    queued = output_share(output, block, block.data, size)
    block_release(block)  # now the segment's alone
    return queued


cdef void taken(Output* output, size_t size) noexcept:
    """Drops what the kernel took."""
    cdef Segment* segment
    output.bytes -= size
    output.sent += size
    while output.count:
        segment = &output.segments[output.first]
        if segment.size > size:
            segment.data += size
            segment.size -= size
            return
        size -= segment.size
        block_release(segment.block)
        output.first = (output.first + 1) & (output.room - 1)
        output.count -= 1


cdef ssize_t output_send(Output* output, int fd) noexcept:
    """Sends until the kernel takes no more; bytes taken, or -errno where the connection is broken."""
    cdef iovec parts[SENT_AT_ONCE]
    cdef msghdr message
    cdef Segment* segment
    cdef ssize_t n, total = 0
    cdef size_t offered
    cdef uint32_t i, count
    while output.count:
        count = min(output.count, <uint32_t>SENT_AT_ONCE)
        offered = 0
        for i in range(count):
            segment = &output.segments[(output.first + i) & (output.room - 1)]
            parts[i].iov_base = segment.data
            parts[i].iov_len = segment.size
            offered += segment.size
        memset(&message, 0, sizeof(message))
        message.msg_iov = parts
        message.msg_iovlen = count
        n = sendmsg(fd, &message, MSG_NOSIGNAL)
        if n < 0:
            if errno == EINTR:
                continue
            return total if errno == EAGAIN else -errno
        taken(output, n)
        total += n
        if <size_t>n < offered:
            break
    return total


cdef void output_free(Output* output) noexcept:
    taken(output, output.bytes)
    free(output.segments)
    memset(output, 0, sizeof(Output))
