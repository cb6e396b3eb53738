"""What a proxy says of its client before the first byte of it: the PROXY protocol of HAProxy, versions 1 and 2.

Specification: https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, whose sections are quoted here.
Whoever may connect can write such a preface, so it is believed only where the socket's own address is
trusted (section 2); who is, is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from unlimitedws.wire.address import UNIX, Address, ip, packed

V1 = b"PROXY "
V1_BYTES = 107
"""Longest line of version 1 with its CRLF (section 2.1)."""

V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD = 16
"""Signature, version and command, family, length (section 2.2)."""
V2_BYTES = 4096
"""Longest preface of version 2 that we take; it could announce 64 KiB. Client certificates are the largest
thing proxies put into it, and they send names of them only."""

LOCAL, PROXY = 0x20, 0x21
UNSPECIFIED, TCP4, TCP6, UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
ADDRESS_BYTES = {UNSPECIFIED: 0, TCP4: 12, TCP6: 36, UNIX_STREAM: 216}
PATH_BYTES = 108

CRC32C = 0x03  # section 2.2.3
PORT = re.compile(rb"0|[1-9][0-9]{0,4}")  # section 2.1: no leading zeros


def parse(data: bytes) -> tuple[int, Address | None] | None:
    """Size of the preface that `data` begins with, and the client's address; None: more bytes are needed.

    The address is None where the proxy speaks for itself (a health check) or does not know: then the
    socket's own counts. Raises ValueError as soon as this cannot become a preface."""
    if data.startswith(V2):
        return parse_v2(data)
    if data.startswith(V1):
        return parse_v1(data)
    if V2.startswith(data) or V1.startswith(data):
        return None
    raise ValueError("no PROXY protocol preface")


def parse_v1(data: bytes) -> tuple[int, Address | None] | None:
    line, end, _ = data[:V1_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= V1_BYTES:
            raise ValueError(f"a PROXY line of more than {V1_BYTES} bytes")
        return None
    size = len(line) + len(end)
    _, protocol, *rest = line.split(b" ")
    if protocol == b"UNKNOWN":  # section 2.1: whatever follows is ignored
        return size, None
    if protocol not in (b"TCP4", b"TCP6") or len(rest) != 4:
        raise ValueError("a PROXY line is not 'PROXY TCP4|TCP6 source destination port port'")
    source, destination, *ports = rest
    host, _ = host_of(protocol, source), host_of(protocol, destination)
    port, _ = (port_of(text) for text in ports)
    return size, (host, port)


def host_of(protocol: bytes, text: bytes) -> str:
    if (b":" in text) != (protocol == b"TCP6"):
        raise ValueError(f"the PROXY line's {protocol.decode()} address is of another family")
    return ip(text.decode("ascii"))


def port_of(text: bytes) -> int:
    if not PORT.fullmatch(text) or int(text) > 0xFFFF:
        raise ValueError("the PROXY line has a port that is none")
    return int(text)


def parse_v2(data: bytes) -> tuple[int, Address | None] | None:
    if len(data) < V2_HEAD:
        return None
    command, family, size = data[12], data[13], V2_HEAD + int.from_bytes(data[14:16], "big")
    if command not in (LOCAL, PROXY):
        raise ValueError(f"PROXY version and command {command:#04x} are unknown")
    if size > V2_BYTES:
        raise ValueError(f"a PROXY preface of {size} bytes; the limit is {V2_BYTES}")
    if command == PROXY and (family not in ADDRESS_BYTES or size < V2_HEAD + ADDRESS_BYTES[family]):
        raise ValueError(f"PROXY family {family:#04x} is unknown, no stream, or without its addresses")
    if len(data) < size:
        return None
    preface = data[:size]
    if command == LOCAL:  # section 2.2: the family and what follows are ignored
        return size, None
    check_values(preface, V2_HEAD + ADDRESS_BYTES[family])
    return size, address_of(family, preface[V2_HEAD:])


def address_of(family: int, block: bytes) -> Address | None:
    """The source out of an address block: source, destination, both ports."""
    if family == UNSPECIFIED:
        return None
    if family == UNIX_STREAM:
        return block[:PATH_BYTES].partition(b"\0")[0].decode("utf-8", "backslashreplace") or UNIX
    wide = 4 if family == TCP4 else 16
    return packed(block[:wide]), int.from_bytes(block[2 * wide : 2 * wide + 2], "big")


def check_values(preface: bytes, begin: int) -> None:
    """Raises ValueError unless the type-length-values from `begin` fill the preface and its checksum is right."""
    for kind, start, end in values(preface, begin):
        if kind == CRC32C and checksum(preface, start, end) != int.from_bytes(preface[start:end], "big"):
            raise ValueError("the PROXY preface was damaged: its checksum is wrong")


def values(preface: bytes, begin: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of each value (section 2.2)."""
    while begin < len(preface):
        start = begin + 3
        end = start + int.from_bytes(preface[begin + 1 : start], "big")
        if start > len(preface) or end > len(preface):
            raise ValueError("a value in the PROXY preface is longer than the preface")
        yield preface[begin], start, end
        begin = end


def checksum(preface: bytes, start: int, end: int) -> int:
    """CRC32c of a preface whose own checksum, from `start` to `end`, counts as zeros (section 2.2.3)."""
    if end - start != 4:
        raise ValueError("the PROXY preface's checksum has not 4 bytes")
    return crc32c(preface[:start] + bytes(4) + preface[end:])


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum of RFC 3720, appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


TABLE = [remainder(byte) for byte in range(256)]
