# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The native codec. Its twins, which are its specification: `wire.frames.Reader`, `wire.head`."""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_DECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy, memset

from unlimitedws.wire.closing import Cause


cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t n, const void* needle, size_t m)
    int strncasecmp(const char* a, const char* b, size_t n)


# ---- frames ----------------------------------------------------------------------------------

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


# ---- the clean upgrade request ----------------------------------------------------------------

cdef uint8_t TOKEN[256]    # RFC 9110, section 5.6.2
cdef uint8_t BASE64[256]   # RFC 4648, section 4
cdef uint8_t HOST[256]     # RFC 3986, section 2.3: unreserved characters

for _c in bytearray(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"):
    TOKEN[_c] = 1
for _c in bytearray(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
    BASE64[_c] = 1
for _c in bytearray(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~"):
    HOST[_c] = 1


cdef Py_ssize_t head_end(const uint8_t* p, size_t n, size_t searched) noexcept nogil:
    """Size of the head with its empty line, or 0; `searched` bytes are known not to hold its end."""
    cdef size_t start = searched - 3 if searched > 3 else 0
    cdef const uint8_t* found
    if n <= start:
        return 0
    found = <const uint8_t*>memmem(p + start, n - start, b"\r\n\r\n", 4)
    return found - p + 4 if found != NULL else 0


cdef bint may_begin(uint8_t first) noexcept nogil:
    """See `wire.head.may_begin`."""
    return TOKEN[first]


cdef bint is_word(const uint8_t* p, size_t n, const char* word, size_t size) noexcept nogil:
    return n == size and strncasecmp(<const char*>p, word, size) == 0


cdef bint lists_upgrade(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """Whether a comma-separated list holds the token `upgrade` (RFC 9110, section 7.6.1)."""
    cdef const uint8_t* stop
    cdef const uint8_t* last
    while p < end:
        stop = <const uint8_t*>memchr(p, b",", end - p)
        if stop == NULL:
            stop = end
        last = stop
        while p < last and (p[0] == b" " or p[0] == b"\t"):
            p += 1
        while last > p and ((last - 1)[0] == b" " or (last - 1)[0] == b"\t"):
            last -= 1
        if is_word(p, last - p, b"upgrade", 7):
            return True
        p = stop + 1
    return False


cdef bint is_key(const uint8_t* p, size_t n) noexcept nogil:
    """Base64 of 16 bytes: 22 digits and two pads."""
    cdef int i
    if n != 24 or p[22] != b"=" or p[23] != b"=":
        return False
    for i in range(22):
        if not BASE64[p[i]]:
            return False
    return True


cdef const uint8_t* parse_request_line(const uint8_t* p, const uint8_t* end, Request* out) noexcept nogil:
    """Past `GET /path?query HTTP/1.1 CR LF`; NULL when it is anything else or needs decoding."""
    cdef const uint8_t* start
    if end - p < 16 or strncasecmp(<const char*>p, b"GET /", 5) != 0 or p[0] != b"G" or p[1] != b"E" or p[2] != b"T":
        return NULL
    start = p + 4
    p = start
    while p < end and 0x21 <= p[0] <= 0x7E and p[0] != b"?":
        if p[0] == b"%" or p[0] == b"#":
            return NULL
        p += 1
    out.target = start
    out.target_size = p - start
    while p < end and 0x21 <= p[0] <= 0x7E and p[0] != b"#":
        p += 1
    if end - p < 11 or p[0] != b" " or p[1] != b"H" or strncasecmp(<const char*>p, b" HTTP/1.1\r\n", 11) != 0:
        return NULL
    return p + 11 if p[2] == b"T" and p[3] == b"T" and p[4] == b"P" else NULL


cdef int parse_upgrade(const uint8_t* p, size_t n, size_t searched, Request* out) noexcept nogil:
    """Size of the head at p when it is a clean upgrade request; INCOMPLETE; or NOT_CLEAN.

    NOT_CLEAN is no verdict: the head goes to the full parser (`wire.handshake`), which answers what
    this one leaves out: escapes, subprotocols, bodies, plain HTTP and every error. What is accepted
    here must be accepted there with the same meaning."""
    cdef Py_ssize_t size = head_end(p, n, searched)
    cdef const uint8_t* end
    cdef const uint8_t* name
    cdef const uint8_t* value
    cdef const uint8_t* line_end
    cdef size_t length
    cdef int hosts = 0, keys = 0, versions = 0, upgrades = 0, connections = 0
    if size == 0:
        return INCOMPLETE
    end = p + size - 2
    p = parse_request_line(p, end, out)
    if p == NULL:
        return NOT_CLEAN
    while p < end:
        name = p
        while p < end and TOKEN[p[0]]:
            p += 1
        length = p - name
        if length == 0 or p[0] != b":":
            return NOT_CLEAN
        p += 1
        while p < end and (p[0] == b" " or p[0] == b"\t"):
            p += 1
        value = p
        while p < end and (p[0] >= 0x20 or p[0] == b"\t") and p[0] != 0x7F:
            p += 1
        if end - p < 2 or p[0] != b"\r" or p[1] != b"\n":
            return NOT_CLEAN
        line_end = p
        while line_end > value and ((line_end - 1)[0] == b" " or (line_end - 1)[0] == b"\t"):
            line_end -= 1
        p += 2
        if length == 4 and is_word(name, 4, b"host", 4):
            hosts += 1
            if not plain_host(value, line_end):
                return NOT_CLEAN
        elif length == 7 and is_word(name, 7, b"upgrade", 7):
            upgrades += 1
            if not is_word(value, line_end - value, b"websocket", 9):
                return NOT_CLEAN
        elif length == 10 and is_word(name, 10, b"connection", 10):
            connections += 1
            if not lists_upgrade(value, line_end):
                return NOT_CLEAN
        elif length == 17 and is_word(name, 17, b"sec-websocket-key", 17):
            keys += 1
            out.key = value
            if not is_key(value, line_end - value):
                return NOT_CLEAN
        elif length == 21 and is_word(name, 21, b"sec-websocket-version", 21):
            versions += 1
            if line_end - value != 2 or value[0] != b"1" or value[1] != b"3":
                return NOT_CLEAN
        elif (is_word(name, length, b"sec-websocket-protocol", 22) or is_word(name, length, b"content-length", 14)
              or is_word(name, length, b"transfer-encoding", 17) or is_word(name, length, b"expect", 6)):
            return NOT_CLEAN
    if hosts == 1 and upgrades == 1 and connections == 1 and keys == 1 and versions == 1:
        return <int>size
    return NOT_CLEAN


cdef bint plain_host(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """A name or IPv4 address and perhaps a port (RFC 3986, section 3.2.2, without escapes and brackets)."""
    cdef const uint8_t* start = p
    while p < end and HOST[p[0]]:
        p += 1
    if p == start:
        return False
    if p < end and p[0] == b":":
        p += 1
        while p < end and b"0" <= p[0] <= b"9":
            p += 1
    return p == end


def clean_upgrade(bytes head not None):
    """(size of the head, target without query, key) when `head` starts with a clean upgrade request;
    0 when it is incomplete, None when it is for the full parser. For tests: the engine calls
    `parse_upgrade`."""
    cdef Request request
    cdef int size = parse_upgrade(<const uint8_t*>PyBytes_AS_STRING(head), len(head), 0, &request)
    if size == INCOMPLETE:
        return 0
    if size == NOT_CLEAN:
        return None
    return size, request.target[:request.target_size], request.key[:24]


# ---- the reader, for tests --------------------------------------------------------------------

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
