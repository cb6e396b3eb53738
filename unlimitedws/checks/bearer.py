"""Where a request carries a bearer token.

    "header"           Authorization: Bearer TOKEN (RFC 6750, section 2.1); a page of a browser cannot send it
    "subprotocol"      one of the subprotocols offered: new WebSocket(url, ["chat.v1", "bearer.TOKEN"])
    "cookie:NAME"      a cookie; browsers send it whichever page connects, so check the origin as well
    "query:NAME"       ?NAME=TOKEN; what stands in a URL lands in the logs of every proxy on the way (ours hide it)

Which of them are looked at is the app's choice; RFC 6750, section 2, allows a client one of them at a time.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence

from unlimitedws.request import Request
from unlimitedws.wire.header import NAME

Find = Callable[[Request], str | None]
"""The token in a request; None: it has none there."""

SUBPROTOCOL_PREFIX = "bearer."

BASE64_PREFIX = "base64url."
"""A prefix that begins so is followed by the token in base64url, as Kubernetes has it:
`base64url.bearer.authorization.k8s.io.`"""


def finder(names: Sequence[str], subprotocol_prefix: str) -> Find:
    """Looks in each place in turn; the first that has a token gives it, good or bad. Raises ValueError."""
    if isinstance(names, str) or not names:
        raise ValueError(f'sources is a sequence of places, such as ("header", "subprotocol"); not {names!r}')
    if not NAME.fullmatch(subprotocol_prefix):
        raise ValueError(f"the prefix of a subprotocol is a token of RFC 9110; {subprotocol_prefix!r} is not")
    finds = [source(name, subprotocol_prefix) for name in names]

    def find(request: Request) -> str | None:
        return next((token for each in finds if (token := each(request)) is not None), None)

    return find


def source(name: str, subprotocol_prefix: str) -> Find:
    place, _, key = name.partition(":")
    if name == "header":
        return from_header
    if name == "subprotocol":
        return lambda request: from_subprotocols(request, subprotocol_prefix)
    if place == "cookie" and NAME.fullmatch(key):
        return lambda request: request.cookies.get(key)
    if place == "query" and key:
        return lambda request: request.query.get(key)
    raise ValueError(f"{name!r} is no source of a token; there are header, subprotocol, cookie:NAME and query:NAME")


def from_header(request: Request) -> str | None:
    value = request.headers.get("authorization")  # of two lines both, which is no token
    scheme, _, token = (value or "").partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def from_subprotocols(request: Request, prefix: str) -> str | None:
    offered = next((name for name in request.subprotocols if name.startswith(prefix)), None)
    if offered is None:
        return None
    token = offered[len(prefix) :]
    return from_base64(token) if prefix.startswith(BASE64_PREFIX) else token


def from_base64(text: str) -> str:
    """The text in base64url; the empty one, which is no token, where it is none."""
    try:
        return binascii.a2b_base64(text.translate(TO_STANDARD) + "=" * (-len(text) % 4), strict_mode=True).decode("ascii")
    except ValueError:
        return ""


TO_STANDARD = str.maketrans("-_", "+/")
