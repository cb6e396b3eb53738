from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import asked
from unlimitedws.checks import basic_auth
from unlimitedws.errors import AppInvalid
from unlimitedws.functions import blocking, kind_of
from unlimitedws.verdict import Accept, Reject

USERS = basic_auth({"alice": "wonder:land", "bøb": "påss"}, realm="ops")


def basic(text: str) -> str:
    return f"Authorization: Basic {base64.b64encode(text.encode()).decode()}"


def user_of(verdict: Any) -> Any:
    """The user let in; None: refused, as RFC 7617 wants it."""
    if isinstance(verdict, Accept):
        return verdict.state
    assert isinstance(verdict, Reject)
    assert verdict.status == 401
    assert ("WWW-Authenticate", 'Basic realm="ops", charset="UTF-8"') in verdict.headers
    return None


@pytest.mark.parametrize(("credentials", "user"), [("alice:wonder:land", "alice"), ("bøb:påss", "bøb")])
def test_a_user_with_its_password_is_let_in_by_its_name(credentials: str, user: str) -> None:
    assert user_of(USERS(asked(basic(credentials)))) == user


@pytest.mark.parametrize(
    "credentials", ["alice:", "alice", "alice:wonder", ":", "", "mallory:", "mallory:wonder:land", "Alice:wonder:land", "bøb:pass"]
)
def test_anybody_else_is_refused(credentials: str) -> None:
    assert user_of(USERS(asked(basic(credentials)))) is None


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Authorization: Basic",),
        ("Authorization: Basic ???",),
        ("Authorization: Basic YWxpY2U6d29uZGVyOmxhbmQ",),
        ("Authorization: Basic /w==",),
        ("Authorization: Bearer YWxpY2U6d29uZGVyOmxhbmQ=",),
        (basic("alice:wonder:land"), basic("alice:wonder:land")),
    ],
)
def test_what_are_no_credentials_is_refused(lines: tuple[str, ...]) -> None:
    assert user_of(USERS(asked(*lines))) is None


def test_the_scheme_has_no_case() -> None:
    assert user_of(USERS(asked(basic("alice:wonder:land").replace("Basic", "bAsIc")))) == "alice"


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40))
def test_no_header_makes_it_fail(value: str) -> None:
    assert user_of(USERS(asked(f"Authorization: {value}"))) is None
    assert user_of(USERS(asked(f"Authorization: Basic {value}"))) is None


def test_a_function_of_the_apps_own_is_asked_with_both() -> None:
    calls = []

    def verify(user: str, password: str) -> bool:
        calls.append((user, password))
        return user == "alice"

    check = basic_auth(verify, realm="ops")
    assert kind_of(check) == "plain"
    assert user_of(check(asked(basic("alice:x")))) == "alice"
    assert user_of(check(asked(basic("bob:y:z")))) is None
    assert user_of(check(asked())) is None
    assert calls == [("alice", "x"), ("bob", "y:z")]


def test_an_async_function_makes_an_async_check() -> None:
    async def verify(user: str, password: str) -> bool:
        await asyncio.sleep(0)
        return password == "x"

    check = basic_auth(verify, realm="ops")
    assert kind_of(check) == "async"
    assert user_of(asyncio.run(check(asked(basic("alice:x"))))) == "alice"
    assert user_of(asyncio.run(check(asked(basic("alice:y"))))) is None
    assert user_of(asyncio.run(check(asked()))) is None


def test_a_blocking_function_makes_a_blocking_check() -> None:
    check = basic_auth(blocking(lambda user, password: True))
    assert kind_of(check) == "blocking"
    assert user_of(check(asked(basic("alice:x")))) == "alice"


async def nobody_awaits(user: str, password: str) -> bool:
    return False


@pytest.mark.parametrize("answer", [lambda: 1, lambda: "yes", lambda: None, lambda: nobody_awaits("a", "b")])
def test_only_true_lets_in_and_what_is_no_bool_is_an_error(answer: Any) -> None:
    with pytest.raises(TypeError, match="must return True or False"):
        basic_auth(lambda user, password: answer())(asked(basic("alice:x")))


@pytest.mark.parametrize("wrong", [{}, {"a:b": "x"}, {"alice": ""}, {"alice": None}, {3: "x"}])
def test_users_that_could_not_sign_in_are_refused_when_they_are_given(wrong: Any) -> None:
    with pytest.raises(ValueError, match="basic_auth"):
        basic_auth(wrong)


@pytest.mark.parametrize("wrong", [None, "alice:x", lambda user: True])
def test_what_cannot_verify_is_refused_when_it_is_given(wrong: Any) -> None:
    with pytest.raises(AppInvalid, match="verify of basic_auth"):
        basic_auth(wrong)


def test_the_realm_is_quoted_and_checked() -> None:
    verdict = basic_auth({"a": "b"}, realm='the "ops" room')(asked())
    assert isinstance(verdict, Reject)
    assert b'WWW-Authenticate: Basic realm="the \\"ops\\" room", charset="UTF-8"\r\n' in verdict.pack()
    with pytest.raises(ValueError, match="cannot stand in a header"):
        basic_auth({"a": "b"}, realm="a\r\nb")
