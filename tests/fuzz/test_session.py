from __future__ import annotations

import pytest

from tests.fuzz import plan
from tests.fuzz.seeds import INPUTS
from tests.fuzz.session import Outcome, judge

LOG = """INFO: Loaded 1 modules   (2971 inline 8-bit counters): 2971 [0x1, 0x2),
#121\tINITED cov: 107 ft: 108 corp: 61/4Kb exec/s: 0 rss: 98Mb
#262\tNEW    cov: 150 ft: 200 corp: 80/9Kb lim: 2314 exec/s: 131 rss: 99Mb
#900\tDONE   cov: {last} ft: 300 corp: 99/16Kb lim: 2314 exec/s: 130 rss: 99Mb
stat::number_of_executed_units: 900
"""


def test_the_log_of_the_fuzzer_is_understood() -> None:
    outcome = Outcome.of(0, LOG.format(last=151))
    assert (outcome.counters, outcome.first_coverage, outcome.last_coverage, outcome.executed) == (2971, 107, 151, 900)


@pytest.mark.parametrize(
    ("status", "log", "learnt_before", "expected"),
    [
        pytest.param(0, LOG.format(last=151), False, 0, id="coverage grew"),
        pytest.param(0, LOG.format(last=107), True, 0, id="nothing new for a corpus that has learnt already"),
        pytest.param(0, LOG.format(last=107), False, 1, id="a first run that learns nothing is not guided"),
        pytest.param(0, "stat::number_of_executed_units: 900\n", True, 1, id="no coverage at all"),
        pytest.param(77, LOG.format(last=151), False, 1, id="something broke"),
    ],
)
def test_a_run_is_judged_by_its_status_and_its_guidance(status: int, log: str, learnt_before: bool, expected: int) -> None:
    assert judge("frames", Outcome.of(status, log), learnt_before=learnt_before) == expected


def test_a_plan_is_read_as_it_was_packed() -> None:
    stream = bytes(range(20))
    assert plan.parse(plan.pack(stream, sizes=bytes((1, 2)), limit=2)) == (16, [stream[:1], stream[1:3], stream[3:]], stream)


@pytest.mark.parametrize("target", INPUTS)
def test_a_seed_is_given_once(target: str) -> None:
    inputs = list(INPUTS[target]())
    assert len(inputs) == len(set(inputs)) > 10
