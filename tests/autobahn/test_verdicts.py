from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.autobahn.verdicts import MISSING, Verdict, read_report, summary


@pytest.mark.parametrize(
    ("behavior", "closing", "passed"),
    [
        ("OK", "OK", True),
        ("NON-STRICT", "OK", True),
        ("INFORMATIONAL", "INFORMATIONAL", True),
        ("FAILED", "OK", False),
        ("OK", "WRONG CODE", False),
        ("OK", "UNCLEAN", False),
        ("UNIMPLEMENTED", "OK", False),
    ],
)
def test_a_case_passes_only_when_its_behaviour_and_its_close_do(behavior: str, closing: str, passed: bool) -> None:
    assert Verdict("1.1.1", behavior, closing).passed is passed


def test_a_case_that_is_not_in_the_report_has_failed(tmp_path: Path) -> None:
    entry = {"behavior": "OK", "behaviorClose": "OK", "reportfile": "case.json"}
    (tmp_path / "index.json").write_text(json.dumps({"native": {"1.1.1": entry}}))
    first, second = read_report(tmp_path, "native", ["1.1.1", "1.1.2"])
    assert first.passed
    assert (second.behavior, second.passed) == (MISSING, False)


def test_without_a_report_every_case_has_failed(tmp_path: Path) -> None:
    assert not any(verdict.passed for verdict in read_report(tmp_path, "native", ["1.1.1", "1.1.2"]))


def test_the_summary_counts_verdicts_and_names_what_is_not_ok() -> None:
    text = summary(
        [Verdict("1.1.1", "OK", "OK"), Verdict("6.4.1", "NON-STRICT", "OK"), Verdict("7.1.1", "FAILED", "UNCLEAN", "report.json")]
    )
    assert text.splitlines() == [
        "3 cases: 1 OK, 1 NON-STRICT, 1 FAILED",
        "NON-STRICT: 6.4.1",
        "FAILED: 7.1.1 FAILED, close: UNCLEAN (report.json)",
    ]
