# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The native codec. Its twin, which is its specification: `wire.frames.Reader`."""

from cpython.ref cimport Py_DECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from unlimitedws.wire.closing import Cause


cdef int pack_head(uint8_t* out, int opcode, uint64_t size) noexcept nogil:
    cdef int i
    out[0] = <uint8_t>(0x80 | opcode)
    if size < 126:
        out[1] = <uint8_t>size
        return 2
    if size < 65536:
        out[1] = 126
        out[2] = <uint8_t>(size >> 8)
        out[3] = <uint8_t>size
        return 4
    out[1] = 127
    for i in range(8):
        out[2 + i] = <uint8_t>(size >> (56 - 8 * i))
    return 10


cdef bint may_be_sent(uint32_t code) noexcept nogil:
    # Section 7.4 and the IANA registry; the twin is wire.closing.may_be_sent.
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


cdef bint valid_utf8(const uint8_t* data, size_t size) noexcept nogil:
    cdef uws_utf8 state
    memset(&state, 0, sizeof(state))
    return uws_utf8_feed(&state, data, size) and state.need == 0


cdef int violation(Event* event, uint16_t code) noexcept nogil:
    event.code = code
    return VIOLATION


cdef int measure_head(const uint8_t* p, size_t n, bint deflates, uint64_t* length) noexcept nogil:
    """Bytes of the frame head at p, with the payload length; 0: more needed; < 0: a violation.

    deflates: RSV1 may stand on the first frame of a message (RFC 7692, section 6). Everything that two bytes can show is refused with those two bytes."""
    cdef uint8_t opcode, small
    cdef uint64_t size
    cdef int i
    if n < 2:
        return 0
    opcode = p[0] & 0x0F
    small = p[1] & 0x7F
    if not p[1] & 0x80:  # unmasked (section 5.1)
        return -1
    if p[0] & 0x70 and not (deflates and p[0] & 0x70 == RSV1 and (opcode == TEXT or opcode == BINARY)):
        return -1  # reserved bits without an extension
    if opcode > BINARY and (opcode < CLOSE or opcode > PONG):
        return -1
    if opcode >= CLOSE and (not p[0] & 0x80 or small > MAX_CONTROL):  # section 5.5
        return -1
    if small < 126:
        length[0] = small
        return 6 if n >= 6 else 0
    if small == 126:
        if n < 4:
            return 0
        length[0] = <uint64_t>p[2] << 8 | p[3]
        if length[0] < 126:  # the shortest form must be used (section 5.2)
            return -1
        return 8 if n >= 8 else 0
    if n < 10:
        return 0
    size = 0
    for i in range(8):
        size = size << 8 | p[2 + i]
    if size < 65536 or size >> 63:
        return -1
    length[0] = size
    return MAX_HEAD if n >= MAX_HEAD else 0


cdef int take_head(
    Reader* r, uint8_t** at, uint8_t* end, bint deflates, uint64_t* length, const uint8_t** head
) noexcept nogil:
    """The next frame head, from the input or collected over several reads; as `measure_head`."""
    cdef int size
    if r.head_size == 0:
        size = measure_head(at[0], end - at[0], deflates, length)
        if size > 0:
            head[0] = at[0]
            at[0] += size
        elif size == 0:
            r.head_size = <uint8_t>(end - at[0])
            memcpy(r.head, at[0], r.head_size)
            at[0] = end
        return size
    while at[0] < end:
        r.head[r.head_size] = at[0][0]
        r.head_size += 1
        at[0] += 1
        size = measure_head(r.head, r.head_size, deflates, length)
        if size != 0:
            head[0] = r.head
            return size
    return 0


cdef bint grow(Reader* r, uint64_t more) noexcept nogil:
    """Room for `more` bytes that have arrived: by doubling, never for what was only announced."""
    cdef uint64_t room = r.message_room
    cdef void* moved
    if r.message_size + more <= room:
        return True
    room = max(<uint64_t>4096, room * 2, r.message_size + more)
    moved = realloc(r.message, room)
    if moved == NULL:
        return False
    r.message = <uint8_t*>moved
    r.message_room = room
    return True


cdef int close_event(Event* event, uint8_t* data, size_t size) noexcept nogil:
    # Section 5.5.1. `data` is unmasked.
    event.code = NO_STATUS
    event.data = data
    event.size = 0
    event.mask = 0
    if size == 0:
        return CLOSE
    if size == 1:
        return violation(event, 1002)
    event.code = <uint16_t>(data[0] << 8 | data[1])
    event.data = data + 2
    event.size = size - 2
    if not may_be_sent(event.code):
        return violation(event, 1002)
    if not valid_utf8(event.data, event.size):
        return violation(event, 1007)
    return CLOSE


cdef int control_event(Event* event, int opcode, uint8_t* data, size_t size) noexcept nogil:
    if opcode == CLOSE:
        return close_event(event, data, size)
    event.data = data
    event.size = size
    event.mask = 0
    return opcode


cdef int collect(Reader* r, uint8_t** at, uint8_t* end, Event* event) noexcept nogil:
    """Goes on with a frame that is not whole in the input. CONTINUATION: a fragment ended, look on."""
    cdef uint64_t n = min(<uint64_t>(end - at[0]), r.frame_left)
    cdef uint8_t* to
    if r.opcode >= CLOSE:
        to = r.control + r.control_size
        r.control_size += <uint8_t>n
    else:
        if not grow(r, n):
            return violation(event, 1009)
        to = r.message + r.message_size
        r.message_size += n
    if n:
        uws_unmask(to, at[0], n, r.mask)
        r.mask = uws_rotate(r.mask, n)
        at[0] += n
        r.frame_left -= n
    if r.opcode < CLOSE and r.message_opcode == TEXT and not r.compressed and not uws_utf8_feed(&r.utf8, to, n):
        return violation(event, 1007)
    if r.frame_left:
        return NEED_MORE
    r.in_frame = 0
    if r.opcode >= CLOSE:
        return control_event(event, r.opcode, r.control, r.control_size)
    if not r.fin:
        return CONTINUATION
    if r.message_opcode == TEXT and not r.compressed and r.utf8.need:
        return violation(event, 1007)
    event.compressed = r.compressed
    event.data = r.message
    event.size = r.message_size
    event.mask = 0
    event.assembled = True
    return r.message_opcode


cdef int next_event(
    Reader* r, uint8_t** at, uint8_t* end, uint64_t limit, bint deflates, Event* event
) noexcept nogil:
    """The next whole message or control frame in at[0]..end, which advances; else NEED_MORE or VIOLATION.

    deflates: permessage-deflate was agreed. A compressed message is handed out as it came; its payload may be as long
    as `wire.deflate.most_packed` says, and `limit` holds for what it becomes, which is whoever's inflates it.

    A frame that is whole in the input is handed out where it lies: no copy, no state."""
    cdef const uint8_t* head = NULL
    cdef uint64_t length = 0, most
    cdef int size, kind
    cdef uint32_t mask
    cdef uint8_t opcode
    event.assembled = event.compressed = False
    while True:
        if not r.in_frame:
            if at[0] == end:
                return NEED_MORE
            size = take_head(r, at, end, deflates, &length, &head)
            if size < 0:
                return violation(event, 1002)
            if size == 0:
                return NEED_MORE
            r.head_size = 0
            opcode = head[0] & 0x0F
            memcpy(&mask, head + size - 4, 4)
            if opcode >= CLOSE:
                if <uint64_t>(end - at[0]) >= length:
                    uws_unmask(at[0], at[0], length, mask)
                    at[0] += length
                    return control_event(event, opcode, at[0] - length, length)
                r.control_size = 0
            else:
                # Section 5.4: a continuation inside a message and nothing else, none between messages.
                if (opcode == CONTINUATION) != (r.message_opcode != 0):
                    return violation(event, 1002)
                most = limit
                if (head[0] & RSV1 if opcode else r.compressed) != 0:
                    most += (limit >> 3) + 64
                if length > most or r.message_size + length > most:
                    return violation(event, 1009)
                if opcode and head[0] & 0x80 and <uint64_t>(end - at[0]) >= length:
                    event.data = at[0]
                    event.size = length
                    event.mask = mask
                    event.compressed = head[0] & RSV1 != 0
                    at[0] += length
                    return opcode
                if opcode:
                    r.message_opcode = opcode
                    r.compressed = head[0] & RSV1 != 0
                    memset(&r.utf8, 0, sizeof(r.utf8))
            r.opcode = opcode
            r.fin = head[0] >> 7
            r.frame_left = length
            r.mask = mask
            r.in_frame = 1
        kind = collect(r, at, end, event)
        if kind != CONTINUATION:
            return kind


cdef void message_taken(Reader* r) noexcept nogil:
    free(r.message)
    r.message = NULL
    r.message_size = r.message_room = 0
    r.message_opcode = 0


cdef void reader_free(Reader* r) noexcept nogil:
    free(r.message)
    memset(r, 0, sizeof(Reader))


cdef bint reader_clean(Reader* r) noexcept nogil:
    return not (r.in_frame or r.head_size or r.message_opcode)


cdef object take_payload(int opcode, Event* event):
    """The payload as str or bytes, unmasked on its way into the object; None: not UTF-8."""
    cdef PyObject* result = NULL
    if opcode == BINARY:
        uws_bytes(&result, event.data, event.size, event.mask)
        return owned(result)
    if uws_ascii(&result, event.data, event.size, event.mask):
        return owned(result)
    uws_unmask(event.data, event.data, event.size, event.mask)
    event.mask = 0
    try:
        return PyUnicode_DecodeUTF8(<char*>event.data, event.size, NULL)
    except UnicodeDecodeError:
        return None


cdef inline object owned(PyObject* new):
    """Takes over a reference that C code has made."""
    result = <object>new
    Py_DECREF(result)
    return result


# ---- the reader, for tests

CAUSES = {1002: Cause.PROTOCOL_ERROR, 1007: Cause.INVALID_DATA, 1009: Cause.MESSAGE_TOO_BIG}


cdef class PyReader:
    """One peer's frames; the twin of `wire.frames.Reader`, with the same events."""

    cdef Reader reader
    cdef uint64_t limit
    cdef bint ended
    cdef public bint deflate

    def __cinit__(self, message_bytes):
        self.limit = message_bytes

    def __dealloc__(self):
        reader_free(&self.reader)

    @property
    def is_clean(self):
        """Between messages, with nothing buffered."""
        return reader_clean(&self.reader) and not self.ended

    def feed(self, data):
        """Events of the bytes that came; after a close or a violation there are no more."""
        # A fresh copy, of exactly that size: the reader unmasks in place, and a sanitizer sees every
        # read past its end.
        cdef bytearray copy = bytearray(data)
        cdef uint8_t* at = copy
        cdef uint8_t* end = at + len(copy)
        cdef Event event
        cdef int kind
        cdef list events = []
        while not self.ended:
            kind = short_message(&self.reader, &at, end, self.limit, &event)
            if kind == NEED_MORE:
                kind = next_event(&self.reader, &at, end, self.limit, self.deflate, &event)
            if kind == NEED_MORE:
                break
            events.append(self.describe(kind, &event))
            if event.assembled:
                message_taken(&self.reader)
        return events

    cdef object describe(self, int kind, Event* event):
        cdef object payload
        if event.compressed and (kind == TEXT or kind == BINARY):
            return "compressed", kind, take_payload(BINARY, event)
        if kind == TEXT or kind == BINARY:
            payload = take_payload(kind, event)
            if payload is not None:
                return ("text" if kind == TEXT else "binary"), payload
            event.code = 1007
            kind = VIOLATION
        if kind == VIOLATION:
            self.ended = True
            return "violation", CAUSES[event.code], event.code
        payload = event.data[:event.size] if event.size else b""
        if kind == CLOSE:
            self.ended = True
            return "close", event.code, payload.decode()
        return ("ping" if kind == PING else "pong"), payload
