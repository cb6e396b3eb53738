"""The control socket: what `unlimitedws ctl` talks to. Who may connect is said by the file: its owner alone.

One request for each connection, JSON on one line, and lines of JSON as the answer:

    {"verb": "workers", "number": 4}     asked, with "wait": false to hear only that it has begun
    {"progress": "..."}                  any number of these
    {"done": {...}} or {"failed": "..."} the last line; then the connection ends

What was begun goes on when its client leaves. Requests are short and have little time; a client that is silent, floods
or reads nothing costs a descriptor until then, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from unlimitedws.config import Config
from unlimitedws.controlfile import AUTO, place_of
from unlimitedws.errors import SocketFileError
from unlimitedws.place import PATH_BYTES, Unix
from unlimitedws.socketfile import UnixListener, listen_unix
from unlimitedws.supervisor.stored import KeptFile

log = logging.getLogger("unlimitedws.supervisor")

REQUEST_BYTES = 4096
REQUEST_S = 5.0
"""Time a client has to say what it wants; and then, to read the last line."""
END_S = 0.5
"""At the server's end: time for last lines that are on their way."""
MOST_CLIENTS = 64
MODE = 0o600

Message = dict[str, Any]
Say = Callable[[str], None]
Verb = Callable[[Message, Say], Awaitable[Message]]


class Refused(Exception):
    """What was asked for is not done; the text says why, and what to do next."""


class Control:
    """Answers on a control socket. verbs: name to what does it, which is given the request and a function that tells progress."""

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self.verbs = verbs
        self.clients: dict[asyncio.StreamWriter, asyncio.Task[Any]] = {}

    async def serve(self, listener: socket.socket) -> None:
        """Answers from now on, until `close`."""
        self.server = await asyncio.start_unix_server(self.welcome, sock=listener, limit=REQUEST_BYTES)

    async def close(self) -> None:
        """Listens no more; who waits for an answer that is on its way gets it, and nobody else anything."""
        self.server.close()
        if tasks := set(self.clients.values()):
            _, late = await asyncio.wait(tasks, timeout=END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: one request, one answer, the end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self.clients) >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self.clients[writer] = task
        writer.transport.set_write_buffer_limits(0)  # drain() is to wait until all of it is sent
        try:
            tell(writer, await self.answer(reader, writer))
            await asyncio.wait_for(writer.drain(), REQUEST_S)
            writer.close()
        except (OSError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self.clients[writer]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
        """The last line. Raises OSError and TimeoutError, where there is nobody to tell."""
        try:
            request = request_of(await asyncio.wait_for(reader.readline(), REQUEST_S))
            return {"done": await self.verb(request)(request, lambda text: tell(writer, {"progress": text}))}
        except Refused as error:
            return {"failed": str(error)}
        except (ValueError, RecursionError):  # too long, or no JSON
            return {"failed": f"a request is one line of JSON, of {REQUEST_BYTES} bytes at most"}
        except (OSError, TimeoutError):
            raise
        except Exception:
            log.exception("the control socket could not do what it was asked for")
            return {"failed": "this is a defect; the server's log has the traceback"}

    def verb(self, request: Message) -> Verb:
        """Raises Refused for one that there is not."""
        verb = self.verbs.get(str(request.get("verb")))
        if verb is None:
            raise Refused(f"this server does not know {request.get('verb')!r}; it knows {', '.join(self.verbs)}")
        return verb


def request_of(line: bytes) -> Message:
    """Raises ValueError, RecursionError."""
    request = json.loads(line)
    if not isinstance(request, dict):
        raise ValueError("no object")
    return request


def tell(writer: asyncio.StreamWriter, message: Message) -> None:
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


def listen_for_control(config: Config, port: int | None, before: KeptFile | None = None) -> UnixListener | None:
    """The control socket's listener; None where it is switched off, or where `auto` finds no place, which is logged.

    port: the server's first TCP port.  before: the listener of the supervisor before an upgrade; ended where another place is
    wanted. Raises SocketFileError for a path that was given."""
    listener = None
    try:
        listener = listener_of(config, port, before)
    finally:
        if before is not None and (listener is None or listener.sock.fileno() != before.fd):
            before.end()
    return listener


def listener_of(config: Config, port: int | None, before: KeptFile | None) -> UnixListener | None:
    if not config.control_socket:
        return None
    if config.control_socket != AUTO:
        try:
            return listen_at(config.control_socket, config, before)
        except SocketFileError as error:
            raise SocketFileError(error.path, f"{error.why} (control_socket)") from None
    try:
        return listen_at(str(place_of(AUTO, port, os.environ, os.geteuid())), config, before)
    except (SocketFileError, OSError) as error:
        log.warning("`unlimitedws ctl` will not reach this server: %s; set control_socket to another path", error)
        return None


def listen_at(path: str, config: Config, before: KeptFile | None) -> UnixListener:
    """Raises SocketFileError."""
    if len(os.fsencode(path)) > PATH_BYTES:
        raise SocketFileError(path, f"a Unix socket's path has {PATH_BYTES} bytes at most")
    kept = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, before.fd) if before is not None and before.is_at(path) else None
    return listen_unix(Unix(path, MODE), config, kept)
