"""The admin endpoint: answers about the server, over HTTP, on a port of its own.

Not for the open network: it answers whoever reaches it, which by default is this machine. Routes only read (GET and HEAD);
what does more is a service, which looks at method and authorization itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from unlimitedws.hostnames import Hostnames

if TYPE_CHECKING:
    import h11

log = logging.getLogger("unlimitedws.supervisor")

REQUEST_S = 5.0
"""Time a client has to say what it wants and to read the answer."""
MOST_CLIENTS = 64
HEAD_BYTES = 8 * 1024

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


NO_CONTENT_OF_OTHERS = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of what is no page: a browser that shows it loads nothing for it."""


class Asked(NamedTuple):
    """What a service hears of a request. rest: the path behind the service's own.  query: undecoded.  The others: headers, or ""."""

    method: str
    rest: str
    query: str
    authorization: str
    accept: str


class Answer(NamedTuple):
    """What a client gets."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    policy: str = NO_CONTENT_OF_OTHERS


def text(status: HTTPStatus, line: str, *headers: tuple[str, str]) -> Answer:
    return Answer(status, TEXT, f"{line}\n".encode(), headers)


def document(value: object) -> Answer:
    return Answer(HTTPStatus.OK, JSON, json.dumps(value, indent=1).encode() + b"\n")


Service = Callable[[Asked], Awaitable[Answer]]


class Admin:
    """Answers GET and HEAD of the given routes: path without query to a function that makes the answer.

    services: path to what answers any request for it, or for what lies below it.  names: under which it answers.
    for_all: paths that it answers under any other, too."""

    def __init__(
        self, routes: Mapping[str, Callable[[], Answer]], services: Mapping[str, Service] | None = None,
        *, names: Hostnames | None = None, for_all: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.routes, self.services, self.names, self.for_all = routes, services or {}, names or Hostnames(""), for_all
        self.clients: set[asyncio.StreamWriter] = set()

    async def serve(self, listener: socket.socket) -> None:
        """Answers from now on, until `close`."""
        self.server = await asyncio.start_server(self.welcome, sock=listener, limit=HEAD_BYTES)

    async def close(self) -> None:
        """Listens no more, and ends what is under way."""
        self.server.close()
        for writer in self.clients:
            writer.transport.abort()
        while self.clients:
            await asyncio.sleep(0)

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: one request, one answer, the end."""
        if len(self.clients) >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self.clients.add(writer)
        try:
            async with asyncio.timeout(REQUEST_S):
                await self.converse(reader, writer)
        except (TimeoutError, OSError):
            writer.transport.abort()
        finally:
            self.clients.discard(writer)
            writer.close()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h11  # when somebody asks

        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        request = None
        try:
            request = await self.request(connection, reader)
        except h11.RemoteProtocolError as error:
            answer = text(HTTPStatus(error.error_status_hint), f"bad request: {error}")
        else:
            if request is None:
                return
            answer = await self.answer(request)
        writer.transport.set_write_buffer_limits(0)  # drain() is to wait until all of it is sent
        writer.write(packed(connection, answer, head_only=request is not None and request.method == b"HEAD"))
        await writer.drain()
        await self.linger(reader, writer)

    async def request(self, connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
        """The request's head; None: the client left."""
        import h11

        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            connection.receive_data(await reader.read(HEAD_BYTES))

    async def linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads on until the client closes: closing before would reset it where a part of its request is unread."""
        with contextlib.suppress(OSError):
            writer.write_eof()
            while await reader.read(HEAD_BYTES):
                pass

    async def answer(self, request: h11.Request) -> Answer:
        path, _, query = request.target.decode("latin-1").partition("?")
        host = header(request, b"host")
        if host and host not in self.names and path not in self.for_all:  # without one: HTTP/1.0, which no browser speaks
            return misdirected(host)
        make, service = self.routes.get(path), self.services.get("/" + path.split("/")[1] if "/" in path else path)
        if make is None and service is None:
            return text(HTTPStatus.NOT_FOUND, f"no such path; there are: {' '.join([*self.routes, *self.services])}")
        if service is None and request.method not in (b"GET", b"HEAD"):
            return not_allowed("GET, HEAD")
        try:
            if make is not None:
                return make()
            assert service is not None
            return await service(asked(request, path, query))
        except Exception:
            log.exception("the admin endpoint could not make %s", path)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a defect; the server's log has the traceback")


def asked(request: h11.Request, path: str, query: str) -> Asked:
    return Asked(request.method.decode(), path[1:].partition("/")[2], query, header(request, b"authorization"), header(request, b"accept"))


def header(request: h11.Request, name: bytes) -> str:
    """Its values, with commas where there are several; "": there is none."""
    return b",".join(value for each, value in request.headers if each == name).decode("latin-1")


def misdirected(host: str) -> Answer:
    """The web page of somebody else would read this, or a proxy passes on the name it is known by (RFC 9110, section 15.5.20)."""
    name = host.partition(":")[0]
    return text(
        HTTPStatus.MISDIRECTED_REQUEST,
        f"this is not known as {name!r}: ask by address or as localhost; if that name is yours, start the server with --admin-names {name}",
    )


def not_allowed(allowed: str) -> Answer:
    return text(HTTPStatus.METHOD_NOT_ALLOWED, f"{allowed.replace(', ', ' and ')} only", ("Allow", allowed))


def packed(connection: h11.Connection, answer: Answer, *, head_only: bool) -> bytes:
    """The answer as bytes, without its body where the request was HEAD."""
    import h11

    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", answer.policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Connection", "close"),
        *answer.headers,
    ]
    status = answer.status
    response = h11.Response(status_code=status.value, reason=status.phrase.encode(), headers=headers)
    return (connection.send(response) or b"") + (b"" if head_only else answer.body)
