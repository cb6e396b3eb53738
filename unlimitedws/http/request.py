"""A plain HTTP request, as routes see it: a `Request` with a body."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from unlimitedws.request import Request
from unlimitedws.wire.address import Address


class BodyLost(ConnectionError):
    """The body did not come whole: the peer went, took too long, or sent too much. It has its answer already."""


class HttpRequest(Request):
    """A request with its body, which an async route reads when it wants to; for the others it is there.

    read: gives the whole body, or raises BodyLost."""

    __slots__ = ("_body", "_read")

    def __init__(
        self, head: bytes, *, remote_address: Address, tls: Any, path: str, scheme: str | None, read: Callable[[], Awaitable[bytes]]
    ) -> None:  # fmt: skip
        super().__init__(head, remote_address=remote_address, tls=tls, path=path, scheme=scheme)
        self._read = read
        self._body: bytes | None = None

    async def body(self) -> bytes:
        """The whole body; at most `http_body_bytes`. Raises BodyLost, which a route need not catch."""
        if self._body is None:
            self._body = await self._read()
        return self._body

    @property
    def body_bytes(self) -> bytes:
        """The body, where it has come: always in a plain or blocking route, in an async one after `await request.body()`."""
        if self._body is None:
            raise RuntimeError("the body was not read yet: await request.body() first")
        return self._body

    @body_bytes.setter
    def body_bytes(self, body: bytes) -> None:
        self._body = body

    async def json(self) -> Any:
        """The body as JSON. Raises ValueError where it is none, and BodyLost."""
        return json.loads(await self.body())
