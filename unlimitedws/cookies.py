"""Cookies: read as they come, written strictly (RFC 6265)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlimitedws.wire.header import NAME

VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")  # section 4.1.1: no space, quote, comma, semicolon, backslash
OUTER = frozenset(("", " ", "\t", '"'))
ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*")
SAME_SITE = ("Strict", "Lax", "None")


def parse_cookies(lines: Iterable[bytes]) -> dict[str, str]:
    """Name to value of Cookie headers. Lenient: what has no name or no `=` is left out, quotes around a value are taken off.

    Values stay encoded: `%20` is three characters."""
    found: dict[str, str] = {}
    for line in lines:
        for pair in line.decode("latin-1").split(";"):
            name, equals, value = pair.partition("=")
            if equals and (name := name.strip(" \t")) and name not in found:
                # The call costs more than the look whether there is something to take off.
                found[name] = unquoted(value) if value[-1:] in OUTER or value[:1] in OUTER else value
    return found


def unquoted(value: str) -> str:
    value = value.strip(" \t")
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


@dataclass(frozen=True, slots=True)
class Cookie:
    """One cookie to set. Raises ValueError for what a browser would refuse or misread.

    max_age: seconds; 0 deletes it, None keeps it until the browser is closed.  domain: also to its subdomains; None:
    only to this host.  secure: only over TLS (browsers take localhost for secure, Safari excepted).  httponly: scripts
    cannot read it.  samesite: Strict, Lax or None; Lax and Strict keep it away from upgrades that other sites start."""

    name: str
    value: str
    max_age: int | None = None
    path: str = "/"
    domain: str | None = None
    secure: bool = True
    httponly: bool = True
    samesite: str = "Lax"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ValueError(f"the name of a cookie is a token of RFC 9110; {self.name!r} is not")
        if not isinstance(self.value, str) or not VALUE.fullmatch(self.value):
            raise ValueError(
                f"the value of cookie {self.name} is not ASCII without space, quote, comma, semicolon and backslash; "
                "encode it (urllib.parse.quote, or SignedCookies)"
            )
        if self.max_age is not None and type(self.max_age) is not int:
            raise ValueError(f"max_age of cookie {self.name} is a whole number of seconds, not {self.max_age!r}")
        self.check_scope()

    def check_scope(self) -> None:
        if not self.path.startswith("/") or not ATTRIBUTE.fullmatch(self.path):
            raise ValueError(f"the path of cookie {self.name} starts with a slash and holds no semicolon; {self.path!r} does not fit")
        if self.domain is not None and (not self.domain or not ATTRIBUTE.fullmatch(self.domain)):
            raise ValueError(f"{self.domain!r} is no domain for cookie {self.name}")
        if self.samesite not in SAME_SITE:
            raise ValueError(f"samesite of cookie {self.name} is one of {', '.join(SAME_SITE)}; not {self.samesite!r}")
        if not self.secure and (self.samesite == "None" or self.name.startswith(("__Secure-", "__Host-"))):
            raise ValueError(f"browsers refuse cookie {self.name} unless it is secure (samesite None, or its prefix)")
        if self.name.startswith("__Host-") and (self.domain is not None or self.path != "/"):
            raise ValueError(f"browsers refuse cookie {self.name} with a domain, or a path but /")

    def pack(self) -> str:
        """The value of its Set-Cookie header."""
        parts = [f"{self.name}={self.value}", f"Path={self.path}"]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.max_age is not None:
            parts.append(f"Max-Age={self.max_age}")
        parts += ["Secure"] * self.secure + ["HttpOnly"] * self.httponly + [f"SameSite={self.samesite}"]
        return "; ".join(parts)

    def __repr__(self) -> str:
        return f"<Cookie {self.name}>"  # its value may be secret


def checked_cookies(given: Iterable[Cookie | tuple[str, str]]) -> Sequence[Cookie]:
    """`given` as Cookie objects; a pair gets the defaults. Raises TypeError or ValueError."""
    return tuple(cookie if isinstance(cookie, Cookie) else cookie_of(cookie) for cookie in given)


def cookie_of(pair: object) -> Cookie:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError("cookies are Cookie objects, or pairs of a name and a value")
    return Cookie(*pair)
