"""What a certificate is for, and until when: subjectAltName (RFC 5280, section 4.2.1.6) and notAfter (4.1.2.5) out of its DER.

Only what choosing among one's own certificates takes, and warning of an old one; whether a certificate is any good, OpenSSL says.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17
OBJECT_IDENTIFIER, VERSION, EXTENSIONS, DNS_NAME = 0x06, 0xA0, 0xA3, 0x82
TIMES = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
VALIDITY = 3  # after serialNumber, signature and issuer
LONGEST_LENGTH = 4  # bytes of a length: a certificate of 4 GiB


def dns_names(der: bytes) -> list[str]:
    """The host names of a certificate, in lowercase; a wildcard as `*.example.org`. Raises ValueError for no certificate."""
    try:
        certificate = value_of(der)
        signed = value_of(certificate)
        return [name for tag, value in parts(signed) if tag == EXTENSIONS for name in names_among(value_of(value))]
    except IndexError:
        raise ValueError("not a certificate: its DER is cut short") from None


def not_after(der: bytes) -> datetime:
    """When a certificate ends, in UTC. Raises ValueError for no certificate."""
    try:
        fields = [value for tag, value in parts(value_of(value_of(der))) if tag != VERSION]
        _, (tag, text) = parts(fields[VALIDITY])
        return datetime.strptime(text.decode("ascii"), TIMES[tag]).replace(tzinfo=UTC)
    except (IndexError, KeyError):
        raise ValueError("not a certificate: it does not say when it ends") from None


def names_among(extensions: bytes) -> Iterator[str]:
    for _, extension in parts(extensions):
        (tag, identifier), *_, (_, value) = parts(extension)
        if (tag, identifier) == (OBJECT_IDENTIFIER, SUBJECT_ALT_NAME):
            yield from (name.decode("ascii").lower() for kind, name in parts(value_of(value)) if kind == DNS_NAME)


def value_of(data: bytes) -> bytes:
    """The value of the first element."""
    for _, value in parts(data):
        return value
    raise ValueError("not a certificate: an element is empty")


def parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, value) of each element (X.690, section 8.1)."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            wide = size & 0x7F
            if not 1 <= wide <= LONGEST_LENGTH or at + wide > len(data):
                raise ValueError("not a certificate: a length is none")
            size, at = int.from_bytes(data[at : at + wide], "big"), at + wide
        if at + size > len(data):
            raise ValueError("not a certificate: an element is longer than the whole")
        yield tag, data[at : at + size]
        at += size
