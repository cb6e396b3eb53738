"""Where a server listens, as the setting `listen` says it: addresses, separated by commas.

    0.0.0.0:8000                          one IPv4 address; a host name, of which the first address counts
    [::]:8000                             IPv6 alone
    *:8000                                IPv4 and IPv6
    unix:/run/app.sock?mode=660           a Unix socket, its mode in octal (660 where not given)
    unix:/run/app.sock?owner=www:www      ... and its owner, user or user:group
    systemd, systemd:NAME                 what systemd passed: all of it, or the sockets of one FileDescriptorName=
    0.0.0.0:8000?proxy                    each connection begins with the PROXY protocol
    0.0.0.0:8080?tls=no                   without TLS, though there is a certificate; ?tls: with it

Options are joined by &: unix:/run/app.sock?mode=666&proxy
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

UNIX_PREFIX = "unix:"
SYSTEMD = "systemd"
MODE = 0o660
"""Who may connect to a Unix socket, unless said otherwise: its owner and its group. To connect is to write."""
PATH_BYTES = 107  # <linux/un.h>: 108 with the zero at the end
MOST = 64
"""Places of one server: each worker gets their descriptors in one packet of at most 253."""
SWITCH = {"": True, "yes": True, "no": False}


class Tcp(NamedTuple):
    """A host and a port; the host `*` is all of IPv4 and IPv6."""

    host: str
    port: int
    proxied: bool = False
    tls: bool | None = None  #: None: where there is a certificate

    def __str__(self) -> str:
        return host_port(self.host, self.port)


class Unix(NamedTuple):
    """A Unix socket."""

    path: str
    mode: int = MODE
    owner: str = ""  #: user or user:group, names or numbers
    proxied: bool = False
    tls: bool | None = None  #: None: no

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path


class Systemd(NamedTuple):
    """Sockets that systemd listens on for us."""

    name: str = ""  #: "": all of them
    proxied: bool = False
    tls: bool | None = None  #: None: where there is a certificate, Unix sockets without

    def __str__(self) -> str:
        return f"{SYSTEMD}:{self.name}" if self.name else SYSTEMD


Place: TypeAlias = Tcp | Unix | Systemd


def host_port(host: str, port: int) -> str:
    """HOST:PORT as a URL wants it: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def places(text: str) -> list[Place]:
    """Every place of a setting `listen`. Raises ValueError, which names the item and what is wrong with it."""
    found = [place(item.strip()) for item in text.split(",") if item.strip()]
    if len(found) > MOST:
        raise ValueError(f"{len(found)} places are more than {MOST}")
    named = [str(each) for each in found if not isinstance(each, Tcp) or each.port]
    for name in named:
        if named.count(name) > 1:
            raise ValueError(f"{name} is there twice")
    if SYSTEMD in named and any(name.startswith(f"{SYSTEMD}:") for name in named):
        raise ValueError(f"{SYSTEMD} is all that systemd passed, {SYSTEMD}:NAME a part of it: choose one")
    return found


def place(item: str) -> Place:
    address, _, query = item.partition("?")
    options = options_of(item, query)
    if address.startswith(UNIX_PREFIX):
        return Unix(path_of(address), **options)
    if "mode" in options or "owner" in options:
        raise ValueError(f"{item}: mode and owner are of Unix sockets")
    if address == SYSTEMD or address.startswith(f"{SYSTEMD}:"):
        return Systemd(address.partition(":")[2], **options)
    return Tcp(*host_and_port(address), **options)


def path_of(address: str) -> str:
    path = address.removeprefix(UNIX_PREFIX)
    if not path or "\0" in path or len(os.fsencode(path)) > PATH_BYTES:
        raise ValueError(f"{address}: a Unix socket needs a path of at most {PATH_BYTES} bytes")
    return path


def host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 0xFFFF:
        raise ValueError(f"{address} is not HOST:PORT, unix:PATH or systemd")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address}: write an IPv6 address in brackets, as [::1]:8000")
    if not host:
        raise ValueError(f"{address} names no host; *:{port} is all of IPv4 and IPv6")
    return host, int(port)


def options_of(item: str, query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "mode" and re.fullmatch("0?[0-7]{3}", value):
            options["mode"] = int(value, 8)
        elif name == "owner" and re.fullmatch("[^:]+(:[^:]+)?", value):
            options["owner"] = value
        elif name in ("proxy", "tls") and value in SWITCH:
            options["proxied" if name == "proxy" else "tls"] = SWITCH[value]
        else:
            raise ValueError(f"{item}: ?{name}={value} is not mode=OCTAL, owner=USER[:GROUP], proxy or tls[=no]")
    return options
