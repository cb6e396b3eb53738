"""A server to load: its URL, its addresses, and the upgrade requests that it gets."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from unlimitedws.errors import BenchError
from unlimitedws.wire.handshake import GUID

KEYS = 64
"""Different upgrade requests: enough for an answer to another's request to be noticed, few enough to be made beforehand."""

HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\x20-\x7e\x80-\xff]*")
OURS = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. address: as `socket.connect` takes it, resolved."""

    url: str
    host: str  #: for the Host header
    path: str  #: with its query
    family: int
    address: tuple[str, int] | tuple[str, int, int, int]
    name: str = ""  #: of the host, which its certificate must have
    is_secure: bool = False

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.address[0].partition("%")[0]).is_loopback

    @property
    def packed(self) -> bytes:
        return pack(self.family, self.address)


def parse(url: str) -> Target:
    """The target of a ws:// or wss:// URL. Raises BenchError for any other, and for a host that is not known."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BenchError(f"{url!r} is no URL: {error}") from None
    is_secure = parts.scheme in ("wss", "https")
    if parts.scheme in ("http", "https"):
        meant = urlunsplit(parts._replace(scheme="wss" if is_secure else "ws"))
        raise BenchError(f"{url!r} is no WebSocket URL; did you mean {meant}?")
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise BenchError(
            f"{url!r} is no WebSocket URL; it looks like ws://host:port/path or wss://host/path (a Unix socket cannot be loaded)"
        )
    if parts.fragment or parts.username is not None:
        raise BenchError(f"{url!r}: a WebSocket URL has no fragment (#), and for a name and password use --header 'Authorization: ...'")
    path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    if not re.fullmatch(r"[\x21-\x7e]+", path):
        raise BenchError(f"{url!r}: escape what is not printable ASCII in the path, as in %20")
    family, address = resolve(parts.hostname, port or (443 if is_secure else 80))
    return Target(url, parts.netloc, path, family, address, parts.hostname, is_secure)


def parse_all(urls: Sequence[str]) -> list[Target]:
    """The targets of one run. Raises BenchError."""
    targets = [parse(url) for url in urls]
    if len({target.is_secure for target in targets}) > 1:
        raise BenchError("of several URLs all begin with ws://, or all with wss://: they are ports of one server")
    return targets


def resolve(host: str, port: int) -> tuple[int, tuple[str, int] | tuple[str, int, int, int]]:
    """Family and address of a host. Raises BenchError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise BenchError(f"the host {host!r} is not known: {getattr(error, 'strerror', None) or error}") from None
    # IPv4 first: only there a loopback server can be reached from as many addresses as a million connections need.
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address  # type: ignore[return-value]  # a host and a port: only AF_INET and AF_INET6 come back


def pack(family: int, address: Sequence[str | int]) -> bytes:
    """The kernel's struct sockaddr."""
    host, port = str(address[0]).partition("%")[0], int(address[1])
    start = struct.pack("=H", family) + struct.pack("!H", port)
    if family == socket.AF_INET:
        return start + socket.inet_pton(family, host) + bytes(8)
    flow, scope = (int(address[2]), int(address[3])) if len(address) == 4 else (0, 0)
    return start + struct.pack("!I", flow) + socket.inet_pton(family, host) + struct.pack("=I", scope)


@dataclass(frozen=True, slots=True)
class Words:
    """What is said to begin with: upgrade requests, the Sec-WebSocket-Accept that each must get, the subprotocols offered."""

    requests: list[bytes]
    accepts: list[bytes]
    offered: bytes


def words(target: Target, headers: Sequence[str] = (), subprotocols: Sequence[str] = ()) -> Words:
    """KEYS requests with random keys. Raises BenchError for a header that is none, or is ours to send."""
    for header in headers:
        if not HEADER.fullmatch(header):
            raise BenchError(f"--header {header!r} is no header; it looks like 'Name: value'")
        if header.partition(":")[0].lower() in OURS:
            raise BenchError(
                f"--header {header!r}: bench sends that one itself" + (" (--subprotocol)" if "protocol" in header.lower() else "")
            )
    offered = ", ".join(subprotocols)
    lines = [f"Host: {target.host}"] if not any(header.lower().startswith("host:") for header in headers) else []
    lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", *headers]
    lines += [f"Sec-WebSocket-Protocol: {offered}"] if offered else []
    keys = [base64.b64encode(os.urandom(16)) for _ in range(KEYS)]
    head = "\r\n".join([f"GET {target.path} HTTP/1.1", *lines, "Sec-WebSocket-Key: "]).encode("latin-1")
    return Words([head + key + b"\r\n\r\n" for key in keys], [accept(key) for key in keys], offered.encode("latin-1"))


def accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept of a key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())
