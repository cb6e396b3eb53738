"""Token buckets of connections."""

from __future__ import annotations

import pytest

from unlimitedws.config import Config
from unlimitedws.engine.portable.rates import Rates


def test_a_full_bucket_is_not_kept() -> None:
    rates = Rates(Config(messages_per_s=10, bytes_per_s=1000))
    assert rates.take(3, 0.0)
    assert rates.charge(4, 500, 0.0)
    rates.trim(0.2)
    assert set(rates.buckets) == {4}
    rates.trim(1.0)
    assert rates.buckets == {}


def test_tokens_come_with_time_up_to_the_burst() -> None:
    rates = Rates(Config(messages_per_s=10, rate_burst_s=0.5))
    assert [rates.take(3, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert [rates.take(3, 0.2) for _ in range(3)] == [True, True, False]
    assert [rates.take(3, 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_bytes_may_be_overdrawn_and_are_paid_back() -> None:
    rates = Rates(Config(bytes_per_s=1000))
    assert rates.charge(3, 1000, 0.0)
    assert not rates.charge(3, 2000, 0.0)
    assert not rates.may_go_on(3, 1.9)
    assert rates.may_go_on(3, 2.1)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1])
def test_there_is_always_room_for_one_message(rate: float) -> None:
    rates = Rates(Config(messages_per_s=rate, rate_burst_s=0.01))
    assert rates.take(3, 0.0)
    assert not rates.take(3, 0.5 / rate)
    assert rates.take(3, 1.6 / rate)


def test_one_tick_of_the_hand_brings_its_share_however_short_the_burst() -> None:
    rates = Rates(Config(messages_per_s=800, rate_burst_s=0.01))
    assert sum(rates.take(3, 0.0) for _ in range(1000)) == 100  # 1/8 s of them
