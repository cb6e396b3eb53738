"""The ends of connections, and the objects that outlive them."""

from __future__ import annotations

import os
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from errno import ECONNRESET, EPIPE

from unlimitedws.engine import closes
from unlimitedws.engine.portable.connection import Connection
from unlimitedws.engine.portable.core import Core
from unlimitedws.engine.portable.pipe import Pipe
from unlimitedws.engine.portable.sockets import shut
from unlimitedws.engine.portable.table import (
    ANSWERED,
    BROKEN,
    CLOSING,
    HALF_CLOSED,
    HANDSHAKE,
    HELD,
    LINGER,
    OPEN,
    OVER,
    PAUSED,
    READY,
    SHUT,
    STREAM,
)
from unlimitedws.wire.closing import ABNORMAL, INTERNAL_ERROR, NO_STATUS, Cause, Close, pack_close
from unlimitedws.wire.frames import CLOSE, pack_frame


class Ending(Core):
    """How connections are closed, failed and lost."""

    def close_politely(self, fd: int, payload: bytes, close: Close) -> None:
        """Sends a Close and waits for theirs (RFC 6455, section 7.1.2)."""
        table = self.table
        if table.phases[fd] != OPEN:
            return
        self.output.put(fd, pack_frame(CLOSE, payload))
        self._closing[fd] = close
        table.phases[fd] = CLOSING
        table.since[fd] = time.monotonic()
        if fd in self._waiting:  # their Close may lie behind messages that waited: these are thrown away now
            table.flags[fd] &= ~READY
            self.make_ready(fd)
        self.watch(fd)

    def peer_closed(self, fd: int, code: int, reason: str) -> None:
        """Their Close came: answers it (section 5.5.1) or, if ours went first, is done."""
        if self.table.phases[fd] == OPEN:
            self.output.put(fd, pack_frame(CLOSE, b"" if code == NO_STATUS else pack_close(code)))
            self.detach(fd, Close(code, reason, Cause.PEER_CLOSED, True))
        else:
            ours = self._closing[fd]
            self.detach(fd, Close(ours.code, ours.reason, ours.cause, True))
        self.linger(fd)

    def fail_connection(self, fd: int, code: int, cause: Cause) -> None:
        """They broke the protocol, or a handler raised: says so, and reads on only to throw away."""
        phase = self.table.phases[fd]
        if phase == OPEN:
            self.output.put(fd, pack_frame(CLOSE, pack_close(code)))
            self.detach(fd, Close(code, "", cause, False))
        elif phase == CLOSING:
            self.detach(fd, self._closing[fd])
        else:
            return
        self.linger(fd)

    def handler_error(self, connection: Connection, hook: str, error: BaseException) -> None:
        self._errors += 1
        if isinstance(error, KeyboardInterrupt):
            self._interrupt = error
        self.front.handler_failed(connection, hook, error)
        fd = connection.fd
        if fd >= 0:
            self.fail_connection(fd, INTERNAL_ERROR, Cause.HANDLER_ERROR)
            if fd != self.current:  # its output leaves with that of the others
                self.output.dirty.add(fd)
                self.wake()

    def linger(self, fd: int) -> None:
        """Nothing more to say: what waits is sent, what comes is thrown away."""
        table = self.table
        table.phases[fd] = LINGER
        table.since[fd] = self.now
        table.flags[fd] &= ~(PAUSED | HALF_CLOSED)
        self._waiting.pop(fd, None)
        self.return_reader(fd)
        self._thrown_away[fd] = 0
        self.watch(fd)

    def finish(self, fd: int) -> None:
        """The end of a connection's input: its answers leave."""
        self.current = -1
        self.output.offer(fd)
        if self.table.phases[fd] == LINGER and fd not in self.output.unsent:
            self.output_gone(fd)

    def output_gone(self, fd: int) -> None:
        """In LINGER: all is said."""
        flags = self.table.flags
        if flags[fd] & (BROKEN | HALF_CLOSED):
            self.end(fd)
        elif fd in self.tls and not self.tls[fd].has_parted:
            self.output.say(fd, self.tls[fd].part())
        elif not flags[fd] & SHUT:
            flags[fd] |= SHUT
            self.table.since[fd] = self.now
            shut(fd, socket.SHUT_WR)

    def stream_ended(self, fd: int, failed: int) -> None:
        """Nothing more comes. failed: an errno, or 0 for the end of the stream."""
        phase, flags = self.table.phases[fd], self.table.flags
        if phase == LINGER:
            self.peer_left(fd, failed)
        elif phase == STREAM and failed == 0 and not flags[fd] & BROKEN:
            self.stream_half_closed(self.streams[fd])
        elif phase == HANDSHAKE and failed == 0 and flags[fd] & ANSWERED and fd not in self._heads:
            self.answered_over(fd)
        elif failed in (ECONNRESET, EPIPE) or (failed == 0 and self.table.flags[fd] & BROKEN):
            self.lose(fd, Cause.PEER_RESET)
        else:
            self.lose(fd, Cause.NETWORK_ERROR if failed else Cause.PEER_EOF)

    def peer_left(self, fd: int, failed: int) -> None:
        """In LINGER: they said all they will. What waits for them still leaves, unless they are gone altogether."""
        if failed or self.table.flags[fd] & (BROKEN | HALF_CLOSED) or fd not in self.output.unsent:
            self.end(fd)
        else:
            self.table.flags[fd] |= HALF_CLOSED
            self.watch(fd)

    def lose(self, fd: int, cause: Cause) -> None:
        """The end without ceremony."""
        phase = self.table.phases[fd]
        if phase == HANDSHAKE:
            self.handshake_lost(fd, cause)
        elif phase == STREAM:
            self.part(self.streams[fd])
            self.handshake_over(cause)
        elif phase == OPEN:
            self.detach(fd, Close(ABNORMAL, "", cause, False))
        elif phase == CLOSING:
            self.detach(fd, self._closing[fd])
        self.end(fd)

    def handshake_over(self, cause: Cause) -> None:
        """A request that became no WebSocket, for whatever reason."""
        self._pending -= 1
        if cause == Cause.HTTP_ANSWERED:
            self._http += 1
        else:
            self._failures += 1
        self.count(cause)

    def handshake_lost(self, fd: int, cause: Cause) -> None:
        """The end before a whole request; no failure where one was answered and nothing of a next has come."""
        if self.table.flags[fd] & ANSWERED and fd not in self._heads:
            self._pending -= 1
            self.count(Cause.HTTP_ANSWERED)
        else:
            self.handshake_over(cause)

    def answered_over(self, fd: int) -> None:
        """They asked all they will, and were answered; the end of the last answer may still wait."""
        self.handshake_lost(fd, Cause.HTTP_ANSWERED)
        self.linger(fd)
        self.finish(fd)

    def tls_failed(self, fd: int) -> None:
        """What they sent is no TLS, or none that we accept: nothing more is said but the alert."""
        phase = self.table.phases[fd]
        if phase == OPEN:
            self.detach(fd, Close(ABNORMAL, "", Cause.TLS_ERROR, False))
        elif phase == CLOSING:
            self.detach(fd, self._closing[fd])
        elif phase == STREAM:
            self.part(self.streams[fd])
            self.handshake_over(Cause.TLS_ERROR)
        elif phase == HANDSHAKE:
            self.handshake_over(Cause.TLS_ERROR)
        self.linger(fd)
        self.output.say_last(fd)
        self.finish(fd)

    # ---- streams

    def part(self, pipe: Pipe) -> None:
        """Parts a Stream from its connection, which goes on as one that waits for a request; `lost` follows when no
        handler runs."""
        fd, stream = pipe.fd, pipe.stream
        pipe.remember()
        pipe.stream = None
        del self.streams[fd]
        self.table.phases[fd] = HANDSHAKE
        self.table.flags[fd] &= ~(HELD | OVER)
        if stream is not None:
            self._deferred.append(("lost", self.tell, pipe, (stream.lost,)))
            self.wake()

    def tell(self, pipe: Pipe, call: Callable[[], object]) -> None:
        """Calls a method of a Stream."""
        self.current = -1  # what it writes leaves at the end of the turn
        try:
            call()
        except BaseException as error:
            self.stream_error(pipe, error)

    def stream_error(self, pipe: Pipe, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._interrupt = error
        self.front.stream_failed(error)
        if pipe.stream is not None:
            self.lose(pipe.fd, Cause.HANDLER_ERROR)

    def stream_half_closed(self, pipe: Pipe) -> None:
        """They said all they will; they can still be answered."""
        pipe.has_ended = True
        self.watch(pipe.fd)
        if pipe.stream is not None:
            self.tell(pipe, pipe.stream.ended)

    # ---- WebSockets

    def leave(self, fd: int) -> None:
        """Another engine has this connection now: its object here is over, without an on_close."""
        self._open -= 1
        self.meters.pop(fd, None)
        connection = self.existing(fd)
        if connection is not None:
            connection.more.facts, connection.more.resumed = self.facts(fd), connection.resumed
            connection.fd = -1
            self._kept.pop(fd, None)
            self._pinned.pop(fd, None)
        self.routes.release(self.table.routes[fd])

    def detach(self, fd: int, close: Close) -> None:
        """Parts the Connection from its row; on_close follows when no handler runs."""
        hook = self._close_hooks[self.endpoint(fd)]
        self._open -= 1
        self.count(close.cause)
        closes.note(self.row, self.table.ids[fd], int(self.now * 1000), close.code, close.cause)
        self._closing.pop(fd, None)
        connection = self.existing(fd)
        if fd in self.meters:
            self.output.offer(fd)  # so that the last words count
        meter = self.meters.pop(fd, None)
        if connection is None and (hook is not None or meter is not None):
            connection = Connection(self, fd, self.table.ids[fd])
        if connection is not None:
            connection.more.facts, connection.more.resumed = self.facts(fd), connection.resumed
            connection.fd = -1
            self._kept.pop(fd, None)
            self._pinned.pop(fd, None)
            self._current_connection = None if connection is self._current_connection else self._current_connection
        self.routes.release(self.table.routes[fd])
        if connection is not None and meter is not None:
            self.front.ended(connection, close, meter.bytes_in, max(0, meter.bytes_out), self.now - meter.opened)
        if connection is None or hook is None:
            return
        if connection.holds and not self._ending:
            connection.more.ending = close
            connection.more.hook = hook
            self._parted.add(connection)
        else:
            self._deferred.append(("on_close", hook, connection, (close,)))
            self.wake()

    def end(self, fd: int) -> None:
        """Ends the connection. A child of the app may hold a duplicate of the socket, so that close(2) alone would
        leave the peer waiting: shutdown(2) ends it for all."""
        shut(fd, socket.SHUT_RDWR)
        self.free(fd)

    def free(self, fd: int) -> None:
        """Frees the row and closes the descriptor."""
        with suppress(OSError):
            self.epoll.unregister(fd)
        self.output.forget(fd)
        self.return_reader(fd)
        self._heads.pop(fd, None)
        self._waiting.pop(fd, None)
        self._thrown_away.pop(fd, None)
        self.controls.pop(fd, None)
        self._prefaces.pop(fd, None)
        self.tls.pop(fd, None)
        self.deflating.contexts.pop(fd, None)
        self.hand.pinged.pop(fd, None)
        if self.rates is not None:
            self.rates.forget(fd)
        if self.gate is not None:
            self.gate.leave(self.table.address(fd))
        self.table.clear(fd)
        if self.current == fd:
            self.current = -1
        os.close(fd)
        if self.acceptor.paused:
            self.acceptor.resume()

    # ---- Connection objects

    def existing(self, fd: int) -> Connection | None:
        """The object of a connection, if anybody holds it."""
        if fd == self.current and self._current_connection is not None:
            return self._current_connection
        kept = self._kept.get(fd)
        if kept is None:
            return None
        connection = kept()
        if connection is None:
            del self._kept[fd]
        return connection

    def connection(self, fd: int) -> Connection:
        """The object of a connection."""
        connection = self.existing(fd)
        if connection is None:
            connection = Connection(self, fd, self.table.ids[fd])
            self.keep(fd, connection)
        return connection

    def keep(self, fd: int, connection: Connection) -> None:
        self._kept[fd] = weakref.ref(connection)

    def pin(self, connection: Connection, pinned: bool) -> None:
        """Keeps an object alive until the close: its state is set."""
        fd = connection.fd
        if fd < 0:
            return
        if pinned:
            self._pinned[fd] = connection
        else:
            self._pinned.pop(fd, None)
