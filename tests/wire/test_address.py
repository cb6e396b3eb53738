"""One plain form for each address."""

from __future__ import annotations

import pytest

from unlimitedws.wire.address import ip, packed


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_an_address_has_one_form(text: str, plain: str) -> None:
    assert ip(text) == plain


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "192.0.2.01", "192.0.2.256", "fe80::1%eth0", "[::1]", "::1 ", "1", "unix"])
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        ip(text)


def test_bytes_in_network_order_are_read() -> None:
    assert packed(bytes((192, 0, 2, 1))) == "192.0.2.1"
    assert packed(bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1))) == "192.0.2.1"
    assert packed(bytes(15) + b"\x01") == "::1"
