"""Token buckets: so many a second, and a burst that was saved up.

Kept as one number each: the time at which the bucket is full again (the generic cell rate algorithm, ITU-T I.371).
A bucket whose time has passed is full, and need not be kept at all.
"""

from __future__ import annotations

from collections import OrderedDict

MOST_KEYS = 65536
"""Buckets kept at once, about 10 MB. Whoever commands more addresses than this meets the bucket of all."""


class Rate:
    """per_s tokens a second; up to `burst_s` seconds of them are saved, and always one whole token."""

    def __init__(self, per_s: float, burst_s: float) -> None:
        self.interval_s = 1 / per_s
        # A hundredth of a token: clocks that count from far away have few digits left, and must not cost a whole one.
        self.slack_s = (max(1.0, per_s * burst_s) - 0.99) * self.interval_s


class Bucket:
    """One bucket, full at first. Times are seconds of any clock that only goes forward."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.full_at = float("-inf")

    def take(self, now: float) -> bool:
        """Takes a token; False where there is none."""
        full_at = max(self.full_at, now)
        if full_at - now > self.rate.slack_s:
            return False
        self.full_at = full_at + self.rate.interval_s
        return True


class Buckets:
    """A bucket for each key, at most `most` of them: beyond that, the one not asked for longest is forgotten."""

    def __init__(self, rate: Rate, most: int = MOST_KEYS) -> None:
        self.rate, self.most = rate, most
        self.full_at: OrderedDict[object, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self.full_at)

    def take(self, key: object, now: float) -> bool:
        """Takes a token of this key's bucket; False where there is none."""
        full_at = max(self.full_at.get(key, now), now)
        if full_at - now > self.rate.slack_s:
            self.full_at.move_to_end(key)  # who is refused stays remembered
            return False
        self.full_at[key] = full_at + self.rate.interval_s
        self.full_at.move_to_end(key)
        if len(self.full_at) > self.most:
            self.full_at.popitem(last=False)
        return True

    def trim(self, now: float, at_most: int = 1024) -> None:
        """Forgets full buckets, looking at no more than `at_most` of those not asked for longest."""
        for _ in range(min(at_most, len(self.full_at))):
            key, full_at = next(iter(self.full_at.items()))
            if full_at > now:
                return
            del self.full_at[key]
