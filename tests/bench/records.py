"""What was measured: kept as JSON lines, and brought together over the rounds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FLOOR = "floor"


@dataclass(frozen=True)
class Record:
    """One measure of one server. error: why there is no value.  disturbed: other programs used the CPU meanwhile."""

    round: int
    work: str
    server: str
    value: float | None
    error: str = ""
    disturbed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read(path: Path) -> list[Record]:
    """The records of a file of JSON lines."""
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most it was made of."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def to_text(self, digits: int) -> str:
        if self.least == self.most:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


class Records:
    """All measures of a run."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.all = list(records)
        self.servers = list(dict.fromkeys(record.server for record in self.all))

    def of(self, work: str, server: str) -> list[Record]:
        return [record for record in self.all if (record.work, record.server) == (work, server)]

    def values(self, work: str, server: str) -> dict[int, float]:
        """Round to value, for the rounds that gave one."""
        return {record.round: record.value for record in self.of(work, server) if record.value is not None}

    def spread(self, work: str, server: str) -> Spread | None:
        return Spread.of(list(self.values(work, server).values()))

    def ratio(self, work: str, server: str, reference: str = FLOOR) -> Spread | None:
        """How much of the reference's figure, each round compared with the reference of the same round."""
        ours, theirs = self.values(work, server), self.values(work, reference)
        return Spread.of([value / theirs[number] for number, value in ours.items() if theirs.get(number)])

    def per_s(self, work: str, server: str) -> Spread | None:
        """Messages, deliveries or connections a second."""
        names = ("msgs_per_s", "deliveries_per_s", "handshakes_per_s")
        found = [next((record.details[name] for name in names if name in record.details), None) for record in self.of(work, server)]
        return Spread.of([float(value) for value in found if value is not None])
