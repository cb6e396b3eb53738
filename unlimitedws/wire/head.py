"""The head of an HTTP request, parsed strictly (RFC 9112, RFC 9110).

Stricter than the standard asks of a server, on purpose: what two parsers on one path may read in two ways
(bare line feeds, folded lines, repeated Host, two lengths of one body) is refused, never repaired.
h11 accepts some of these, therefore nothing reaches it unseen.

    HeadError                 each knows the HTTP status it is answered with and says what is wrong
        BareNewline           a CR or LF that is not part of CRLF
        BadRequestLine        not "METHOD target HTTP/1.1"
        UnsupportedVersion    an HTTP version other than 1.1
        FoldedHeader          obs-fold: a header line that begins with white space
        BadHeaderName         empty, not a token, or followed by white space before the colon
        BadHeaderValue        a control character in a value
        BadHost               Host missing, repeated or not a host
        BadLength             Content-Length is no number, differs, or comes with Transfer-Encoding
        UnknownCoding             Transfer-Encoding is anything but one "chunked"
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

END = b"\r\n\r\n"
"""What a complete head ends with."""

VERSION = b"HTTP/1.1"

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
REQUEST_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")  # visible ASCII without "#": a fragment is never sent
ANY_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, section 5.5
LENGTH = re.compile(rb"[0-9]{1,18}")  # more digits than any body has; h11 takes 20
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~!$&'()*+,;=%]*)(?::[0-9]*)?")  # RFC 3986, section 3.2


class HeadError(Exception):
    """A request head that is refused; `status` is its HTTP answer."""

    status: ClassVar[int] = 400


class BareNewline(HeadError):
    """A CR or LF that is not part of CRLF."""

    def __init__(self) -> None:
        super().__init__("a line of the request does not end with CRLF")


class BadRequestLine(HeadError):
    """A first line that is not `METHOD target HTTP/1.1`."""

    def __init__(self) -> None:
        super().__init__("the request line is not 'METHOD target HTTP/1.1'")


class UnsupportedVersion(HeadError):
    """An HTTP version other than 1.1; an upgrade does not exist in HTTP/1.0 (RFC 9110, section 7.8)."""

    status = 505

    def __init__(self, version: bytes) -> None:
        super().__init__(f"{version.decode('ascii')} is not supported; use HTTP/1.1")


class FoldedHeader(HeadError):
    """A header line that begins with white space (obs-fold; RFC 9112, section 5.2)."""

    def __init__(self) -> None:
        super().__init__("a header is folded over several lines")


class BadHeaderName(HeadError):
    """A header name that is no token, or white space before its colon (RFC 9112, section 5.1)."""

    def __init__(self) -> None:
        super().__init__("a header line does not begin with 'name:'")


class BadHeaderValue(HeadError):
    """A control character in a header's value."""

    def __init__(self, name: bytes) -> None:
        super().__init__(f"header {name.decode('ascii')} contains a control character")


class BadHost(HeadError):
    """Host is missing, repeated or not a host (RFC 9112, section 3.2)."""

    def __init__(self, found: int) -> None:
        super().__init__(f"the request has {found} Host headers; it needs exactly one" if found != 1 else "Host is not a host name")


class BadLength(HeadError):
    """Content-Length is no number, differs, or comes with Transfer-Encoding (RFC 9112, section 6.3)."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


class UnknownCoding(HeadError):
    """Transfer-Encoding is anything but one `chunked` (RFC 9112, section 6.1)."""

    status = 501

    def __init__(self) -> None:
        super().__init__("the only Transfer-Encoding here is chunked")


class Head(NamedTuple):
    """A request head: `headers` are (lowercase name, value without outer white space), in their order."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]

    def all(self, name: bytes) -> list[bytes]:
        """Every value of the header `name` (given in lowercase)."""
        return [value for known, value in self.headers if known == name]

    def items(self, name: bytes) -> list[bytes]:
        """The items of the comma-separated lists in the header `name`, empty ones left out."""
        items = (item.strip(b" \t") for value in self.all(name) for item in value.split(b","))
        return [item for item in items if item]

    @property
    def announces_body(self) -> bool:
        """Whether bytes of a body follow this head (RFC 9112, section 6.3)."""
        return bool(self.all(b"transfer-encoding")) or any(value.strip(b"0") for value in self.all(b"content-length"))


def may_begin(data: bytes | bytearray) -> bool:
    """Whether a request can begin like `data` (not empty). What cannot, as a TLS hello, need not be waited for."""
    return TOKEN.match(data) is not None


def parse(head: bytes) -> Head:
    """The request head in `head`, which ends with its empty line. Raises HeadError."""
    if not head.endswith(END):
        raise BareNewline
    lines = head[: -len(END)].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line:
            raise BareNewline
    method, target, version = parse_request_line(lines[0])
    parsed = Head(method, target, version, [parse_header(line) for line in lines[1:]])
    check_host(parsed)
    check_length(parsed)
    return parsed


def parse_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Method, target and version (RFC 9112, section 3). Raises BadRequestLine or UnsupportedVersion."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequestLine
    method, target, version = parts
    if not TOKEN.fullmatch(method) or not REQUEST_TARGET.fullmatch(target) or not ANY_VERSION.fullmatch(version):
        raise BadRequestLine
    if version != VERSION:
        raise UnsupportedVersion(version)
    return method, target, version


def parse_header(line: bytes) -> tuple[bytes, bytes]:
    """One header line as (lowercase name, value). Raises FoldedHeader, BadHeaderName or BadHeaderValue."""
    if line[:1] in (b" ", b"\t"):
        raise FoldedHeader
    name, colon, value = line.partition(b":")
    if not colon or not TOKEN.fullmatch(name):
        raise BadHeaderName
    if NOT_IN_VALUES.search(value):
        raise BadHeaderValue(name)
    return name.lower(), value.strip(b" \t")


def check_host(head: Head) -> None:
    hosts = head.all(b"host")
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        raise BadHost(len(hosts))


def check_length(head: Head) -> None:
    lengths = head.all(b"content-length")
    if lengths and head.all(b"transfer-encoding"):
        raise BadLength("the request has both Content-Length and Transfer-Encoding")
    if len(set(lengths)) > 1:
        raise BadLength("the request has several Content-Length headers that differ")
    if lengths and not LENGTH.fullmatch(lengths[0]):
        raise BadLength("Content-Length is not a number")
    if (codings := head.all(b"transfer-encoding")) and [coding.lower() for coding in codings] != [b"chunked"]:
        raise UnknownCoding
