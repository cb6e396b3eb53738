"""The check-up: a log line for each serious problem."""

from __future__ import annotations

import logging

import pytest

from unlimitedws.config import Config
from unlimitedws.doctor.checkup import check_up, guess
from unlimitedws.engine import why_not_native


def test_each_serious_problem_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "unlimitedws.doctor"):
        check_up(Config(backlog=(1 << 31) - 1, trusted_proxies="unix", ping_interval_s=0.0), cpus=2)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" is ")[0].split(" are ")[0] for line in lines if "overcommit" not in line] == ["backlog", "pings"]
    assert all("\n" not in line for line in lines)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_the_guess_at_the_engine_is_right() -> None:
    assert (guess() is None) == (why_not_native() is None)
