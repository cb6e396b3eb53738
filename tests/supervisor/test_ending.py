"""Words for exit statuses, and pauses between restarts."""

from __future__ import annotations

import signal

import pytest

from unlimitedws.supervisor.ending import Backoff, describe


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-signal.SIGSEGV, "was killed by SIGSEGV"),
        (-63, "was killed by signal 63"),
        (None, "ended (status unknown)"),
    ],
)
def test_a_status_is_described(status: int | None, words: str) -> None:
    assert describe(status) == words


def test_short_lives_double_the_pause_up_to_its_limit() -> None:
    backoff = Backoff(longest_s=1.0)
    assert [backoff.after_life(0.5) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_long_life_restarts_at_once_and_forgives_the_past() -> None:
    backoff = Backoff(longest_s=30.0)
    backoff.after_failure()
    backoff.after_failure()
    assert backoff.after_life(60.0) == 0.0
    assert backoff.after_failure() == 0.1


def test_no_limit_setting_makes_a_busy_loop() -> None:
    backoff = Backoff(longest_s=0.0)
    assert [backoff.after_failure() for _ in range(3)] == [0.1] * 3


def test_years_of_failures_do_not_overflow() -> None:
    backoff = Backoff(longest_s=30.0)
    backoff.failures = 10**9
    assert backoff.after_failure() == 30.0
