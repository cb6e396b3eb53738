"""/connections: who is connected, a page at a time or one by id; and closing one, for who has the token.

    GET    /connections?limit=100    the first page; `next` in it is the path of the next one
    GET    /connections/ID           one of them
    DELETE /connections/ID           closes it (1001), with `Authorization: Bearer TOKEN`

Each worker is asked for its own, so that nothing is kept for it anywhere.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from unlimitedws.supervisor.admin import Answer, Asked, document, not_allowed, text
from unlimitedws.supervisor.asking import MOST
from unlimitedws.supervisor.channel import Message
from unlimitedws.supervisor.child import Child
from unlimitedws.supervisor.fleet import Fleet

SERIAL_BITS = 40
"""The upper part of a connection's id is the serial number of the worker that accepted it."""
LARGEST = 2**63 - 1

LOOKS, LOOK_EVERY_S = 50, 0.1
"""How often one is looked for while connections move: as long as a handover waits for handlers (handover_timeout_s)."""


class Silent(Exception):
    """A worker does not answer; says which."""


class Connections:
    """token_file: see the setting admin_token_file."""

    def __init__(self, fleet: Fleet, token_file: str) -> None:
        self.fleet, self.token_file = fleet, token_file

    async def answer(self, asked: Asked) -> Answer:
        """The service of Admin."""
        if not asked.rest:
            return not_allowed("GET, HEAD") if asked.method not in ("GET", "HEAD") else await self.guarded(self.page(asked.query))
        id = number(asked.rest)
        if id is None:
            return text(HTTPStatus.NOT_FOUND, "the id of a connection is a number: /connections/1099511627777")
        if asked.method in ("GET", "HEAD"):
            return await self.guarded(self.one(id, "find"))
        if asked.method != "DELETE":
            return not_allowed("GET, HEAD, DELETE")
        return self.refusal(asked.authorization) or await self.guarded(self.one(id, "close"))

    def refusal(self, authorization: str) -> Answer | None:
        """What somebody without the right token gets. The file is read each time: a new token needs no restart."""
        if not self.token_file:
            return text(HTTPStatus.FORBIDDEN, "read only; to close connections, set admin_token_file")
        try:
            token = Path(self.token_file).read_text().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            return text(HTTPStatus.FORBIDDEN, f"the file that admin_token_file names cannot be read: {error}")
        scheme, _, given = authorization.partition(" ")  # the name of a scheme has no case (RFC 9110, section 11.1)
        if not token or scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), token.encode()):
            return text(HTTPStatus.UNAUTHORIZED, "this needs Authorization: Bearer TOKEN", ("WWW-Authenticate", "Bearer"))
        return None

    async def guarded(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return await answer
        except Silent as error:
            return text(HTTPStatus.GATEWAY_TIMEOUT, f"{error} does not answer; /stats tells how late its loop is")

    async def page(self, query: str) -> Answer:
        """Some connections, worker after worker. worker, start: where this page starts, as `next` said."""
        given = dict(parse_qsl(query, keep_blank_values=True))
        numbers = {name: number(given.pop(name, default)) for name, default in (("limit", str(MOST)), ("worker", "0"), ("start", "0"))}
        limit, serial, start = numbers["limit"], numbers["worker"], numbers["start"]
        if given or limit is None or serial is None or start is None or not 1 <= limit <= MOST:
            return text(HTTPStatus.BAD_REQUEST, f"accepted are limit (1 to {MOST}), and worker and start as `next` says them")
        found: list[Message] = []
        for child in self.children():
            if child.order.serial < serial:
                continue
            if len(found) == limit:
                return self.paged(found, limit, child.order.serial, 0)
            said = await ask(child, {"page": [start if child.order.serial == serial else 0, limit - len(found)]})
            found += self.told(child, said)
            if said.get("next") is not None:
                return self.paged(found, limit, child.order.serial, said["next"])
        return document({"connections": found, "next": None})

    def paged(self, found: list[Message], limit: int, serial: int, start: int) -> Answer:
        return document({"connections": found, "next": f"/connections?{urlencode({'limit': limit, 'worker': serial, 'start': start})}"})

    async def one(self, id: int, what: str) -> Answer:
        """Found, or closed: the connection as it was.

        A first look may miss one that moves: it was not there yet where it was looked for first, and had left where last."""
        for look in range(LOOKS):
            found, moving = await self.look(id, what)
            if found:
                return document(found[0])
            if look and not moving:
                break
            await asyncio.sleep(LOOK_EVERY_S if moving else 0)
        return text(HTTPStatus.NOT_FOUND, f"no connection {id} is open")

    async def look(self, id: int, what: str) -> tuple[list[Message], bool]:
        """It, if it is found, first where it was accepted; and whether some are on their way between workers."""
        moving = False
        for child in sorted(self.children(), key=lambda child: child.order.serial != id >> SERIAL_BITS):
            said = await ask(child, {what: id})
            if found := self.told(child, said):
                return found, False
            moving |= said.get("moving", False)
        return [], moving

    def told(self, child: Child, said: Message) -> list[Message]:
        return [{"slot": child.order.slot, "pid": child.pid, **each} for each in said["connections"]]

    def children(self) -> list[Child]:
        return sorted((child for child in self.fleet.children.values() if not child.is_dead), key=lambda child: child.order.serial)


async def ask(child: Child, question: Message) -> Message:
    """What a worker says. Raises Silent where it says nothing."""
    try:
        return await child.ask(question)
    except TimeoutError:
        raise Silent(f"worker {child.pid} of slot {child.order.slot}") from None


def number(text: str) -> int | None:
    """What a path or a query says, if it is a number that an id or a place can be."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        return None
    return value if (value := int(text)) <= LARGEST else None
