# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The heads of requests, as far as they are clean upgrades. The twin, which is its specification: `wire.head`."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp


cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t n, const void* needle, size_t m)
    int strncasecmp(const char* a, const char* b, size_t n)


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


cdef bint lists(const uint8_t* p, size_t n, const char* token, size_t size, bint cased) noexcept nogil:
    """Whether a comma-separated list holds the token (RFC 9110, section 5.6.1)."""
    cdef const uint8_t* end = p + n
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
        if <size_t>(last - p) == size and (memcmp(p, token, size) if cased else strncasecmp(<const char*>p, token, size)) == 0:
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
            if not lists(value, line_end - value, b"upgrade", 7, False):
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
