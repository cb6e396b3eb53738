"""The taker's side."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from unlimitedws.app import App
from unlimitedws.engine.contract import Endpoint
from unlimitedws.engine.moved import Moved
from unlimitedws.engine.said import say_again
from unlimitedws.expiry import Expiry
from unlimitedws.handover.link import Link, Luggage, Publication
from unlimitedws.handover.resume import resume

log = logging.getLogger("unlimitedws.worker")


class Batch:
    """Which connections have come together: no objects of theirs, as there may be many."""

    def __init__(self) -> None:
        self.fds, self.ids = array("i"), array("Q")

    def add(self, fd: int, id: int) -> None:
        self.fds.append(fd)
        self.ids.append(id)

    def of(self, engine: Any) -> list[Any]:
        """Those that are still open."""
        found = [(engine.connection_at(fd), id) for fd, id in zip(self.fds, self.ids, strict=True)]
        return [connection for connection, id in found if connection is not None and connection.id == id]


class Arriving:
    """Takes over what the worker at the other end of `sock` gives.

    room(coming, whole=): for how many connections there is room besides those that are about to be taken over.
    nobody: the number of the endpoint for connections whose path this code does not serve.
    whole: see `Leaving`; None until it is said."""

    def __init__(
        self, engine: Any, app: App, endpoints: Sequence[Endpoint], expiry: Expiry, sock: socket.socket,
        *, room: Callable[..., int], nobody: int,
    ) -> None:  # fmt: skip
        self.engine, self.app, self.endpoints, self.expiry, self.nobody = engine, app, endpoints, expiry, nobody
        self.room = room
        self.whole: bool | None = None
        self.ended = asyncio.get_running_loop().create_future()
        self.is_complete = False
        self.publications: list[Publication] = []  # of this side, that the other has perhaps not heard yet
        self.heard_by_other = 0  # those before them
        self.batches: list[Batch] = []  # those that the other side may still have something to say to
        self.link = Link(sock, self.heard, self.end)

    def heard(self, kind: bytes, payload: Any, fds: list[int]) -> None:
        if kind in b"WS":
            self.begin(whole=kind == b"W")
        elif kind == b"B":
            heard, rows = payload
            self.take(heard, rows, fds)
        elif kind == b"P":
            connections = [each for batch in self.batches[: payload.batches] for each in batch.of(self.engine)]
            self.engine.broadcast(payload.message, connections, text=payload.text)
        elif kind == b"L":
            for connection in self.batches[-1].of(self.engine):
                say_again(self.engine, connection, payload.get(connection.id, ()))
        elif kind == b"E":
            self.is_complete = True
            self.publications.clear()
            if not self.whole:
                self.link.send(b"E")

    def begin(self, *, whole: bool) -> None:
        self.whole = whole
        self.link.send(b"R", self.room(0, whole=whole))
        if whole:
            for publication in self.publications:
                self.link.send(b"P", publication)
        else:
            self.publications.clear()

    @property
    def is_busy(self) -> bool:
        """Whether more may come."""
        return self.whole is not None and not self.is_complete and not self.is_over

    def take(self, heard: int, rows: list[tuple[Moved, Luggage]], fds: list[int]) -> None:
        taken: list[tuple[int, Luggage, int]] = []
        if not self.link.send(b"A", self.room(len(fds), whole=self.whole)):
            # Its giver goes on with them: only the copies of their descriptors are closed.
            for fd in fds:
                os.close(fd)
            return
        if not self.whole:
            self.batches.clear()
        self.batches.append(batch := Batch())
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
            batch.add(fd, moved.id)
        # By object, not by descriptor: what follows may end some of them, and others take their descriptors then.
        welcome = [(self.engine.connection_at(fd), luggage, number) for fd, luggage, number in taken if self.is_awaited(luggage, number)]
        del self.publications[: heard - self.heard_by_other]
        self.heard_by_other = heard
        if self.publications:
            connections = [self.engine.connection_at(fd) for fd, _, _ in taken]
            for publication in tuple(self.publications):
                self.engine.broadcast(publication.message, connections, text=publication.text)
        for connection, luggage, number in welcome:
            if connection.is_open:
                self.welcome(connection, luggage, number)

    def endpoint_of(self, path: str) -> int:
        endpoint = self.app.endpoint_of(path)
        return self.nobody if endpoint is None else endpoint

    def is_awaited(self, luggage: Luggage, number: int) -> bool:
        """Whether anybody is to be told that it has come."""
        endpoint = self.endpoints[number]
        return luggage != Luggage() or number == self.nobody or (endpoint.on_resume or endpoint.on_connect) is not None

    def welcome(self, connection: Any, luggage: Luggage, number: int) -> None:
        """Gives the app what it sent along, as it wants it."""
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
        resume(self.engine, self.endpoints[number], connection, state)

    @property
    def is_over(self) -> bool:
        """Whether the giver is gone, or through with some of its connections."""
        return self.ended.done()

    def publish(self, message: Any, text: bool | None) -> None:
        """A broadcast of this worker, for those that the old one still has."""
        if self.whole is False:
            return
        publication = Publication(bytes(message) if not isinstance(message, str) else message, text)
        if not self.is_complete:
            self.publications.append(publication)
        if self.whole:
            self.link.send(b"P", publication)

    def end(self) -> None:
        self.link.close()
        self.publications.clear()
        self.batches.clear()
        if not self.ended.done():
            self.ended.set_result(None)
