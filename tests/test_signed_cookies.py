from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import asked
from unlimitedws import signed_cookies
from unlimitedws.cookies import Cookie
from unlimitedws.signed_cookies import SignedCookies

OLD, NEW = "o" * 32, "n" * 32
SESSIONS = SignedCookies([NEW])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_700_000_000.0]
    monkeypatch.setattr(signed_cookies.time, "time", lambda: now[0])
    return now


@pytest.mark.parametrize("value", ["alice", "", "déjà vu", b"\x00\xff", b"", 17, 0, False, {"user": "alice", "roles": ["a"]}, [1, None]])
def test_what_was_set_comes_back(value: Any) -> None:
    assert SESSIONS.verify(asked(f"Cookie: {SESSIONS.set(value).pack().partition(';')[0]}")) == value


json_values = st.recursive(
    st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)


@given(json_values | st.binary())
def test_every_value_survives_the_way(value: Any) -> None:
    assert SESSIONS.value_of(SESSIONS.set(value).value) == value


def test_the_cookie_has_the_attributes_of_its_kind() -> None:
    cookies = SignedCookies([NEW], name="s", max_age_s=60, path="/x", domain="a.example", secure=False, httponly=False, samesite="Strict")
    made = cookies.set("x")
    assert made == Cookie("s", made.value, 60, "/x", "a.example", secure=False, httponly=False, samesite="Strict")
    assert cookies.delete() == Cookie("s", "", 0, "/x", "a.example", secure=False, httponly=False, samesite="Strict")
    assert (cookies.name, cookies.max_age_s) == ("s", 60)


def test_a_request_without_the_cookie_has_no_value() -> None:
    assert SESSIONS.verify(asked()) is None
    assert SESSIONS.verify(asked("Cookie: other=1")) is None


def test_every_changed_character_is_noticed() -> None:
    signed = SESSIONS.set({"user": "alice"}).value
    for at in range(len(signed)):
        changed = signed[:at] + ("A" if signed[at] != "A" else "B") + signed[at + 1 :]
        # The last character of a signature carries bits that mean nothing; they are compared all the same.
        assert SESSIONS.value_of(changed) is None, at


@pytest.mark.parametrize("text", ["", ".", "..", "...", "j.e30", "j.e30.1700000000", "j.e30.1700000000.", "é.é.é.é", "j.e30.x.y"])
def test_what_we_never_made_is_no_value(text: str) -> None:
    assert SESSIONS.value_of(text) is None


@given(st.text(max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    assert SESSIONS.value_of(text) is None


def test_the_signed_time_cannot_be_changed(clock: list[float]) -> None:
    kind, value, signed_at, signature = SESSIONS.set("x").value.split(".")
    assert SESSIONS.value_of(".".join((kind, value, str(int(signed_at) + 1), signature))) is None


def test_it_holds_as_long_as_it_says_and_no_longer(clock: list[float]) -> None:
    cookies = SignedCookies([NEW], max_age_s=60)
    signed = cookies.set("x").value
    clock[0] += 60
    assert cookies.value_of(signed) == "x"
    clock[0] += 1
    assert cookies.value_of(signed) is None


def test_it_says_until_when_it_holds(clock: list[float]) -> None:
    cookies = SignedCookies([NEW], max_age_s=60)
    signed = cookies.set("x").value
    assert cookies.read(signed) == ("x", clock[0] + 60)
    clock[0] += 61
    assert cookies.read(signed) == (None, 0)
    assert cookies.read("") == (None, 0)


def test_a_clock_that_was_ahead_does_no_harm(clock: list[float]) -> None:
    signed = SESSIONS.set("x").value
    clock[0] -= 30
    assert SESSIONS.value_of(signed) == "x"


def test_keys_rotate() -> None:
    signed_before = SignedCookies([OLD]).set("x").value
    both = SignedCookies([NEW, OLD])
    assert both.value_of(signed_before) == "x"
    assert SignedCookies([NEW]).value_of(both.set("y").value) == "y"
    assert SignedCookies([NEW]).value_of(signed_before) is None


def test_a_value_means_nothing_under_another_name_or_salt() -> None:
    signed = SignedCookies([NEW], name="a").set("x").value
    assert SignedCookies([NEW], name="a").value_of(signed) == "x"
    assert SignedCookies([NEW], name="b").value_of(signed) is None
    assert SignedCookies([NEW], name="a", salt="invitations").value_of(signed) is None


def test_keys_may_be_text_or_bytes() -> None:
    assert SignedCookies([NEW.encode()]).value_of(SESSIONS.set("x").value) == "x"


def test_the_value_can_be_read_by_its_owner() -> None:
    encoded = SESSIONS.set("x").value.split(".")[1]
    assert base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)) == b'"x"'


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"keys": []}, ValueError, "at least one key"),
        ({"keys": ["short"]}, ValueError, "16 bytes"),
        ({"keys": [NEW, "short"]}, ValueError, "16 bytes"),
        ({"keys": NEW}, TypeError, "keys=\\[key\\]"),
        ({"max_age_s": 0}, ValueError, "max_age_s"),
        ({"max_age_s": 1.5}, ValueError, "max_age_s"),
        ({"name": "a b"}, ValueError, "token"),
        ({"name": "__Host-a", "path": "/x"}, ValueError, "path"),
    ],
)
def test_what_could_not_work_is_said_when_it_is_made(given: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        SignedCookies(**{"keys": [NEW], **given})


def test_an_error_about_a_key_does_not_show_it() -> None:
    with pytest.raises(ValueError, match=r"secrets\.token_hex") as caught:
        SignedCookies(["secret-key"])
    assert "secret-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "error"), [(None, TypeError), (object(), TypeError), (float("nan"), ValueError), ("x" * 4096, ValueError)]
)
def test_what_cannot_be_carried_is_refused_when_it_is_set(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        SESSIONS.set(value)
