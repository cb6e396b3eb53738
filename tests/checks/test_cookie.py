from __future__ import annotations

import time

from tests.asking import asked
from unlimitedws.checks import signed_cookie
from unlimitedws.signed_cookies import SignedCookies
from unlimitedws.verdict import Accept, Reject

SESSIONS = SignedCookies(["k" * 32])
CHECK = signed_cookie(SESSIONS)


def test_the_value_of_a_valid_cookie_becomes_the_state() -> None:
    verdict = CHECK(asked(f"Cookie: theme=dark; session={SESSIONS.set({'user': 'alice'}).value}"))
    assert isinstance(verdict, Accept)
    assert verdict.state == {"user": "alice"}


def test_a_value_that_is_false_is_a_value() -> None:
    verdict = CHECK(asked(f"Cookie: session={SESSIONS.set(0).value}"))
    assert isinstance(verdict, Accept)
    assert verdict.state == 0


def test_a_connection_ends_with_its_cookie() -> None:
    verdict = CHECK(asked(f"Cookie: session={SESSIONS.set('alice').value}"))
    assert isinstance(verdict, Accept)
    assert verdict.expires_at is not None
    assert verdict.expires_at - SESSIONS.max_age_s <= time.time() < verdict.expires_at


def test_a_connection_may_outlive_its_cookie_where_the_app_says_so() -> None:
    verdict = signed_cookie(SESSIONS, expires=False)(asked(f"Cookie: session={SESSIONS.set('alice').value}"))
    assert isinstance(verdict, Accept)
    assert (verdict.state, verdict.expires_at) == ("alice", None)


def test_without_one_the_answer_is_403_and_says_which_is_missing() -> None:
    for lines in ((), ("Cookie: session=forged",), (f"Cookie: session={SESSIONS.set('x').value}x",)):
        verdict = CHECK(asked(*lines))
        assert isinstance(verdict, Reject)
        assert (verdict.status, verdict.body) == (403, b"no valid cookie session; sign in first\n")
