"""How many of something may begin in a second: in all, and from one address."""

from __future__ import annotations

from unlimitedws.buckets import Bucket, Buckets, Rate


class Pace:
    """Two rates that both have to allow it; a rate of 0 always does.

    per_s, per_s_each: in all and for one key.  burst_s: seconds of them that may be saved up."""

    def __init__(self, per_s: float, per_s_each: float, burst_s: float) -> None:
        self._all = Bucket(Rate(per_s, burst_s)) if per_s else None
        self._each = Buckets(Rate(per_s_each, burst_s)) if per_s_each else None

    @property
    def is_limited(self) -> bool:
        return self._all is not None or self._each is not None

    def take(self, key: object | None, now: float) -> bool:
        """Whether one may begin. key: None for what is counted in all only; whoever is too fast by himself takes nothing from all."""
        if self._each is not None and key is not None and not self._each.take(key, now):
            return False
        return self._all is None or self._all.take(now)

    def trim(self, now: float) -> None:
        """Forgets the keys that are as good as new."""
        if self._each is not None:
            self._each.trim(now)
