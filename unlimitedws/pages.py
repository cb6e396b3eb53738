"""The app's own small pages: what a page function returns, as the bytes of a whole HTTP response (RFC 9110).

For a page beside the sockets, a status text, one HTML file. Everything is in memory at once, and the connection closes
after it.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any

HTML = "text/html; charset=utf-8"
OCTETS = "application/octet-stream"
FRAMING = frozenset({"content-length", "connection", "transfer-encoding", "content-type", "date"})


@dataclass(frozen=True, slots=True)
class Page:
    """One HTTP response. Raises ValueError for what cannot be sent as one.

    body: str (sent as UTF-8) or bytes.  content_type: by default HTML for str, octets for bytes.
    headers: pairs of name and value, besides those of framing, which are ours."""

    body: str | bytes = b""
    content_type: str | None = None
    status: int = 200
    headers: Sequence[tuple[str, str]] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.body, str | bytes):
            raise ValueError(f"the body of a page is str or bytes, not {type(self.body).__name__}")
        if not 200 <= self.status <= 599:
            raise ValueError(f"the status of a page is 200 to 599, not {self.status}")
        for name, value in (*self.headers, ("content-type", self.type)):
            if not is_header(name, value):
                raise ValueError(f"header {name!r}: {value!r} holds what no header may (control characters, or not ASCII)")
        for name, _ in self.headers:
            if name.lower() in FRAMING:
                raise ValueError(f"header {name!r} is written by the server; for the type use content_type=")

    @property
    def type(self) -> str:
        if self.content_type is not None:
            return self.content_type
        return HTML if isinstance(self.body, str) else OCTETS

    @property
    def octets(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else self.body


def is_header(name: str, value: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum() and value.isascii() and (value + "x").isprintable()


def page_of(result: Any) -> Page:
    """What a page function returned, as a Page; a `Path` is read. Raises TypeError, OSError."""
    if isinstance(result, Page):
        return result
    if isinstance(result, Path):
        kind, _ = mimetypes.guess_type(result.name)
        return Page(result.read_bytes(), with_charset(kind or OCTETS))
    if isinstance(result, str | bytes):
        return Page(result)
    raise TypeError(f"a page function returns str, bytes, pathlib.Path or Page, not {type(result).__name__}")


def with_charset(kind: str) -> str:
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "application/javascript" else kind


def pack_page(page: Page, *, method: str = "GET") -> bytes:
    """The response; to HEAD the same without its body (RFC 9110, section 9.3.2)."""
    body = page.octets
    head = [f"HTTP/1.1 {page.status} {phrase(page.status)}"]
    head += [f"Content-Type: {page.type}"] if page.status not in (204, 304) else []
    head += [f"Content-Length: {len(body)}"] if page.status != 204 else []
    head += [f"Date: {formatdate(usegmt=True)}", "Connection: close"]
    head += [f"{name}: {value}" for name, value in page.headers]
    packed = "\r\n".join([*head, "", ""]).encode("ascii")
    return packed if method == "HEAD" or page.status in (204, 304) else packed + body


def phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
