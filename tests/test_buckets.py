from __future__ import annotations

from unlimitedws.buckets import Bucket, Buckets, Rate


def taken(bucket: Bucket, times: list[float]) -> list[bool]:
    return [bucket.take(now) for now in times]


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(Rate(10, burst_s=0.5))
    assert taken(bucket, [100.0] * 7) == [True] * 5 + [False] * 2
    assert taken(bucket, [100.1, 100.1, 100.3, 100.3, 100.3]) == [True, False, True, True, False]


def test_what_is_refused_takes_nothing() -> None:
    bucket = Bucket(Rate(1, burst_s=1))
    assert taken(bucket, [0.0, 0.5, 0.9, 1.0]) == [True, False, False, True]


def test_a_bucket_is_never_fuller_than_its_burst() -> None:
    bucket = Bucket(Rate(10, burst_s=0.2))
    bucket.take(0.0)
    assert sum(taken(bucket, [1000.0] * 5)) == 2


def test_even_a_slow_rate_saves_one_whole_token() -> None:
    bucket = Bucket(Rate(0.1, burst_s=0.01))
    assert taken(bucket, [0.0, 9.8, 10.0]) == [True, False, True]


def test_over_a_long_time_exactly_the_rate_is_given() -> None:
    bucket = Bucket(Rate(50, burst_s=2))
    assert abs(sum(bucket.take(i / 1000) for i in range(20_000)) - (50 * 20 + 100)) <= 1


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = Buckets(Rate(1, burst_s=2))
    assert [buckets.take(key, 5.0) for key in "aaabba"] == [True, True, False, True, True, False]
    assert buckets.take("a", 6.0)


def test_keys_are_bounded_and_the_one_not_asked_for_longest_is_forgotten() -> None:
    buckets = Buckets(Rate(1, burst_s=1), most=3)
    for key in "abc":
        assert buckets.take(key, 0.0)
    assert not buckets.take("a", 0.0)  # asked for again: now "b" is the oldest
    assert buckets.take("d", 0.0)
    assert len(buckets) == 3
    assert not buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_a_flood_of_keys_leaves_no_more_than_the_bound() -> None:
    buckets = Buckets(Rate(1, burst_s=1), most=100)
    for i in range(10_000):
        assert buckets.take(i, 0.0)
    assert len(buckets) == 100


def test_full_buckets_are_forgotten_and_others_are_kept() -> None:
    buckets = Buckets(Rate(1, burst_s=1))
    buckets.take("old", 0.0)
    buckets.take("new", 10.0)
    buckets.trim(10.5)
    assert list(buckets.full_at) == ["new"]
    assert not buckets.take("new", 10.5)


def test_trimming_is_bounded_work() -> None:
    buckets = Buckets(Rate(1, burst_s=1))
    for i in range(10):
        buckets.take(i, 0.0)
    buckets.trim(100.0, at_most=4)
    assert len(buckets) == 6
