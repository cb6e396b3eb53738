"""Latencies, in an HdrHistogram: what percentiles there are, and how they are written down and read again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from unlimitedws.bench.board import LONGEST_LATENCY_NS
from unlimitedws.errors import BenchError

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

DIGITS = 3
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "p99_99": 99.99}


def histogram() -> HdrHistogram:
    """An empty one, with the buckets of `board.pxd`. Raises BenchError where the library is missing."""
    try:
        from hdrh.histogram import HdrHistogram
    except ImportError:
        raise BenchError("bench counts latencies with hdrhistogram; install it: pip install 'unlimitedws[bench]'") from None
    return HdrHistogram(1, LONGEST_LATENCY_NS, DIGITS)


class Latency:
    """Times in ns, three digits of each kept; the least and the longest exactly."""

    def __init__(self) -> None:
        self.histogram = histogram()
        self.least_ns = self.most_ns = 0

    def add(self, least_ns: int, most_ns: int, counts: Iterable[tuple[int, int]]) -> None:
        """Takes what a process has counted, a bucket at a time."""
        for ns, number in counts:
            self.histogram.record_value(ns, number)
        self.most_ns = max(self.most_ns, most_ns)
        self.least_ns = min(filter(None, (self.least_ns, least_ns)), default=0)

    @property
    def number(self) -> int:
        return int(self.histogram.get_total_count())

    def at_us(self, percentile: float) -> float:
        ns: float = min(self.histogram.get_value_at_percentile(percentile), self.most_ns or LONGEST_LATENCY_NS)
        return ns / 1e3

    def to_json(self) -> dict[str, Any]:
        """Numbers in microseconds, and the histogram in the library's own form (ns, base64)."""
        if not self.number:
            return {"number": 0}
        return {
            "number": self.number,
            "mean": round(self.histogram.get_mean_value() / 1e3, 3),
            "least": self.least_ns / 1e3,
            **{name: round(self.at_us(percentile), 3) for name, percentile in PERCENTILES.items()},
            "longest": self.most_ns / 1e3,
            "histogram_ns": self.histogram.encode().decode(),
        }


def decoded(text: str) -> HdrHistogram:
    """A histogram as `to_json` wrote it. Raises ValueError."""
    histogram()
    from hdrh.histogram import HdrHistogram

    try:
        return HdrHistogram.decode(text.encode())
    except Exception as error:  # the library raises what it meets: binascii.Error, zlib.error, its own
        raise ValueError(f"no HdrHistogram: {error}") from None
