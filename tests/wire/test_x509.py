"""The names in a certificate, and what is no certificate."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from unlimitedws.wire.x509 import dns_names, not_after

CA = trustme.CA()


def der(*names: str, common_name: str | None = None) -> bytes:
    made = CA.issue_cert(*names, common_name=common_name)
    return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


ONE = der("example.org")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["example.org"], ["example.org"]),
        (["*.Example.org", "example.org"], ["*.example.org", "example.org"]),
        (["example.org", "192.0.2.1", "a@example.org", "b.example.org"], ["example.org", "b.example.org"]),
        (["192.0.2.1"], []),
        ([f"host{i}.example.org" for i in range(200)], [f"host{i}.example.org" for i in range(200)]),
    ],
)
def test_the_host_names_are_found(names: list[str], found: list[str]) -> None:
    assert dns_names(der(*names)) == found


@pytest.mark.parametrize("ends", [datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)])
def test_the_end_is_found_in_both_of_its_forms(ends: datetime) -> None:
    made = CA.issue_cert("example.org", not_after=ends)
    assert not_after(ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())) == ends


def test_the_common_name_is_no_host_name() -> None:
    assert dns_names(der("example.org", common_name="other.example.org")) == ["example.org"]


def test_a_certificate_without_names_has_none() -> None:
    assert dns_names(ssl.PEM_cert_to_DER_cert(CA.cert_pem.bytes().decode())) == []


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x00", b"\x30\x05\x30", b"\x30\x80", b"\x30\x89" + bytes(9), b"nonsense"])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        dns_names(data)


@pytest.mark.parametrize("cut", range(0, len(ONE), 7))
def test_a_certificate_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        dns_names(ONE[:cut])


@given(st.data())
def test_a_damaged_certificate_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(ONE)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = dns_names(bytes(damaged))
    except ValueError:
        return
    assert all(isinstance(name, str) for name in found)
