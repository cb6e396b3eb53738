"""Live connections on their way from one worker to the next, over a socket between the two.

The old worker gives its connections in batches: descriptors by SCM_RIGHTS, their rows (`engine.moved`) and the app's own
state beside them. Each batch is acknowledged, and that is the commit point: before it the old worker can go on with them as
if nothing had been (its successor died), after it they are the new one's. The new worker acknowledges before it touches
them, and lets go of them where it cannot, so no connection is served twice.

Packets of the socket (SOCK_SEQPACKET): one byte says what it is; what comes with it lies in a memfd, whose size no
packet limits.

    B  a batch: a memfd with its rows, then the connections' descriptors
    P  a publication of either side to everybody: a memfd with it
    A  the batch is taken over
    E  no more connections come

A broadcast meets connections on both sides. What one side publishes the other repeats, each for those it has; of a batch
that was on its way meanwhile the taker counts what its giver had heard (`heard`), and delivers the rest.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from unlimitedws.app import App
from unlimitedws.engine.contract import Endpoint
from unlimitedws.engine.moved import Moved
from unlimitedws.expiry import Expiry

log = logging.getLogger("unlimitedws.worker")

BATCH = 250
"""Connections in one packet. The kernel takes 253 descriptors (SCM_MAX_FD), one of which is the memfd."""

POLL_S = 0.005
"""How often it is looked whether a handler that was pending is through."""

PACKET_BYTES = 16


class Luggage(NamedTuple):
    """What goes with a connection besides its row.

    state: pickled; b"": the app has none; None: it could not be pickled.  expires_at: unix time, None: never."""

    state: bytes | None = b""
    expires_at: float | None = None


class Publication(NamedTuple):
    """A broadcast to everybody, for the other side."""

    message: Any
    text: bool | None


class Link:
    """One end of the socket between two workers, on the loop. `heard(kind, payload, descriptors)` is called for each packet, and
    `lost()` once when the other end is gone."""

    def __init__(self, sock: socket.socket, heard: Callable[[bytes, Any, list[int]], None], lost: Callable[[], None]) -> None:
        self.sock, self.heard, self.lost = sock, heard, lost
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[tuple[bytes, int, list[int]]] = deque()
        sock.setblocking(False)
        self.loop.add_reader(sock.fileno(), self.readable)

    def send(self, kind: bytes, payload: Any = None, descriptors: Sequence[int] = ()) -> bool:
        """Sends a packet, or queues it where the socket is full; the descriptors have to stay open until it is answered.

        False: the other end is gone. Raises OSError where no descriptor is left for the memfd."""
        if self.sock.fileno() < 0:
            return False
        memory = -1 if payload is None else written(payload)
        self.waiting.append((kind, memory, [*([memory] if memory >= 0 else []), *descriptors]))
        self.flush()
        return self.sock.fileno() >= 0

    def flush(self) -> None:
        while self.waiting:
            kind, memory, descriptors = self.waiting[0]
            try:
                socket.send_fds(self.sock, [kind], descriptors)
            except BlockingIOError:
                self.loop.add_writer(self.sock.fileno(), self.flush)
                return
            except OSError as error:
                log.error("handover: the other worker cannot be reached: %s", error)
                self.close()
                self.lost()
                return
            self.waiting.popleft()
            if memory >= 0:
                os.close(memory)
        self.loop.remove_writer(self.sock.fileno())

    def readable(self) -> None:
        room = socket.CMSG_SPACE((BATCH + 1) * array.array("i").itemsize)
        try:
            packet, ancillary, flags, _ = self.sock.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary, flags = b"", [], 0
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not packet or flags & socket.MSG_CTRUNC:
            # Truncated silently where this process has no descriptors left: the giver keeps the connections.
            self.give_up(descriptors)
            return
        try:
            payload = read(descriptors.pop(0)) if descriptors else None
        except Exception as error:
            log.error("handover: what the other worker sent cannot be read: %r; is it of another release?", error)
            self.give_up(descriptors)
            return
        self.heard(packet, payload, list(descriptors))

    def give_up(self, descriptors: Iterable[int]) -> None:
        for fd in descriptors:
            os.close(fd)
        self.close()
        self.lost()

    def close(self) -> None:
        if self.sock.fileno() < 0:
            return
        self.loop.remove_reader(self.sock.fileno())
        self.loop.remove_writer(self.sock.fileno())
        self.sock.close()
        for _, memory, _ in self.waiting:
            if memory >= 0:
                os.close(memory)
        self.waiting.clear()


def written(payload: Any) -> int:
    """A memfd with a pickled object."""
    memory = os.memfd_create("unlimitedws-handover", os.MFD_CLOEXEC)
    with os.fdopen(memory, "wb", closefd=False) as file:
        pickle.dump(payload, file, pickle.HIGHEST_PROTOCOL)
    return memory


def read(memory: int) -> Any:
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        return pickle.load(file)


class Leaving:
    """The old worker's side: gives all connections that can move to the next one."""

    def __init__(self, engine: Any, app: App, expiry: Expiry, sock: socket.socket) -> None:
        self.engine, self.app, self.expiry = engine, app, expiry
        self.hooks = [handlers.hook("on_handover") for handlers in app.endpoints]
        self.loop = asyncio.get_running_loop()
        self.link = Link(sock, self.heard, self.lost)
        self.acknowledged: asyncio.Future[bool] | None = None  # while a batch is on its way: whether it was taken
        self.is_lost = False
        self.is_halted = False
        self.is_sent = False  # the batch on its way
        self.published = 0  # publications of the other side that were repeated here
        self.missed: list[Publication] = []  # of this side, while a batch was on its way
        self.moved = 0

    async def run(self, timeout_s: float) -> bool:
        """Gives connections until none is left that can move; those whose handlers are pending get `timeout_s`.

        False: the other worker is gone; what it had not acknowledged goes on here. The link stays for publications."""
        deadline = self.loop.time() + timeout_s
        while not self.is_lost:
            batch = [] if self.is_halted else self.engine.depart(BATCH, objects=any(self.hooks))
            if batch:
                await self.give(batch)
            elif self.is_halted or not self.engine.held() or self.loop.time() >= deadline:
                self.link.send(b"E")
                return True
            else:
                await asyncio.sleep(POLL_S)
        return False

    def halt(self) -> None:
        """Begins no further batch: the server is stopping."""
        self.is_halted = True

    async def give(self, batch: list[tuple[int, Moved, Any]]) -> None:
        self.acknowledged = self.loop.create_future()
        packed = [(fd, moved, self.luggage(fd, moved, connection)) for fd, moved, connection in batch]
        going = [each for each in packed if each[2] is not None]
        fds = [fd for fd, _, _ in going]
        if self.is_lost:
            self.lost()
        try:
            self.link.send(b"B", (self.published, [(moved, luggage) for _, moved, luggage in going]), fds)
            self.is_sent = True
            for publication in self.missed:  # an on_handover made it: it has to follow the batch
                self.link.send(b"P", publication)
        except OSError as error:  # no descriptor is left for the memfd
            log.error("handover: %s; the connections stay here", error)
            self.link.close()
            self.lost()
        # Not `is_lost`: who acknowledged and died then had them, and what it did with them is not known here.
        was_taken = await self.acknowledged
        self.acknowledged, self.is_sent = None, False
        missed, self.missed = self.missed, []
        if was_taken:
            self.engine.departed(fds)
            self.moved += len(fds)
            return
        self.engine.stay(fds)
        connections = [self.engine.connection_at(fd) for fd, moved, _ in going if moved.path is not None]
        for publication in missed:
            self.engine.broadcast(publication.message, connections, text=publication.text)

    def luggage(self, fd: int, moved: Moved, connection: Any) -> Luggage | None:
        """None: on_handover raised, and the connection stays to be closed."""
        if connection is None:
            return Luggage()
        state, hook = connection.state, self.hooks[self.app.endpoint_of(moved.path or "") or 0]
        if hook is not None:
            try:
                state = hook(connection)
            except BaseException as error:
                self.engine.stay([fd])
                self.engine.fail(connection, "on_handover", error)
                return None
        return Luggage(pickled(connection, state), self.expiry.of(connection))

    @property
    def is_over(self) -> bool:
        """Whether the other worker is gone, which after the handover means nothing bad."""
        return self.is_lost

    def publish(self, message: Any, text: bool | None) -> None:
        """A broadcast of this worker, for those that the other has."""
        publication = Publication(bytes(message) if not isinstance(message, str) else message, text)
        if self.acknowledged is not None:
            self.missed.append(publication)
        if self.acknowledged is None or self.is_sent:
            self.link.send(b"P", publication)

    def heard(self, kind: bytes, payload: Any, fds: list[int]) -> None:
        if kind == b"A" and self.acknowledged is not None and not self.acknowledged.done():
            self.acknowledged.set_result(True)
        elif kind == b"P":
            self.published += 1
            self.engine.broadcast(payload.message, text=payload.text)

    def lost(self) -> None:
        self.is_lost = True
        if self.acknowledged is not None and not self.acknowledged.done():
            self.acknowledged.set_result(False)


def pickled(connection: Any, state: Any) -> bytes | None:
    if state is None:
        return b""
    try:
        return pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        log.error(
            "the state of connection %d cannot be passed on in a reload (%s: %s), so it is closed with 1012; "
            "let on_handover return what the new process needs", connection.id, type(error).__name__, error,
        )  # fmt: skip
        return None


class Arriving:
    """The new worker's side: takes over what the old one gives.

    nobody: the number of the endpoint for connections whose path the new code does not serve."""

    def __init__(
        self, engine: Any, app: App, endpoints: Sequence[Endpoint], expiry: Expiry, sock: socket.socket, *, nobody: int
    ) -> None:  # fmt: skip
        self.engine, self.app, self.endpoints, self.expiry, self.nobody = engine, app, endpoints, expiry, nobody
        self.ended = asyncio.get_running_loop().create_future()
        self.is_complete = False
        self.publications: list[Publication] = []  # of this side, that the other has perhaps not heard yet
        self.heard_by_other = 0  # those before them
        self.taken: set[int] = set()  # ids of what has come
        self.link = Link(sock, self.heard, self.end)

    def heard(self, kind: bytes, payload: Any, fds: list[int]) -> None:
        if kind == b"B":
            heard, rows = payload
            self.take(heard, rows, fds)
        elif kind == b"P":
            # It follows every batch given before it, so those that it met there it meets here no more.
            self.engine.broadcast(payload.message, self.arrived(), text=payload.text)
        elif kind == b"E":
            self.is_complete = True
            self.publications.clear()

    def arrived(self) -> list[Any]:
        """The connections that have come, and are still open."""
        return [connection for connection in self.engine.connections() if connection.id in self.taken]

    def take(self, heard: int, rows: list[tuple[Moved, Luggage]], fds: list[int]) -> None:
        taken = []
        if not self.link.send(b"A"):  # the old worker goes on with them: only the copies of their descriptors are closed
            for fd in fds:
                os.close(fd)
            return
        for fd, (moved, luggage) in zip(fds, rows, strict=True):
            endpoint = self.nobody if moved.path is None else self.endpoint_of(moved.path)
            try:
                self.engine.adopt(fd, moved, endpoint)
            except (OSError, ValueError) as error:
                log.error("connection %d could not be taken over and is cut: %s", moved.id, error)
                os.close(fd)
                continue
            if moved.path is not None:
                taken.append((fd, luggage, endpoint))
            self.taken.add(moved.id)
        del self.publications[: heard - self.heard_by_other]
        self.heard_by_other = heard
        for publication in self.publications:
            self.engine.broadcast(publication.message, [self.engine.connection_at(fd) for fd, _, _ in taken], text=publication.text)
        for fd, luggage, endpoint in taken:
            self.welcome(fd, luggage, endpoint)

    def endpoint_of(self, path: str) -> int:
        endpoint = self.app.endpoint_of(path)
        return self.nobody if endpoint is None else endpoint

    def welcome(self, fd: int, luggage: Luggage, number: int) -> None:
        """Gives the app what it sent along, as it wants it."""
        endpoint = self.endpoints[number]
        resume = endpoint.on_resume or endpoint.on_connect
        if luggage == Luggage() and resume is None and number != self.nobody:
            return
        connection = self.engine.connection_at(fd)
        if number == self.nobody or luggage.state is None:
            self.engine.part_with(connection)
            return
        try:
            state = pickle.loads(luggage.state) if luggage.state else None
        except Exception as error:
            log.error("the state of connection %d does not fit the new code, so it is closed with 1012: %r", connection.id, error)
            self.engine.part_with(connection)
            return
        if luggage.expires_at is not None:
            self.expiry.set(connection, luggage.expires_at)
        self.call(connection, endpoint, state)

    def call(self, connection: Any, endpoint: Endpoint, state: Any) -> None:
        name = "on_connect" if endpoint.on_resume is None else "on_resume"
        try:
            if endpoint.on_resume is not None:
                endpoint.on_resume(connection, state)
            else:
                connection.state = state
                if endpoint.on_connect is not None:
                    endpoint.on_connect(connection)
        except BaseException as error:
            self.engine.fail(connection, name, error)

    @property
    def is_over(self) -> bool:
        """Whether the old worker is gone."""
        return self.ended.done()

    def publish(self, message: Any, text: bool | None) -> None:
        """A broadcast of this worker, for those that the old one still has."""
        publication = Publication(bytes(message) if not isinstance(message, str) else message, text)
        if not self.is_complete:
            self.publications.append(publication)
        self.link.send(b"P", publication)

    def end(self) -> None:
        self.link.close()
        self.publications.clear()
        self.taken.clear()
        if not self.ended.done():
            self.ended.set_result(None)
