"""The giver's side."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from unlimitedws.app import App
from unlimitedws.config import MIB
from unlimitedws.engine.contract import Endpoint
from unlimitedws.engine.moved import Moved
from unlimitedws.expiry import Expiry
from unlimitedws.handover.link import BATCH, Link, Luggage, Publication
from unlimitedws.handover.resume import resume

log = logging.getLogger("unlimitedws.worker")

BATCH_BYTES = 4 * MIB
"""At most so much goes with the connections of one packet, unless it is of one alone: both sides hold all of it, and everybody in
it waits for the rest. A handover of 500 states of 1 MiB took 250 MB of shared memory and as much again on either side; so it
takes 3 MB and 30 MB."""

FIRST_BATCH = 25
"""Connections that wait together before it is known how much goes with each."""

ANSWER_S = 5.0
"""How long a worker that goes on serving may take to answer."""

POLL_S = 0.005
"""How often it is looked whether a handler that was pending is through."""


class Leaving:
    """Gives connections that can move to the worker at the other end of `sock`.

    whole: all of them, since this worker ends then; the link stays for publications. Else some, and the link ends with them.
    moved: how many the other one has taken."""

    def __init__(
        self, engine: Any, app: App, endpoints: Sequence[Endpoint], expiry: Expiry, sock: socket.socket, *, whole: bool
    ) -> None:  # fmt: skip
        self.engine, self.app, self.endpoints, self.expiry, self.whole = engine, app, endpoints, expiry, whole
        self.hooks = [handlers.hook("on_handover") for handlers in app.endpoints]
        self.loop = asyncio.get_running_loop()
        self.link = Link(sock, self.heard, self.lost)
        self.welcomed: asyncio.Future[None] = self.loop.create_future()
        self.dismissed: asyncio.Future[None] = self.loop.create_future()
        self.acknowledged: asyncio.Future[bool] | None = None  # while a batch is on its way: whether it was taken
        self.is_lost = False
        self.is_halted = False
        self.room = 0  # there
        self.fits = FIRST_BATCH  # by how much went with each of the last ones
        self.batches = 0  # acknowledged
        self.published = 0  # publications of the other side that were repeated here
        self.staying: set[int] = set()  # descriptors of those that cannot move
        self.frozen: dict[int, Moved] = {}  # by descriptor: the batch, as far as it is not given
        self.told: dict[int, Any] = {}  # descriptor to what on_handover said, of these
        self.unheard: list[Publication] = []  # those of the other side that these have not got
        self.moved = 0

    async def run(self, timeout_s: float, at_most: int | None = None) -> bool:
        """Gives connections until `at_most` have moved, there is no room for more, or none is left that can move; those whose
        handlers are pending get `timeout_s`.

        False: the other worker is gone; what it had not acknowledged goes on here."""
        deadline = self.loop.time() + timeout_s
        self.link.send(b"W" if self.whole else b"S")
        await self.answered(self.welcomed)
        while not self.is_lost:
            size = self.next_size(at_most)
            if batch := self.depart(size) or self.depart(size):
                await self.give(batch)
            elif not size or not self.engine.held() or self.loop.time() >= deadline:
                break
            else:
                await asyncio.sleep(POLL_S)
        if self.is_lost:
            return False
        self.link.send(b"E")
        if not self.whole:
            await self.answered(self.dismissed)  # the last batch is in its table, not only in its hands
            self.link.close()
        return True

    def depart(self, size: int) -> list[tuple[int, Moved, Any]]:
        """The next ones. The engine goes on where it was: once it came to its end, those before may have become free."""
        return self.engine.depart(size, objects=any(self.hooks), but=self.staying) if size else []

    def next_size(self, at_most: int | None) -> int:
        if self.is_halted:
            return 0
        return min(BATCH, self.fits, self.room, BATCH if at_most is None else at_most - self.moved)

    def halt(self) -> None:
        """Begins no further batch: the worker stops, or everything is to go elsewhere."""
        self.is_halted = True

    async def give(self, batch: list[tuple[int, Moved, Any]]) -> None:
        """Gives them in as many packets as they need. Whom the other side does not take goes on here."""
        self.frozen = {fd: moved for fd, moved, _ in batch}
        self.told, self.unheard, heard = {}, [], self.published
        for packet in self.packets(batch):
            if not await self.is_taken(packet, heard):
                break
        if left := [fd for fd in self.frozen if fd in self.engine.departing]:  # none: the engine was closed
            self.keep(left)
        self.frozen = {}

    def packets(self, batch: Iterable[tuple[int, Moved, Any]]) -> Iterator[list[tuple[int, Moved, Luggage]]]:
        """The next one is packed when the one before it is given, but for its first connection."""
        packet: list[tuple[int, Moved, Luggage]] = []
        size = 0
        for fd, moved, connection in batch:
            if (luggage := self.luggage(fd, moved, connection)) is None:
                continue
            more = weight(moved, luggage)
            if packet and size + more > BATCH_BYTES:
                yield packet
                packet, size = [], 0
            packet.append((fd, moved, luggage))
            size += more
        if packet:
            self.fits = max(1, len(packet) * BATCH_BYTES // (size or 1))
            yield packet

    async def is_taken(self, packet: list[tuple[int, Moved, Luggage]], heard: int) -> bool:
        """Gives a packet where there is still room. heard: how much of the other side's publications these connections have got."""
        if self.is_lost or self.is_halted or self.room < len(packet):
            return False
        self.acknowledged = self.loop.create_future()
        fds = [fd for fd, _, _ in packet]
        self.link.send(b"B", (heard, [(moved, luggage) for _, moved, luggage in packet]), fds)
        # Not `is_lost`: who acknowledged and died then had them, and what it did with them is not known here.
        was_taken: bool = await self.answered(self.acknowledged)
        self.acknowledged = None
        if was_taken:
            if said := self.engine.departed(fds):
                self.link.send(b"L", said)
            self.batches += 1
            self.moved += len(fds)
            for fd in fds:
                del self.frozen[fd]
        return was_taken

    def keep(self, fds: Sequence[int]) -> None:
        """These go on here, with what they have missed."""
        going_on = {fd: self.frozen.pop(fd) for fd in fds}
        connections = [self.engine.connection_at(fd) for fd, moved in going_on.items() if moved.path is not None] if self.unheard else []
        self.engine.stay(fds, resumed=self.told)
        for publication in self.unheard:
            self.engine.broadcast(publication.message, connections, text=publication.text)
        self.resume(going_on)

    def resume(self, stayed: Mapping[int, Moved]) -> None:
        """Gives those back to the app that it was told would leave."""
        back = [(self.engine.connection_at(fd), moved, self.told[fd]) for fd, moved in stayed.items() if fd in self.told]
        for connection, moved, state in back:
            if connection is not None and connection.is_open:
                resume(self.engine, self.endpoints[self.endpoint_of(moved)], connection, state)

    def endpoint_of(self, moved: Moved) -> int:
        return self.app.endpoint_of(moved.path or "") or 0

    async def answered(self, answer: asyncio.Future[Any]) -> Any:
        """What the other side answers. Where both go on serving, a loop that hangs there shall not hold those up who wait here:
        the batch is taken back after a while, and a taker that finds the link shut lets go of it."""
        if not self.whole:
            await asyncio.wait([answer], timeout=ANSWER_S)
            if not answer.done():
                self.link.give_up(TimeoutError(f"it has not answered for {ANSWER_S:.0f} s"))
        return await answer

    def luggage(self, fd: int, moved: Moved, connection: Any) -> Luggage | None:
        """None: it stays. on_handover raised, and it is closed; or its state cannot be passed on, and this worker goes on."""
        if connection is None:
            return Luggage()
        state, hook = connection.state, self.hooks[self.endpoint_of(moved)]
        if hook is not None:
            try:
                self.told[fd] = state = hook(connection)
            except BaseException as error:
                del self.frozen[fd]
                self.engine.stay([fd])
                self.engine.fail(connection, "on_handover", error)
                return None
        packed = self.pack(connection, state)
        if packed is None and not self.whole:
            self.staying.add(fd)
            self.keep([fd])
            return None
        return Luggage(packed, self.expiry.of(connection))

    def pack(self, connection: Any, state: Any) -> bytes | None:
        """None: pickle does not take it, which is said of one of those that stay, and of each that is closed."""
        if state is None:
            return b""
        try:
            return pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            if self.whole or not self.staying:
                log.error(
                    "the state of connection %d cannot be passed on (%s: %s), so it %s; let on_handover return what the new process needs",
                    connection.id, type(error).__name__, error, "is closed with 1012" if self.whole else "stays where it is",
                )  # fmt: skip
            return None

    @property
    def is_over(self) -> bool:
        """Whether the other worker is gone, which after the handover means nothing bad."""
        return self.is_lost

    def publish(self, message: Any, text: bool | None) -> None:
        """A broadcast of this worker, for those that have moved."""
        if self.whole:
            self.link.send(b"P", Publication(bytes(message) if not isinstance(message, str) else message, text, self.batches))

    def heard(self, kind: bytes, payload: Any, fds: list[int]) -> None:
        if kind == b"R":
            self.room = payload
            done(self.welcomed)
        elif kind == b"A" and self.acknowledged is not None and not self.acknowledged.done():
            self.room = payload
            self.acknowledged.set_result(True)
        elif kind == b"E":
            done(self.dismissed)
        elif kind == b"P":
            self.published += 1
            self.engine.broadcast(payload.message, text=payload.text, departing=False)
            if self.frozen:
                self.unheard.append(payload)

    def end(self) -> None:
        """The worker ends: whatever is still on its way is cut with everything else."""
        self.link.close()
        self.lost()

    def lost(self) -> None:
        self.is_lost = True
        done(self.welcomed)
        done(self.dismissed)
        if self.acknowledged is not None and not self.acknowledged.done():
            self.acknowledged.set_result(False)


def weight(moved: Moved, luggage: Luggage) -> int:
    """Bytes, as far as there is no small limit to them."""
    return len(moved.input) + len(moved.output) + len(luggage.state or b"")


def done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
