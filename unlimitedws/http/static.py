"""The files of one folder (RFC 9110; RFC 9111 for what a cache asks).

Served is what lies in the folder: no file or folder whose name begins with a dot, nothing that a symbolic link has
outside of it. A path is taken as it was decoded once; `%2e%2e%2f` is `../`, and refused like it.
"""

from __future__ import annotations

import os
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from unlimitedws.http.files import File
from unlimitedws.http.response import TEXT, Response, type_of
from unlimitedws.request import Request

INDEX = "index.html"


class Found(NamedTuple):
    """An answer with an open file: `response` says all but the body, of which it sends `size` bytes from `start`."""

    response: Response
    file: File
    start: int
    size: int


class Static:
    """Serves `folder` under the path `prefix`. Its calls read the disk: they belong into a thread."""

    def __init__(self, folder: str, prefix: str) -> None:
        self.root = os.path.realpath(folder)
        self.prefix = prefix if prefix.endswith("/") else prefix + "/"

    def serves(self, path: str) -> bool:
        return path.startswith(self.prefix)

    def answer(self, request: Request) -> Found | Response | None:
        """The answer to a GET or HEAD; None: there is no such file."""
        path = request.path
        name = self.name_of(path)
        if name is None:
            return None
        try:
            return self.answer_file(request, name)
        except IsADirectoryError:
            return Response(status=308, headers=[("Location", encoded_path(request) + "/")])
        except (OSError, ValueError):
            return None

    def name_of(self, path: str) -> str | None:
        """The file that a path means; None where it means none."""
        rest = path[len(self.prefix) :]
        parts = rest.split("/")
        if parts[-1] == "":
            parts[-1] = INDEX
        if any(not part or part.startswith(".") or "\0" in part for part in parts):
            return None
        return os.path.join(self.root, *parts)

    def answer_file(self, request: Request, name: str) -> Found | Response | None:
        """Raises OSError."""
        file = File(name)
        if not file.real_path.startswith(self.root.rstrip("/") + "/"):
            file.close()
            return None
        headers = [("ETag", file.etag), ("Last-Modified", file.last_modified), ("X-Content-Type-Options", "nosniff")]
        headers += [("Accept-Ranges", "bytes")]
        if is_unchanged(request, file):
            file.close()
            return Response(status=304, headers=headers)
        kind = type_of(name)
        part = wanted_part(request, file)
        if part is None:
            return Found(Response(b"", kind, headers=headers), file, 0, file.size)
        start, end = part
        if start >= end:
            file.close()
            return Response("no such part\n", TEXT, 416, [("Content-Range", f"bytes */{file.size}")])
        headers += [("Content-Range", f"bytes {start}-{end - 1}/{file.size}")]
        return Found(Response(b"", kind, 206, headers), file, start, end - start)


def encoded_path(request: Request) -> str:
    """The path as it came. Of an absolute target, too, only the path: the client knows where it is."""
    target = request.target.partition("?")[0]
    return target if target.startswith("/") else "/" + target.split("/", 3)[3]


def is_unchanged(request: Request, file: File) -> bool:
    """Whether the client has the file as it is (RFC 9110, section 13.2.2): If-None-Match has the say over a date."""
    tags = request.headers.items_of("if-none-match")
    if tags:
        return "*" in tags or file.etag in [tag.removeprefix("W/") for tag in tags]
    since = seconds_of(request.headers.get("if-modified-since"))
    return since is not None and file.modified_ns // 1_000_000_000 <= since


def wanted_part(request: Request, file: File) -> tuple[int, int] | None:
    """First byte and end of the one range asked for (RFC 9110, section 14.2); None: the whole, as for several at once."""
    asked = request.headers.get("range", "")
    if request.method != "GET" or not asked.startswith("bytes=") or "," in asked:
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition not in (file.etag, file.last_modified):
        return None
    first, dash, last = asked[6:].strip().partition("-")
    if not dash or not all(part == "" or (part.isascii() and part.isdigit() and len(part) < 20) for part in (first, last)):
        return None
    if not first:
        return (max(0, file.size - int(last)), file.size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1 if last else file.size, file.size)


def seconds_of(date: str | None) -> float | None:
    if date is None:
        return None
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
