"""A connection, as Python sees it, while Python holds it."""

from libc.stdint cimport uint32_t, uint64_t

from unlimitedws.engine.table cimport Entry, Table


cdef class Connection:
    cdef Table engine
    cdef Entry* entry           # NULL after the end
    cdef readonly uint64_t id
    cdef readonly bint resumed
    cdef int fd
    cdef uint32_t holds
    cdef Py_ssize_t posted      # bytes on their way from other threads
    cdef object _state
    cdef tuple facts            # (path, subprotocol, remote address) after the end
    cdef tuple ending           # the on_close call that waits for the last hold
    cdef object __weakref__

    cdef bint send_later(self, object message, object text) except -1


cdef bytes message_bytes(object message)
cdef int check_message(object message, object text) except -1
