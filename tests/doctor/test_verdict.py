"""The promises of a verdict, on all machines: what is printed is enough, and lifting what binds lifts what is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Judge, judged
from tests.doctor.trees import GIB, TREES, applied, plain
from unlimitedws import cost
from unlimitedws.config import Config
from unlimitedws.doctor.changes import LIFTS
from unlimitedws.doctor.fields import BOUNDS
from unlimitedws.doctor.lines import lines

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"workers": 1},
    {"workers": 16, "max_connections": 100},
    {"max_connections_total": 500, "host": "::", "access_log": True},
    {"engine": "portable", "shed_memory": 0.0, "ping_interval_s": 0.0},
    {"trusted_proxies": "127.0.0.1", "backlog": 60_000},
)
WANTED = (1, 900, 20_000, 100_000, 1_000_000, 5_000_000)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "defaults")
def test_no_machine_is_too_strange_to_be_judged(judge: Judge, name: str, settings: dict[str, Any]) -> None:
    for wanted in (None, *WANTED):
        verdict = judge(name, wanted, **settings)
        assert verdict.held >= 0
        assert verdict.best.connections >= verdict.held
        assert (verdict.is_enough is None) == (wanted is None)
        assert {bound.name for bound in verdict.bounds} <= set(BOUNDS)


@pytest.mark.parametrize("alternatives", [False, True])
@pytest.mark.parametrize("name", sorted(set(TREES) - {"bare"}))
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "defaults")
@pytest.mark.parametrize("wanted", WANTED)
def test_the_printed_lines_make_it_enough(tmp_path: Path, name: str, settings: dict[str, Any], wanted: int, alternatives: bool) -> None:
    root, config = TREES[name](tmp_path), Config(**settings)
    before = judged(root, config, wanted)
    after = judged(root, applied(root, lines(before.changes), config, alternatives=alternatives), wanted)
    missing = {change.bound for change in before.changes if change.kind == "hardware"}
    short = {bound.name for bound in after.bounds if bound.connections < wanted}
    assert short <= missing, after.bounds
    assert after.is_enough or "memory" in missing
    assert {problem.name for problem in after.problems if problem.serious} <= missing


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "defaults")
def test_what_is_enough_needs_no_line_but_for_what_only_gets_worse(judge: Judge, name: str, settings: dict[str, Any]) -> None:
    held = judge(name, **settings).held
    if not held:
        return
    verdict = judge(name, held, **settings)
    assert verdict.is_enough
    ending = {bound.name for bound in verdict.bounds if bound.ends}
    assert not {change.bound for change in verdict.changes} & ending
    assert judge(name, held + 1, **settings).is_enough is False


@pytest.mark.parametrize("name", sorted(set(TREES) - {"bare"}))
def test_lifting_what_binds_lifts_what_is_held_until_only_memory_is_in_the_way(tmp_path: Path, name: str) -> None:
    root, config = TREES[name](tmp_path), Config()
    seen = []
    for _ in range(20):
        verdict = judged(root, config)
        seen.append((verdict.bound.name, verdict.held))
        wanted = 2 * verdict.held + 200_000
        mended = [change for change in LIFTS[verdict.bound.name](verdict.machine, verdict.server, wanted) if not change.instead_of]
        if any(change.kind == "hardware" for change in mended):
            break
        config = applied(root, lines(mended), config)
        assert judged(root, config).held > verdict.held, seen
        # It is either lifted past what was asked for, or something else is in the way now.
        now = judged(root, config)
        assert now.held >= wanted or now.bound.name != verdict.bound.name, seen
    else:
        pytest.fail(f"memory never came in the way: {seen}")
    assert seen[-1][0] == "memory"


def test_a_machine_of_the_manual_holds_a_million_after_the_lines(tmp_path: Path) -> None:
    root = plain(tmp_path, hard=524288)
    assert judged(root, Config()).bound == (
        "descriptors",
        2 * (524288 - 32),
        True,
        "2 workers x (524,288 open files of RLIMIT_NOFILE, 32 of them its own)",
    )
    assert judged(root, Config(), 1_000_000).is_enough
    assert judged(root, Config(workers=1), 1_000_000).is_enough is False


def test_memory_ends_it_where_there_is_little(tmp_path: Path) -> None:
    root = plain(tmp_path, memory=GIB)
    verdict = judged(root, Config())
    left = 768 * (1 << 20) - int(GIB * 0.05) - cost.BASE_BYTES - 2 * cost.WORKER_BYTES
    assert (verdict.bound.name, verdict.held) == ("memory", left // (4096 + 48))
