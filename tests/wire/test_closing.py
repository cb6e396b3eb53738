"""Close codes and causes."""

from __future__ import annotations

import pytest

from unlimitedws.wire.closing import Cause, may_be_sent, pack_close


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999])
def test_codes_that_may_be_sent(code: int) -> None:
    assert may_be_sent(code)
    assert pack_close(code, "é") == code.to_bytes(2, "big") + "é".encode()


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535, 65536])
def test_codes_that_may_not(code: int) -> None:
    assert not may_be_sent(code)
    with pytest.raises(ValueError, match=str(code)):
        pack_close(code)


def test_a_reason_holds_123_bytes() -> None:
    assert len(pack_close(1000, "x" * 123)) == 125
    with pytest.raises(ValueError, match="124 bytes"):
        pack_close(1000, "x" * 124)


def test_the_order_of_causes_is_part_of_the_stats_layout() -> None:
    assert list(Cause)[:3] == ["peer_closed", "app_closed", "app_aborted"]
    assert list(Cause)[-3:] == ["rate", "tls_error", "not_resumed"]
    assert len(Cause) == 23
