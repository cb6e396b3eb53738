"""A request, as hooks and routes see it."""

from __future__ import annotations

import re
from typing import Any

from unlimitedws.cookies import parse_cookies
from unlimitedws.headers import Headers, Query, finder
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.handshake import path_bytes, percent_decode
from unlimitedws.wire.redaction import redacted

__all__ = ["Accept", "Headers", "Query", "Reject", "Request", "Tls"]

COOKIES = finder(b"cookie")
AUTHORITY = re.compile(r"[A-Za-z]+://([^/?]*)")


class Request:
    """A request head, read when it is asked: making one costs the same whatever its size.

    head: as it came, up to and with its empty line; it has passed the strict check of `wire.head`.
    remote_address: (host, port) of the client, or the text of a Unix peer; what a trusted proxy said, where there
    is one.  tls: the `ssl.SSLObject` of a TLS connection.  path: percent-decoded, where it is known already.
    scheme: what a trusted proxy said; None: whether this connection is TLS.

    Kept as long as somebody holds it, and no longer: the connection does not. Its repr shows no value and no query."""

    __slots__ = ("_cookies", "_headers", "_path", "_query", "_scheme", "_tls", "head", "remote_address")

    def __init__(
        self,
        head: bytes,
        *,
        remote_address: tuple[str, int] | str,
        tls: Any = None,
        path: str | None = None,
        scheme: str | None = None,
    ) -> None:
        self.head = head
        self.remote_address = remote_address
        self._tls = tls
        self._path = path
        self._scheme = scheme
        self._headers: Headers | None = None
        self._cookies: dict[str, str] | None = None
        self._query: Query | None = None

    @property
    def method(self) -> str:
        """`"GET"` of an upgrade."""
        return self.head.partition(b" ")[0].decode("ascii")

    @property
    def target(self) -> str:
        """As it came: encoded, with the query. The query may hold a secret; logs take `redacted_target`."""
        return self.head.split(b" ", 2)[1].decode("ascii")

    @property
    def redacted_target(self) -> str:
        """The target with every value of its query hidden: `/chat?token=***&room=***`."""
        return redacted(self.target)

    @property
    def path(self) -> str:
        """Percent-decoded, without the query. Raises wire.handshake.BadTarget where the target names no path."""
        if self._path is None:
            self._path = percent_decode(path_bytes(self.head.split(b" ", 2)[1]))
        return self._path

    @property
    def query(self) -> Query:
        """`request.query.get("room")`, `request.query.get_all("tag")`."""
        if self._query is None:
            self._query = Query(self.target.partition("?")[2])
        return self._query

    @property
    def headers(self) -> Headers:
        """A mapping without regard to case: `request.headers.get("user-agent")`."""
        if self._headers is None:
            self._headers = Headers(self.head)
        return self._headers

    @property
    def cookies(self) -> dict[str, str]:
        """Name to value, as they came; of two with one name the first, which has the longer path (RFC 6265, section 5.4)."""
        if self._cookies is None:
            self._cookies = parse_cookies(COOKIES(self.head))
        return self._cookies

    @property
    def origin(self) -> str | None:
        """The page that asks (RFC 6454); browsers always send it with an upgrade, other clients need not."""
        return self.headers.get("origin")

    @property
    def host(self) -> str:
        """Host and perhaps port that the client asked for (RFC 9112, section 3.2.2: an absolute target has the say)."""
        found = AUTHORITY.match(self.target)
        return found[1] if found else self.headers["host"]

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """What the client offers in Sec-WebSocket-Protocol, the preferred first."""
        return tuple(self.headers.items_of("sec-websocket-protocol"))

    @property
    def tls(self) -> Tls | None:
        """The facts of a TLS connection; None: it is plain."""
        return None if self._tls is None else Tls(self._tls)

    @property
    def scheme(self) -> str:
        """`"https"` or `"http"`, for upgrades too: what the Origin of the same server's pages begins with."""
        return self._scheme or ("http" if self._tls is None else "https")

    def __repr__(self) -> str:
        path = self.target.partition("?")[0]
        return f"<{type(self).__name__} {self.method} {path} from {self.remote_address}>"


class Tls:
    """What is known of a TLS connection; asked of OpenSSL when it is asked for."""

    __slots__ = ("_object",)

    def __init__(self, ssl_object: Any) -> None:
        self._object = ssl_object

    @property
    def version(self) -> str | None:
        """`"TLSv1.3"`."""
        found: str | None = self._object.version()
        return found

    @property
    def cipher(self) -> str | None:
        """`"TLS_AES_256_GCM_SHA384"`."""
        found: tuple[str, str, int] | None = self._object.cipher()
        return found[0] if found else None

    @property
    def certificate(self) -> dict[str, Any] | None:
        """The client's certificate, verified, as `ssl.SSLObject.getpeercert` gives it; None: it showed none."""
        return self._object.getpeercert() or None

    @property
    def certificate_der(self) -> bytes | None:
        """The client's certificate, DER-encoded."""
        found: bytes | None = self._object.getpeercert(binary_form=True)
        return found

    @property
    def server_name(self) -> str | None:
        """The name the client asked for (SNI), where a callback of the context kept it on the object."""
        found: str | None = getattr(self._object, "server_name", None)
        return found

    @property
    def alpn(self) -> str | None:
        """The protocol agreed on by ALPN: `"http/1.1"`."""
        found: str | None = self._object.selected_alpn_protocol()
        return found

    def __repr__(self) -> str:
        return f"<Tls {self.version} {self.cipher}>"
