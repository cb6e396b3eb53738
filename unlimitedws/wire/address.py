"""The address of a peer, and how it is written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Address: TypeAlias = tuple[str, int] | str
"""(host, port), the host an IP address without brackets; of a Unix socket its path, or UNIX where it has none.

Port 0: not known, as of a client that a proxy names without it."""

UNIX = "unix"


def ip(text: str) -> str:
    """The IP address that `text` is, in its one plain form: an IPv4 address mapped into IPv6 as IPv4.

    Raises ValueError for anything else, an IPv6 address with a zone (%eth0) too: a zone means something
    on one machine only."""
    if ":" not in text:
        return str(IPv4Address(text))
    if "%" in text:
        raise ValueError(f"{text} has a zone")
    return packed(IPv6Address(text).packed)


def packed(data: bytes) -> str:
    """The same for an address of 4 or 16 bytes in network order."""
    if len(data) == 4:
        return str(IPv4Address(data))
    address = IPv6Address(data)
    return str(address.ipv4_mapped or address)
