"""What an HTTP route answers (RFC 9110)."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlimitedws.wire.header import Headers, check_header, checked_headers

HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
OCTETS = "application/octet-stream"
FRAMING = frozenset({"content-length", "connection", "transfer-encoding", "content-type", "date"})
BODILESS = frozenset({204, 304})  # sections 15.3.5 and 15.4.5

Body = str | bytes | Path | Iterable[str | bytes] | AsyncIterable[str | bytes]

# Not the system's tables: a file has the same type on every machine.
TYPES = mimetypes.MimeTypes(())
for _kind, _ending in (
    ("text/javascript", ".js"), ("text/javascript", ".mjs"), ("application/wasm", ".wasm"), ("application/json", ".map"),
    ("application/manifest+json", ".webmanifest"), ("font/woff", ".woff"), ("font/woff2", ".woff2"), ("font/ttf", ".ttf"),
    ("image/webp", ".webp"), ("image/avif", ".avif"), ("image/svg+xml", ".svg"), ("text/markdown", ".md"),
):  # fmt: skip
    TYPES.add_type(_kind, _ending)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response. Raises ValueError or TypeError for what cannot be sent as one.

    body: str (sent as UTF-8), bytes, a `pathlib.Path` (its file is streamed), or an iterable, async or not, of str or
    bytes, which is sent piece by piece as fast as the peer reads; of a route marked by `@blocking` each piece is made in a
    thread.  content_type: by default HTML for str, octets for bytes, by its ending for a file.
    headers: a mapping or pairs, besides those of framing, which are ours."""

    body: Body = b""
    content_type: str | None = None
    status: int = 200
    headers: Headers = ()

    def __post_init__(self) -> None:
        if not isinstance(self.body, str | bytes | Path | Iterable | AsyncIterable) or isinstance(self.body, dict | bytearray | memoryview):
            raise TypeError(f"the body of a response is str, bytes, pathlib.Path or an iterable of pieces, not {type(self.body).__name__}")
        if type(self.status) is not int or not 200 <= self.status <= 599:
            raise ValueError(f"the status of a response is 200 to 599, not {self.status!r}")
        object.__setattr__(self, "headers", checked_headers(self.headers, ours=FRAMING))
        check_header(("Content-Type", self.type))

    @property
    def type(self) -> str:
        """What Content-Type says."""
        if self.content_type is not None:
            return self.content_type
        if isinstance(self.body, Path):
            return type_of(self.body.name)
        return HTML if isinstance(self.body, str) else OCTETS

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The headers to send, but for those that say where the body ends."""
        assert isinstance(self.headers, tuple)  # checked_headers made it so
        return [*([] if self.status in BODILESS else [("Content-Type", self.type)]), *self.headers]


def type_of(name: str) -> str:
    """The media type of a file, by its ending."""
    kind, packed = TYPES.guess_type(name)
    if packed is not None:  # page.html.gz is no page: nobody unpacks it on its way
        return "application/gzip" if packed == "gzip" else OCTETS
    if kind is None:
        return OCTETS
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def response_of(result: Any) -> Response:
    """What a route returned, as a Response. Raises TypeError."""
    if isinstance(result, Response):
        return result
    if isinstance(result, str | bytes | Path):
        return Response(result)
    raise TypeError(f"a route returns str, bytes, pathlib.Path or Response, not {type(result).__name__}")
