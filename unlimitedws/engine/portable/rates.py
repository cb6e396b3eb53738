"""How much one connection may send: messages and bytes a second, saved up for a burst."""

from __future__ import annotations

from typing import Any

from unlimitedws.engine.contract import TICKS_PER_S


class Bucket:
    """Tokens of one connection. Bytes may be overdrawn: a message is handled whole."""

    __slots__ = ("at", "bytes", "messages")

    def __init__(self, messages: float, bytes: float, at: float) -> None:
        self.messages = messages
        self.bytes = bytes
        self.at = at


class Rates:
    """The buckets of those who sent something lately; a full one is not kept.

    The clock hand lets those go on who had to wait, so that none can hold less than one tick brings."""

    def __init__(self, config: Any) -> None:
        burst_s = max(config.rate_burst_s, 1 / TICKS_PER_S)
        self.messages_per_s = float(config.messages_per_s) or float("inf")
        self.bytes_per_s = float(config.bytes_per_s) or float("inf")
        self.most_messages = max(1.0, self.messages_per_s * burst_s)
        self.most_bytes = max(1.0, self.bytes_per_s * burst_s)
        self.closes = config.rate_policy == "close"
        self.buckets: dict[int, Bucket] = {}
        self.waiting: set[int] = set()

    def bucket(self, fd: int, now: float) -> Bucket:
        """Its tokens as of `now`."""
        bucket = self.buckets.get(fd)
        if bucket is None:
            bucket = self.buckets[fd] = Bucket(self.most_messages, self.most_bytes, now)
        elif now > bucket.at:
            passed_s, bucket.at = now - bucket.at, now
            bucket.messages = min(self.most_messages, bucket.messages + passed_s * self.messages_per_s)
            bucket.bytes = min(self.most_bytes, bucket.bytes + passed_s * self.bytes_per_s)
        return bucket

    def charge(self, fd: int, size: int, now: float) -> bool:
        """Takes the tokens of bytes that have come; whether there were as many."""
        bucket = self.bucket(fd, now)
        bucket.bytes -= size
        return bucket.bytes >= 0

    def take(self, fd: int, now: float) -> bool:
        """Takes the token of one message, if there is one."""
        bucket = self.bucket(fd, now)
        if bucket.messages < 1:
            return False
        bucket.messages -= 1
        return True

    def may_go_on(self, fd: int, now: float) -> bool:
        bucket = self.bucket(fd, now)
        return bucket.messages >= 1 and bucket.bytes >= 0

    def forget(self, fd: int) -> None:
        self.buckets.pop(fd, None)
        self.waiting.discard(fd)

    def trim(self, now: float) -> None:
        """Drops the full ones: a new one is as full."""
        for fd in list(self.buckets):
            bucket = self.bucket(fd, now)
            if bucket.messages >= self.most_messages and bucket.bytes >= self.most_bytes:
                del self.buckets[fd]
