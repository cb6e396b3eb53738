"""What the suite found: its report read, and judged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PASSED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})
MISSING = "MISSING"  # ours: a case that was to be run and is not in the report


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case: how the server behaved, and how it closed the connection."""

    case: str
    behavior: str
    behavior_close: str
    report: str = ""

    @property
    def passed(self) -> bool:
        return self.behavior in PASSED and self.behavior_close in PASSED

    def __str__(self) -> str:
        closing = "" if self.behavior_close == self.behavior else f", close: {self.behavior_close}"
        return f"{self.case} {self.behavior}{closing}"


def read_report(reports: Path, agent: str, expected: Iterable[str]) -> list[Verdict]:
    """A verdict for each case expected, whatever the report holds."""
    index = reports / "index.json"
    found = json.loads(index.read_text()).get(agent, {}) if index.exists() else {}
    return [read_case(case, found.get(case), reports) for case in expected]


def read_case(case: str, entry: dict[str, str] | None, reports: Path) -> Verdict:
    if entry is None:
        return Verdict(case, MISSING, MISSING, str(reports / "client.log"))
    return Verdict(case, entry["behavior"], entry["behaviorClose"], str(reports / entry["reportfile"]))


def summary(verdicts: list[Verdict]) -> str:
    """Counts for each verdict, the non-strict cases by name, the failed ones with their reports."""
    counts = Counter(verdict.behavior for verdict in verdicts)
    lines = [f"{len(verdicts)} cases: " + ", ".join(f"{count} {name}" for name, count in counts.most_common())]
    non_strict = [verdict.case for verdict in verdicts if verdict.behavior == "NON-STRICT"]
    if non_strict:
        lines.append("NON-STRICT: " + " ".join(non_strict))
    lines += [f"FAILED: {verdict} ({verdict.report})" for verdict in verdicts if not verdict.passed]
    return "\n".join(lines)
