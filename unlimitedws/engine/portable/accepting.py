"""Taking new connections: in batches, under a limit, and not at all while descriptors are lacking."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from typing import TYPE_CHECKING, NamedTuple

from unlimitedws.engine.counters import INDEX
from unlimitedws.wire.closing import Cause

if TYPE_CHECKING:
    from unlimitedws.engine.portable.opening import Opening

ACCEPTS = 64
"""Connections accepted for one readiness event; the rest comes with the next."""

SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
RETRY_S = 1.0
REPORT_S = 30.0
"""Between two reports of a shortage: at the limit it comes and goes many times a minute."""


class Listener(NamedTuple):
    """See `contract.Engine.listen`."""

    socket: socket.socket
    proxied: bool
    tls: Callable[[], SSLContext] | None


class Acceptor:
    """The listeners of one engine."""

    def __init__(self, engine: Opening) -> None:
        self.engine = engine
        self.listeners: dict[int, Listener] = {}
        self.paused = False
        self.paused_at = 0.0
        self.reported_at = -REPORT_S
        self.accepted = 0
        self.refused = 0
        self.pauses = 0

    def listen(self, fd: int, proxied: bool, tls: Callable[[], SSLContext] | None) -> None:
        listener = socket.socket(fileno=fd)
        listener.setblocking(False)  # also when the program has a default timeout
        self.listeners[fd] = Listener(listener, proxied, tls)
        if not self.paused:
            self.engine.epoll.register(fd, select.EPOLLIN)

    def unlisten(self, fd: int) -> None:
        listener = self.listeners.pop(fd, None)
        if listener is None:
            return
        if not self.paused:
            self.engine.epoll.unregister(fd)
        listener.socket.detach()

    def stop(self) -> None:
        """Leaves the listeners to their owner, as they were."""
        for fd, listener in self.listeners.items():
            with suppress(OSError):  # the owner may have closed it already
                self.engine.epoll.unregister(fd)
            listener.socket.detach()
        self.listeners.clear()
        self.paused = False

    def accept(self, fd: int) -> None:
        """Accepts one batch."""
        listener = self.listeners[fd]
        for _ in range(ACCEPTS):
            try:
                peer, address = listener.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in SHORTAGES:
                    self.pause(error)
                    return
                if error.errno == errno.EINVAL:  # its owner has shut it down, and epoll would tell so for ever
                    self.unlisten(fd)
                    return
                continue  # accept(2) reports network errors of the new connection: its own trouble
            self.accepted += 1
            self.admit(peer, address, listener)

    def admit(self, peer: socket.socket, address: object, listener: Listener) -> None:
        engine, fd = self.engine, peer.fileno()
        limit = engine.config.max_connections
        if limit and engine.table.used >= limit:
            self.refuse(peer)
            return
        engine.table.reach(fd)
        engine.table.set_address(fd, address)
        if engine.gate is not None and not engine.gate.enter(engine.table.address(fd)):
            self.refuse(peer)
            return
        peer.setblocking(False)
        try:
            engine.epoll.register(fd, select.EPOLLIN)
        except OSError:  # fs.epoll.max_user_watches, or memory
            if engine.gate is not None:
                engine.gate.leave(engine.table.address(fd))
            self.refuse(peer)
            return
        engine.admit(peer.detach(), listener)

    def refuse(self, peer: socket.socket) -> None:
        self.refused += 1
        self.engine.row[INDEX[f"closes_{Cause.LIMIT}"]] += 1
        peer.close()

    def pause(self, error: OSError) -> None:
        """Leaves the queue to the kernel until descriptors are free: no busy loop."""
        now = self.engine.now
        self.pauses += 1
        self.paused, self.paused_at = True, now
        for fd in self.listeners:
            self.engine.epoll.unregister(fd)
        if now - self.reported_at >= REPORT_S:
            self.reported_at = now
            self.engine.front.accepting_paused(os.strerror(error.errno or 0))

    def resume(self) -> None:
        """A connection ended, or a second has gone by."""
        self.paused = False
        for fd in self.listeners:
            self.engine.epoll.register(fd, select.EPOLLIN)

    def tick(self, now: float) -> None:
        if self.paused and now - self.paused_at >= RETRY_S:
            self.resume()
