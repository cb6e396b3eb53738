# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, binding=False
"""The native side of `contract.Pipe`. What it is asked for, `opening.pyx` does."""

cimport cython
from libc.stdint cimport uint32_t

from unlimitedws.engine.kernel cimport clock_ms
from unlimitedws.engine.table cimport STREAM


@cython.final
@cython.freelist(64)
cdef class Pipe:
    """See `contract.Pipe`."""

    def __init__(self):
        raise TypeError("pipes are made by the engine")

    cdef bint is_streaming(self) noexcept:
        return self.entry != NULL and self.entry.id == self.id and self.entry.phase == STREAM

    @property
    def remote_address(self):
        if self.entry != NULL and self.entry.id == self.id:
            self.address = self.engine.address(self.fd, self.entry)
        return self.address

    @property
    def tls(self):
        if self.entry == NULL or self.entry.id != self.id:
            return None
        return self.engine.tls_of(self.fd, self.entry)

    @property
    def waited_s(self):
        if self.entry == NULL or self.entry.id != self.id:
            return 0.0
        return <uint32_t>(clock_ms() - self.entry.active_ms) / 1000.0

    def write(self, bytes data not None):
        return not self.is_streaming() or self.engine.pipe_write(self.fd, self.entry, data)

    def pause(self):
        if self.is_streaming():
            self.engine.pipe_pause(self.fd, self.entry)

    def resume(self):
        if self.is_streaming():
            self.engine.pipe_resume(self.fd, self.entry)

    def answer(self, verdict, bytes data not None=b""):
        if self.is_streaming():
            self.engine.pipe_answer(self.fd, self.entry, verdict, data)

    def restart(self, bytes data not None=b""):
        if self.is_streaming():
            self.engine.pipe_restart(self.fd, self.entry, data)

    def close(self):
        if self.is_streaming():
            self.engine.pipe_close(self.fd, self.entry)

    def abort(self):
        if self.is_streaming():
            self.engine.pipe_abort(self.fd, self.entry)
