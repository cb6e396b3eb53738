from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.asking import asked
from unlimitedws.checks import every
from unlimitedws.errors import AppInvalid
from unlimitedws.functions import blocking, kind_of
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject

REQUEST = asked()
NO = Reject(403, "no")
NEVER = Reject(418, "asked although one before had refused")


def says(verdict: Any) -> Any:
    def check(request: Request) -> Any:
        assert request is REQUEST
        return verdict

    return check


def says_async(verdict: Any) -> Any:
    async def check(request: Request) -> Any:
        await asyncio.sleep(0)
        return says(verdict)(request)

    return check


def result(check: Any) -> Any:
    return asyncio.run(check(REQUEST)) if kind_of(check) == "async" else check(REQUEST)


@pytest.mark.parametrize("say", [says, says_async])
def test_who_passes_all_is_let_in(say: Any) -> None:
    assert result(every(say(None))) is None
    assert result(every(says(None), say(None))) is None


@pytest.mark.parametrize("say", [says, says_async])
def test_the_first_refusal_wins_and_ends_it(say: Any) -> None:
    assert result(every(say(None), say(Accept(state=1)), say(NO), say(NEVER))) is NO


@pytest.mark.parametrize("say", [says, says_async])
def test_the_terms_of_several_accepts_are_put_together(say: Any) -> None:
    one = Accept("v1", headers={"X-A": "1"}, cookies=[("a", "1")], state="one", expires_at=200)
    two = Accept("v2", headers={"X-B": "2"}, cookies=[("b", "2")], state="two", expires_at=100)
    bare = Accept()
    found = result(every(say(one), says(two), say(None), say(bare)))
    assert (found.subprotocol, found.state, found.expires_at) == ("v2", "two", 100)
    assert found.headers == (("X-A", "1"), ("X-B", "2"))
    assert [cookie.name for cookie in found.cookies] == ["a", "b"]


def test_a_state_that_is_false_is_a_state() -> None:
    assert result(every(says(Accept(state="x")), says(Accept(state=0)))).state == 0


def test_one_accept_is_given_as_it_is() -> None:
    accept = Accept(state=1)
    assert result(every(says(accept), says(None))) is accept


def test_it_is_async_only_where_one_of_them_is() -> None:
    assert kind_of(every(says(None), says(None))) == "plain"
    assert kind_of(every(says(None), says_async(None))) == "async"
    assert kind_of(every(every(says_async(None)), says(None))) == "async"
    assert kind_of(every(says(None), blocking(says(None)))) == "blocking"


def test_a_blocking_and_an_async_check_do_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"asyncio\.to_thread"):
        every(says_async(None), blocking(says(None)))


@pytest.mark.parametrize("verdict", [True, False, "ok", 403])
@pytest.mark.parametrize("say", [says, says_async])
def test_what_is_no_verdict_lets_nobody_in(say: Any, verdict: Any) -> None:
    with pytest.raises(TypeError, match=r"check returned (bool|str|int); a check returns None, Accept or Reject"):
        result(every(say(verdict)))


def test_a_coroutine_that_nobody_awaits_lets_nobody_in() -> None:
    with pytest.raises(TypeError, match="returned coroutine"):
        result(every(lambda request: says_async(NO)(request)))


def test_no_check_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="everybody"):
        every()


@pytest.mark.parametrize("check", [None, "origin", lambda: None, Accept()])
def test_what_cannot_be_called_with_a_request_is_refused_when_it_is_given(check: Any) -> None:
    with pytest.raises(AppInvalid, match="a check"):
        every(check)


def test_what_a_check_raises_goes_on() -> None:
    def broken(request: Request) -> None:
        raise LookupError("the database")

    with pytest.raises(LookupError):
        result(every(says(None), broken))
