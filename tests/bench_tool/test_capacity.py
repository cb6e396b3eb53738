"""The proof of capacity in miniature, and what it takes for a goal reached."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench_tool.tool import LIMIT_S
from tests.capacity.goals import rows, table

ROOT = Path(__file__).resolve().parents[2]


def test_it_holds_all_and_says_what_they_cost() -> None:
    arguments = shlex.split("--connections 60 --workers 2 --sample 10 --settle-s 0 --rest-s 0.2 --measure-s 0.2 --after-s 0")
    done = subprocess.run([sys.executable, "-m", "tests.capacity", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode in (0, 1), done  # so few cost nothing to speak of: the rest is what the server itself does
    assert "| held | 60 | 60 | yes |" in done.stdout
    assert "| echo while all are held | 10 answers: p50 " in done.stdout
    assert "| failed, lost, wrong | 0 | 0 | yes |" in done.stdout


def report(**memory: int) -> dict[str, Any]:
    sizes = {"empty": 40_000_000, "full": 48_000_000, "after": 42_000_000, **memory}
    return {
        "server": {
            "memory": {name: {"pss": size, "connections": 100_000, "processes": 11} for name, size in sizes.items()},
            "rest_us_per_connection_s": 0.5,
        },
        "connections": {"asked": 100_000, "per_s": 9000.0, "leaving_s": 3.0},
        "load": {"processes": 6},
        "kernel": {"bytes_per_connection": {"slab": 10_000.0, "caches": None, "cgroup": None, "tcp_pages": 0.0}},
        "latency_us": {"latency": {"number": 2, "p50": 100.0, "p99": 900.0, "longest": 1000.0}},
        "options": {"after_s": 30.0},
        "errors": {},
    }


def missed(found: dict[str, Any]) -> set[str]:
    return {row.what for row in rows(found) if row.reached is False}


@pytest.mark.parametrize(
    ("memory", "what"),
    [
        ({}, set()),
        ({"full": 50_000_001}, {"... growth"}),
        ({"empty": 60_000_000, "full": 65_000_000}, {"PSS, full"}),
        ({"after": 47_000_001}, {"... after all left"}),
    ],
)
def test_each_goal_is_judged_by_what_was_measured(memory: dict[str, int], what: set[str]) -> None:
    assert missed(report(**memory)) == what


def test_an_error_and_a_busy_rest_are_goals_missed() -> None:
    found = report()
    found["errors"], found["server"]["rest_us_per_connection_s"] = {"lost": 1}, 0.61
    assert missed(found) == {"failed, lost, wrong", "CPU at rest"}
    assert "**no**" in table(rows(found))
