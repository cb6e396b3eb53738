"""What trusted proxies say of a client: before its first byte, or in a header of its request.

Both are believed of trusted addresses only, and of the headers only the one that the settings name: a proxy passes
on, untouched, the other one that a client wrote.
"""

from __future__ import annotations

import logging
import re

from unlimitedws.config import Config
from unlimitedws.trust import Trusted
from unlimitedws.wire import proxy
from unlimitedws.wire.address import Address
from unlimitedws.wire.forwarded import FORWARDED, Hop, Origin, forwarded, origin, x_forwarded

log = logging.getLogger("unlimitedws.worker")


def header(name: str) -> re.Pattern[bytes]:
    """Finds the values of a header in a raw head that was checked already."""
    return re.compile(rb"\r\n" + name.encode() + rb":([^\r]*)", re.IGNORECASE)


VALUES = {name: header(name) for name in ("forwarded", "x-forwarded-for", "x-forwarded-proto")}


class Proxies:
    """The proxies in front of one server, as its settings know them."""

    def __init__(self, config: Config) -> None:
        self.trusted = Trusted(config.trusted_proxies)
        self._has_warned = False
        self.header = "" if config.forwarded_header == "none" else config.forwarded_header

    def origin(self, head: bytes, peer: Address) -> Origin:
        """Who sent a request, and with which scheme (a trusted proxy's word; "" where none said it).

        head: the raw request head, which passed the strict check.  peer: the connection's address."""
        if not self.header or peer not in self.trusted:
            return Origin(peer, "")
        return origin(self.hops(head), peer, self.trusted.__contains__)

    def hops(self, head: bytes) -> list[Hop]:
        if self.header == FORWARDED:
            return forwarded(values(head, FORWARDED))
        return x_forwarded(values(head, "x-forwarded-for"), values(head, "x-forwarded-proto"))

    def preface(self, data: bytes, peer: Address) -> tuple[int, Address | None] | None:
        """See `contract.Front.preface`."""
        if peer not in self.trusted:
            if not self._has_warned:  # once: whoever can connect could fill the log
                self._has_warned = True
                log.warning("%s is not in trusted_proxies: it is cut, like all others where a PROXY preface is due", peer)
            raise ValueError("a PROXY preface is taken of trusted_proxies only")
        return proxy.parse(data)


def values(head: bytes, name: str) -> list[str]:
    return [value.decode("latin-1").strip(" \t") for value in VALUES[name].findall(head)]
