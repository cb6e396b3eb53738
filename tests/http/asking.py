"""Plain HTTP requests, and responses as a client reads them."""

from __future__ import annotations

from typing import NamedTuple

import h11


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    informed: list[int]  #: statuses of 1xx before it
    rest: bytes  #: what follows


def plain(method: str = "GET", target: str = "/", *headers: str, body: bytes = b"") -> bytes:
    """A whole request."""
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: test", *headers, *length, "", ""]).encode() + body


def read(response: bytes, method: str = "GET") -> Answer:
    """The one response in `response`. Fails where it is incomplete or framed wrongly."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    informed: list[int] = []
    body = b""
    head: h11.Response | None = None
    while True:
        event = client.next_event()
        assert event is not h11.NEED_DATA, f"the response is not complete: {response!r}"
        if isinstance(event, h11.InformationalResponse):
            informed.append(event.status_code)
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
    assert head is not None
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Answer(head.status_code, headers, body, informed, bytes(client.trailing_data[0]))
