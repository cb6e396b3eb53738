"""The taker's side."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
from collections.abc import Callable, Sequence
from typing import Any

from unlimitedws.app import App
from unlimitedws.engine.contract import Endpoint
from unlimitedws.engine.moved import Moved
from unlimitedws.expiry import Expiry
from unlimitedws.handover.link import Link, Luggage, Publication

log = logging.getLogger("unlimitedws.worker")


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
        self.taken: set[int] = set()  # ids of those that publications of the other side are for
        self.link = Link(sock, self.heard, self.end)

    def heard(self, kind: bytes, payload: Any, fds: list[int]) -> None:
        if kind in b"WS":
            self.begin(whole=kind == b"W")
        elif kind == b"B":
            heard, rows = payload
            self.take(heard, rows, fds)
        elif kind == b"P":
            # It follows every batch given before it, so those that it met there it meets here no more.
            self.engine.broadcast(payload.message, self.arrived(), text=payload.text)
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

    def arrived(self) -> list[Any]:
        """The connections that have come, and are still open; where only some come, those of the last batch."""
        return [connection for connection in self.engine.connections() if connection.id in self.taken]

    def take(self, heard: int, rows: list[tuple[Moved, Luggage]], fds: list[int]) -> None:
        taken: list[tuple[int, Luggage, int]] = []
        if not self.link.send(b"A", self.room(len(fds), whole=self.whole)):
            # Its giver goes on with them: only the copies of their descriptors are closed.
            for fd in fds:
                os.close(fd)
            return
        if not self.whole:
            self.taken.clear()
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
        self.call(connection, self.endpoints[number], state)

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
        self.taken.clear()
        if not self.ended.done():
            self.ended.set_result(None)
