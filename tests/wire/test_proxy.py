"""The PROXY protocol: what HAProxy sends is read, byte by byte too, and nothing else is."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.wire import proxy
from unlimitedws.wire.address import Address

REQUEST = b"GET / HTTP/1.1\r\n"

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ports = st.integers(0, 0xFFFF)


def v1(source: str, port: int, destination: str = "", family: str = "") -> bytes:
    family = family or ("TCP6" if ":" in source else "TCP4")
    destination = destination or ("::1" if family == "TCP6" else "127.0.0.1")
    return f"PROXY {family} {source} {destination} {port} 443\r\n".encode()


def v2(block: bytes, family: int, values: bytes = b"", command: int = proxy.PROXY) -> bytes:
    return proxy.V2 + bytes((command, family)) + struct.pack("!H", len(block) + len(values)) + block + values


def v2_tcp(source: IPv4Address | IPv6Address, port: int, values: bytes = b"") -> bytes:
    block = source.packed + bytes(len(source.packed)) + struct.pack("!HH", port, 443)
    return v2(block, proxy.TCP4 if source.version == 4 else proxy.TCP6, values)


def value(kind: int, data: bytes) -> bytes:
    return bytes((kind,)) + struct.pack("!H", len(data)) + data


def with_checksum(source: IPv4Address | IPv6Address, port: int, *values: bytes) -> bytes:
    preface = bytearray(v2_tcp(source, port, b"".join(values) + value(proxy.CRC32C, bytes(4))))
    preface[-4:] = proxy.crc32c(bytes(preface)).to_bytes(4, "big")
    return bytes(preface)


def plain(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


PREFACES: list[tuple[bytes, Address | None]] = [
    (v1("192.0.2.1", 56324), ("192.0.2.1", 56324)),
    (v1("2001:db8::1", 0), ("2001:db8::1", 0)),
    (v1("::ffff:192.0.2.1", 1), ("192.0.2.1", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    (v2_tcp(ip_address("192.0.2.1"), 56324), ("192.0.2.1", 56324)),
    (v2_tcp(ip_address("2001:db8::1"), 56324), ("2001:db8::1", 56324)),
    (v2_tcp(ip_address("::ffff:192.0.2.1"), 5), ("192.0.2.1", 5)),
    (v2_tcp(ip_address("192.0.2.1"), 7, value(0x02, b"example.org") + value(0x04, bytes(300))), ("192.0.2.1", 7)),
    (with_checksum(ip_address("2001:db8::1"), 7, value(0x01, b"h2")), ("2001:db8::1", 7)),
    (v2(b"/run/client.sock".ljust(216, b"\0"), proxy.UNIX_STREAM), "/run/client.sock"),
    (v2(bytes(216), proxy.UNIX_STREAM), "unix"),
    (v2(b"", proxy.UNSPECIFIED), None),
    (v2(b"", proxy.UNSPECIFIED, value(0x02, b"x")), None),
    (v2(b"", proxy.UNSPECIFIED, command=proxy.LOCAL), None),
    (v2(b"whatever", 0x77, command=proxy.LOCAL), None),
]


@pytest.mark.parametrize(("preface", "address"), PREFACES)
def test_a_preface_says_its_size_and_the_client(preface: bytes, address: Address | None) -> None:
    assert proxy.parse(preface) == proxy.parse(preface + REQUEST) == (len(preface), address)


@pytest.mark.parametrize(("preface", "_"), PREFACES)
def test_a_preface_may_arrive_in_two_pieces(preface: bytes, _: Address | None) -> None:
    assert [cut for cut in range(len(preface)) if proxy.parse(preface[:cut]) is not None] == []


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (REQUEST, "no PROXY"),
        (b"\x16\x03\x01\x02", "no PROXY"),
        (b"proxy TCP4 ", "no PROXY"),
        (b"\r\n\r\n\0\r\nQUIX", "no PROXY"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 1\r\n", "is not 'PROXY"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2 3\r\n", "is not 'PROXY"),
        (b"PROXY  TCP4 192.0.2.1 127.0.0.1 1 2\r\n", "is not 'PROXY"),
        (b"PROXY UDP4 192.0.2.1 127.0.0.1 1 2\r\n", "is not 'PROXY"),
        (b"PROXY \r\n", "is not 'PROXY"),
        (b"PROXY TCP4 192.0.2.01 127.0.0.1 1 2\r\n", r"Leading zeros"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.999 1 2\r\n", "999"),
        (b"PROXY TCP4 ::1 ::1 1 2\r\n", "another family"),
        (b"PROXY TCP6 192.0.2.1 127.0.0.1 1 2\r\n", "another family"),
        (b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n", "zone"),
        (b"PROXY TCP4 192.0.2.\xb2 127.0.0.1 1 2\r\n", "ascii"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 01 2\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 65536 2\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 1 +2\r\n", "port"),
        (b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\n", ""),
        (b"PROXY UNKNOWN " + b"x" * 100, "107"),
        (v2(bytes(12), proxy.TCP4, command=0x22), "command"),
        (v2(bytes(12), proxy.TCP4, command=0x11), "command"),
        (v2(bytes(12), 0x12), "family"),
        (v2(bytes(12), 0x41), "family"),
        (v2(bytes(11), proxy.TCP4), "family"),
        (v2(bytes(35), proxy.TCP6), "family"),
        (v2(bytes(215), proxy.UNIX_STREAM), "family"),
        (v2(bytes(12), proxy.TCP4, bytes(5000)), "4096"),
        (v2(bytes(12), proxy.TCP4, b"\x04\0"), "longer"),
        (v2(bytes(12), proxy.TCP4, b"\x04\0\x05abcd"), "longer"),
        (v2(bytes(12), proxy.TCP4, value(proxy.CRC32C, bytes(4))), "damaged"),
        (v2(bytes(12), proxy.TCP4, value(proxy.CRC32C, bytes(3))), "4 bytes"),
    ],
)
def test_what_is_no_preface_is_refused(bad: bytes, why: str) -> None:
    if not why:  # it could still become one
        assert proxy.parse(bad) is None
        return
    with pytest.raises(ValueError, match=why):
        proxy.parse(bad)


def test_what_cannot_become_a_preface_is_refused_at_its_first_byte() -> None:
    assert proxy.parse(b"") is None
    for byte in range(256):
        if bytes((byte,)) in (b"P", b"\r"):
            assert proxy.parse(bytes((byte,))) is None
        else:
            with pytest.raises(ValueError, match="no PROXY"):
                proxy.parse(bytes((byte,)))


def test_an_announced_size_over_the_limit_is_refused_before_it_has_come() -> None:
    with pytest.raises(ValueError, match="the limit is 4096"):
        proxy.parse(proxy.V2 + bytes((proxy.PROXY, proxy.TCP4)) + b"\xff\xff")


def test_the_checksum_is_the_one_of_the_standard() -> None:
    assert proxy.crc32c(b"123456789") == 0xE3069283  # RFC 3720's polynomial; the catalogue's check value
    assert proxy.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


@given(addresses, ports)
def test_version_1_gives_back_any_address(address: IPv4Address | IPv6Address, port: int) -> None:
    preface = v1(str(address), port) if "%" not in str(address) else v1("::1", port)
    expected = plain(address) if "%" not in str(address) else "::1"
    assert proxy.parse(preface + REQUEST) == (len(preface), (expected, port))


@given(addresses, ports, st.lists(st.tuples(st.integers(5, 255), st.binary(max_size=64)), max_size=5))
def test_version_2_gives_back_any_address(address: IPv4Address | IPv6Address, port: int, extra: list[tuple[int, bytes]]) -> None:
    values = [value(kind, data) for kind, data in extra]
    for preface in (v2_tcp(address, port, b"".join(values)), with_checksum(address, port, *values)):
        assert proxy.parse(preface + REQUEST) == (len(preface), (plain(address), port))


@given(st.sampled_from(PREFACES), st.data())
def test_a_changed_preface_is_read_or_refused_and_nothing_else(made: tuple[bytes, Address | None], data: st.DataObject) -> None:
    preface = bytearray(made[0])
    for _ in range(data.draw(st.integers(1, 4))):
        preface[data.draw(st.integers(0, len(preface) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(preface) + REQUEST)


@given(st.sampled_from([b"", proxy.V1, b"PROXY TCP4 ", proxy.V2, proxy.V2 + b"\x21\x11"]), st.binary(max_size=300))
def test_random_bytes_are_read_or_refused_and_nothing_else(begin: bytes, rest: bytes) -> None:
    read_or_refused(begin + rest)


def read_or_refused(data: bytes) -> None:
    try:
        found = proxy.parse(data)
    except ValueError:
        return
    if found is not None:
        size, address = found
        assert 0 < size <= len(data)
        assert address is None or isinstance(address, str) or (ip_address(address[0]) and 0 <= address[1] <= 0xFFFF)
