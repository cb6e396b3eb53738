"""When whoever is closed by a stop may come back: "server is stopping, retry in 7 s", spread over a window.

A client that looks at the reason of its Close frame returns when it is asked to; so the successor, or the other
servers, get the crowd back a part at a time and not at once.
"""

from __future__ import annotations

from collections.abc import Iterator

CLIENTS_PER_S = 1000
"""How many of a worker's clients are asked back in each second: their handshakes take a small part of one CPU, with TLS
about all of it."""


REASON_BYTES = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of which are the close code."""


class Farewell:
    """The reasons of the Close frames of one worker.

    clients: how many are open.  longest_s: the longest window; 0: no hint."""

    def __init__(self, reason: str, clients: int, longest_s: int) -> None:
        self.reason, self.left = reason, clients
        self.window_s = min(longest_s, -(-clients // CLIENTS_PER_S))
        if len(self.hinting(self.window_s).encode()) > REASON_BYTES:
            self.window_s = 0
        self.second = 0

    def parts(self, batch: int) -> Iterator[tuple[str, int]]:
        """A batch of so many Close frames: reasons, and how many get each. Every batch is spread over the whole window."""
        if not self.window_s or self.left <= 0:  # whoever is open yet came late
            yield self.reason, batch
            return
        self.left -= batch
        size = -(-batch // self.window_s)
        while batch > 0:
            self.second = self.second % self.window_s + 1
            yield self.hinting(self.second), min(size, batch)
            batch -= size

    def hinting(self, second: int) -> str:
        return f"{self.reason}, retry in {second} s"
