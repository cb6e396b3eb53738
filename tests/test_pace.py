from __future__ import annotations

from unlimitedws.pace import Pace


def test_without_rates_everybody_may_begin() -> None:
    pace = Pace(0, 0, 1)
    assert not pace.is_limited
    assert all(pace.take("a", 0.0) for _ in range(1000))


def test_one_key_beyond_its_rate_takes_nothing_from_all() -> None:
    pace = Pace(4, 1, 1)
    assert [pace.take("a", 0.0) for _ in range(10)] == [True] + [False] * 9
    assert [pace.take(key, 0.0) for key in "bcde"] == [True] * 3 + [False]


def test_without_a_key_only_the_rate_of_all_counts() -> None:
    pace = Pace(2, 1, 1)
    assert [pace.take(None, 0.0) for _ in range(3)] == [True, True, False]


def test_keys_that_are_as_good_as_new_are_forgotten() -> None:
    pace = Pace(0, 1, 1)
    assert pace.take("a", 0.0)
    pace.trim(5.0)
    assert pace.take("a", 5.0)
    assert not pace.take("a", 5.0)
