from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.http.asking import plain
from unlimitedws.http.request import HttpRequest


def request_with(body: bytes, reads: list[int] | None = None) -> HttpRequest:
    async def read() -> bytes:
        if reads is not None:
            reads.append(1)
        return body

    head = plain("POST", "/a?b=c", "Cookie: d=e")
    return HttpRequest(head, remote_address=("192.0.2.1", 1), tls=None, path="/a", scheme=None, read=read)


def test_it_is_a_request_with_all_its_facts() -> None:
    request = request_with(b"")
    assert (request.method, request.path, request.query["b"], request.cookies["d"], request.scheme) == ("POST", "/a", "c", "e", "http")


def test_the_body_is_read_once_and_there_afterwards() -> None:
    async def scene() -> None:
        reads: list[int] = []
        request = request_with(b'{"a": [1]}', reads)
        with pytest.raises(RuntimeError, match="await request"):
            _ = request.body_bytes
        assert await request.body() == b'{"a": [1]}'
        assert await request.body() == request.body_bytes == b'{"a": [1]}'
        assert await request.json() == {"a": [1]}
        assert len(reads) == 1

    asyncio.run(scene())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_a_body_that_is_no_json_is_a_value_error(body: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (json and UTF-8 have their own)
        asyncio.run(request_with(body).json())
