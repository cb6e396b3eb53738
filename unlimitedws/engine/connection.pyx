# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""What a handler is handed: the native side of `unlimitedws.Connection`, which documents it."""

from functools import partial

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t

from unlimitedws.engine cimport codec
from unlimitedws.engine.kernel cimport this_thread, PyUnicode_AsUTF8AndSize
from unlimitedws.engine.table cimport CLOSING, DEPARTING, OPEN, PINNED, PONG_DUE

from unlimitedws.wire import closing
from unlimitedws.wire.closing import Cause


# no_gc_clear: when the collector breaks a cycle it must not take `engine` from under `entry`.
@cython.final
@cython.freelist(64)
@cython.no_gc_clear
cdef class Connection:
    """See `unlimitedws.Connection`."""

    def __init__(self):
        raise TypeError("connections are made by the server")

    def __dealloc__(self):
        if self.entry != NULL:
            self.entry.connection = NULL

    def __repr__(self):
        return f"<Connection {self.id} {self.path!r} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self):
        return self.entry != NULL and (self.entry.phase == OPEN or self.entry.phase == DEPARTING)

    @property
    def state(self):
        return self._state

    @state.setter
    def state(self, value):
        self._state = value
        if self.entry == NULL:
            return
        if value is not None and not self.entry.flags & PINNED:
            self.entry.flags |= PINNED
            Py_INCREF(self)
        elif value is None and self.entry.flags & PINNED:
            self.entry.flags &= ~PINNED
            Py_DECREF(self)

    @property
    def path(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[0]

    @property
    def subprotocol(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[1]

    @property
    def remote_address(self):
        return (self.facts or self.engine.facts(self.fd, self.entry))[2]

    @property
    def queued_bytes(self):
        if self.entry == NULL:
            return 0
        return self.engine.queued(self.fd, self.entry) + self.posted

    def send(self, message, *, text=None):
        cdef const uint8_t* data
        cdef Py_ssize_t size
        cdef Py_buffer view
        cdef int opcode
        if this_thread() != self.engine.thread:
            return self.engine.post_send(self, message, text)
        if self.entry == NULL or self.entry.phase != OPEN:
            return self.send_later(message, text)
        if type(message) is bytes and text is None:
            data, size, opcode = <const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message), codec.BINARY
            if self.engine.put_short(self.fd, self.entry, opcode, data, size):
                return True
            return self.engine.put(self.fd, self.entry, opcode, data, size, message, False) == 1
        if isinstance(message, str):
            data = <const uint8_t*>PyUnicode_AsUTF8AndSize(message, &size)
            opcode = codec.BINARY if text is False else codec.TEXT
            if self.engine.put_short(self.fd, self.entry, opcode, data, size):
                return True
            return self.engine.put(self.fd, self.entry, opcode, data, size, message, False) == 1
        check_message(message, text)
        if type(message) is memoryview and not message.c_contiguous:
            message = bytes(message)
        opcode = codec.TEXT if text else codec.BINARY
        PyObject_GetBuffer(message, &view, PyBUF_SIMPLE)
        try:
            # Only bytes stay as they are: what may change later is copied when it has to wait.
            owner = message if type(message) is bytes else None
            return self.engine.put(self.fd, self.entry, opcode, <uint8_t*>view.buf, view.len, owner, False) == 1
        finally:
            PyBuffer_Release(&view)

    cdef bint send_later(self, object message, object text) except -1:
        """To one that departs. False: it is over."""
        if self.entry == NULL or self.entry.phase != DEPARTING:
            return False
        check_message(message, text)
        if not isinstance(message, (str, bytes)):
            message = bytes(message)
        return self.engine.say_later(self.fd, self.entry, ("send", message, text))

    def close(self, code=1000, reason=""):
        payload = closing.pack_close(code, reason)
        if this_thread() != self.engine.thread:
            self.engine.call_soon_threadsafe(partial(self.close, code, reason))
        elif self.entry != NULL and not self.engine.say_later(self.fd, self.entry, ("close", code, reason)):
            self.engine.close_politely(self.fd, self.entry, payload, code, reason, Cause.APP_CLOSED)

    def abort(self):
        if this_thread() != self.engine.thread:
            self.engine.call_soon_threadsafe(self.abort)
        elif self.entry == NULL or self.engine.say_later(self.fd, self.entry, ("abort",)):
            return
        elif self.entry.phase == OPEN or self.entry.phase == CLOSING:
            self.engine.lose(self.fd, self.entry, Cause.APP_ABORTED)

    def ping(self, payload=b""):
        payload = bytes(payload)
        if len(payload) > codec.MAX_CONTROL:
            raise ValueError(f"ping payload of {len(payload)} bytes; the limit is {codec.MAX_CONTROL}")
        if this_thread() != self.engine.thread:
            self.engine.call_soon_threadsafe(partial(self.ping, payload))
        elif self.entry == NULL or self.engine.say_later(self.fd, self.entry, ("ping", payload)):
            return
        elif self.entry.phase == OPEN:
            self.entry.flags |= PONG_DUE
            self.engine.put(self.fd, self.entry, codec.PING, <uint8_t*>PyBytes_AS_STRING(payload), len(payload), None, True)


cdef bytes message_bytes(object message):
    """The payload of a message of any accepted type."""
    return message.encode() if isinstance(message, str) else bytes(message)


cdef int check_message(object message, object text) except -1:
    """Raises what `send` promises to raise, whatever the state of the connection."""
    cdef bytes data
    if isinstance(message, str):
        return 0
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise TypeError(f"a message is str, bytes, bytearray or memoryview, not {type(message).__name__}")
    if text:
        data = bytes(message)
        if not codec.valid_utf8(<uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
            raise ValueError("send(..., text=True) needs valid UTF-8")
    return 0


def posted_send(Connection connection, message, text, Py_ssize_t size):
    """The loop's half of a `send` from another thread."""
    connection.posted -= size
    connection.send(message, text=text)
