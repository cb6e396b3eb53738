"""Which web pages may connect (RFC 6455, section 10.2).

A browser sends the cookies of our site with every upgrade, whichever page starts it; the Origin header, which a page
cannot change, is what tells ours from others. It says nothing of other clients: they write into it what they like.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from unlimitedws.checks.composing import Check
from unlimitedws.request import Request
from unlimitedws.verdict import Reject

SERIALIZED = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::([0-9]{1,5}))?")  # RFC 6454, section 6.2
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:]+)(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}
ANY = "*"
OPAQUE = "null"
"""What a browser sends for a page without an origin of its own: a sandboxed frame, a file, some redirects."""


class Origin(NamedTuple):
    """Scheme, host and port of a page; port None where the scheme has no default."""

    scheme: str
    host: str
    port: int | None


def origin(*allowed: str, allow_missing: bool = True) -> Check:
    """Lets in the pages of these origins: `checks.origin("https://app.example.com")`.

    Nothing given: the pages of this server, by its Host. Host and port of both must be equal; a page that came
    over http may not connect to https, while a page of https may to http, since a proxy in front may take the TLS off.
    `"*"`: every page. `"null"`: pages without an origin.

    allow_missing: whether a request without Origin is let in. Browsers always send one; programs need not, and gain
    nothing by leaving it out that they would not gain by making one up.

    Raises ValueError for what no browser would send as its origin."""
    exact = {checked_origin(each) for each in allowed}
    refused = Reject(403, "pages of this origin may not connect\n")

    def check_origin(request: Request) -> Reject | None:
        theirs = request.origin
        if theirs is None:
            return None if allow_missing else refused
        if ANY in exact or theirs in exact:
            return None
        return None if is_allowed(request, theirs, exact) else refused

    return check_origin


def is_allowed(request: Request, theirs: str, exact: set[str | Origin]) -> bool:
    page = parse_origin(theirs)
    if page is None:  # "null" is judged already
        return False
    return page in exact if exact else is_same(page, request)


def is_same(page: Origin, request: Request) -> bool:
    """Whether a page comes from the server that `request` went to."""
    found = HOST.fullmatch(request.host.lower())
    if found is None or page.scheme not in DEFAULT_PORTS or (page.scheme == "http" and request.scheme == "https"):
        return False
    # A Host without a port means the default of the scheme the client spoke, which is the page's.
    port = int(found[2]) if found[2] else DEFAULT_PORTS[page.scheme]
    return (page.host, page.port) == (found[1], port)


def parse_origin(text: str) -> Origin | None:
    """An origin as browsers write it, its default port filled in; None for anything else."""
    found = SERIALIZED.fullmatch(text.lower())
    if found is None:
        return None
    port = int(found[3]) if found[3] else DEFAULT_PORTS.get(found[1])
    return Origin(found[1], found[2], port)


def checked_origin(text: str) -> str | Origin:
    if text in (ANY, OPAQUE):
        return text
    found = parse_origin(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"{text!r} is no origin: write scheme://host or scheme://host:port, without a path and a slash at the end, "
            "other scripts as punycode (xn--...); patterns are not known, list each"
        )
    return found
