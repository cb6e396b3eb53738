"""Requests as a hook is given them."""

from __future__ import annotations

from typing import Any

from tests.peer import request
from unlimitedws.request import Request

CLIENT = ("192.0.2.7", 40000)


def asked(*headers: str, target: str = "/", **more: Any) -> Request:
    """The request of a clean upgrade to `target`, with these header lines besides (`"Cookie: a=b"`)."""
    return Request(request(target, *headers), remote_address=CLIENT, **more)


def asked_at(host: str, *headers: str, **more: Any) -> Request:
    """The same, to another Host than "test"."""
    return Request(request("/", *headers).replace(b"Host: test", f"Host: {host}".encode()), remote_address=CLIENT, **more)
