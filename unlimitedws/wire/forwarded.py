"""What proxies say of their client in a header: `Forwarded` (RFC 7239), or `X-Forwarded-For` and `-Proto`.

Every proxy on the way appends the address that it was connected from, so the end of the list is true as far as
the proxies are trusted, and its beginning is whatever the client wrote. Hence the walk from the right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unlimitedws.wire.address import Address, ip

FORWARDED = "forwarded"
X_FORWARDED_FOR = "x-forwarded-for"

PAIR = re.compile(r'[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=([!#$%&\'*+\-.^_`|~0-9A-Za-z]+|"(?:[^"\\]|\\.)*")[ \t]*([;,]|$)')
"""One `name=value` of RFC 7239, section 4, and what ends it."""
PORT = re.compile(r"[0-9]{1,5}")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")  # RFC 3986, section 3.1


class Hop(NamedTuple):
    """One proxy's word: where it was connected from, and with which scheme ("" where it does not say)."""

    node: str
    scheme: str = ""


class Origin(NamedTuple):
    """Who is at the other end, as far as the trusted proxies know."""

    address: Address
    scheme: str  #: "" where nobody said it


def origin(hops: list[Hop], peer: Address, is_trusted: Callable[[Address], bool]) -> Origin:
    """The client behind `peer`: the first address from the right that is not trusted.

    Where a trusted proxy does not name its client ("unknown", "_hidden", nonsense), the walk ends at that proxy."""
    address, scheme = peer, ""
    for hop in reversed(hops):
        if not is_trusted(address):
            break
        scheme = hop.scheme or scheme
        try:
            address = node(hop.node)
        except ValueError:
            break
    return Origin(address, scheme)


def node(text: str) -> Address:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80` (RFC 7239, section 6).

    Raises ValueError for what names no address."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or port[:1] not in ("", ":"):
            raise ValueError(f"{text!r} names no address")
        port = port[1:]
    elif text.count(":") == 1:
        host, port = text.split(":")
    return ip(host), int(port) if PORT.fullmatch(port) and int(port) <= 0xFFFF else 0


def forwarded(values: list[str]) -> list[Hop]:
    """The hops of all `Forwarded` headers, in their order; a hop without `for` has an empty node.

    What is not in the grammar of RFC 7239 ends the list to its left: only what stands behind it, written by proxies
    nearer to us, is given."""
    hops: list[Hop] = []
    for value in values:
        for element in elements(value):
            if element is None:
                hops.clear()
            else:
                hops.append(element)
    return hops


def elements(value: str) -> Iterator[Hop | None]:
    """Hop by hop; None where something is not in the grammar, and the list goes on behind its next comma."""
    pairs: dict[str, str] = {}
    at, ended = 0, False
    while not ended:
        match = PAIR.match(value, at)
        if match is None:
            yield None
            at, pairs = next_element(value, at), {}
            ended = at > len(value)
            continue
        name, text, end = match[1].lower(), match[2], match[3]
        pairs.setdefault(name, unquote(text))
        at, ended = match.end(), end == ""
        if end != ";":
            yield Hop(pairs.get("for", ""), scheme_of(pairs.get("proto", "")))
            pairs = {}


def next_element(value: str, at: int) -> int:
    comma = value.find(",", at)
    return len(value) + 1 if comma < 0 else comma + 1


def unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def scheme_of(text: str) -> str:
    return text.lower() if SCHEME.fullmatch(text) else ""


def x_forwarded(values: list[str], protos: list[str]) -> list[Hop]:
    """The hops of `X-Forwarded-For`, with the schemes of `X-Forwarded-Proto`.

    Proxies set the second rather than append to it: where it does not have one scheme for each hop, its last is
    what the proxy next to us saw, and every hop's."""
    nodes, schemes = items(values), [scheme_of(proto) for proto in items(protos)]
    if len(schemes) != len(nodes):
        schemes = schemes[-1:] * len(nodes)
    return [Hop(*pair) for pair in zip(nodes, schemes, strict=True)] if schemes else [Hop(name) for name in nodes]


def items(values: list[str]) -> list[str]:
    found = (item.strip(" \t") for value in values for item in value.split(","))
    return [item for item in found if item]
