from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asking import asked
from tests.checks.signing import SECRET, jwk, private_key, public_pem, token, write_keys
from unlimitedws import checks
from unlimitedws.errors import ExtraMissing, TokenInvalid
from unlimitedws.functions import kind_of
from unlimitedws.verdict import Accept, Reject

TOKENS = checks.jwt(SECRET, algorithms=["HS256"])


def bearing(text: str) -> str:
    return f"Authorization: Bearer {text}"


def refused(verdict: Any) -> tuple[bytes, str]:
    """Body and challenge of a refusal with 401."""
    assert isinstance(verdict, Reject)
    assert verdict.status == 401
    return verdict.body, dict(verdict.headers)["WWW-Authenticate"]


def why_not(text: Any, check: checks.JWT = TOKENS) -> str:
    with pytest.raises(TokenInvalid) as caught:
        check.verify(text)
    assert str(caught.value) == f"the token {caught.value.why}"
    return caught.value.why


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_valid_token_lets_in_with_its_claims_until_it_expires() -> None:
    exp = int(time.time()) + 60
    verdict = TOKENS(asked(bearing(token(exp=exp, role="admin"))))
    assert isinstance(verdict, Accept)
    assert verdict.state == {"sub": "alice", "exp": exp, "role": "admin"}
    assert verdict.expires_at == exp
    assert verdict.subprotocol is None


def test_the_leeway_is_added_to_the_end() -> None:
    exp = int(time.time()) - 10
    verdict = checks.jwt(SECRET, algorithms=["HS256"], leeway_s=30)(asked(bearing(token(exp=exp))))
    assert isinstance(verdict, Accept)
    assert verdict.expires_at == exp + 30


def test_the_bearer_trick_works_and_is_never_the_subprotocol_agreed_on() -> None:
    verdict = TOKENS(asked(f"Sec-WebSocket-Protocol: chat.v1, bearer.{token()}"))
    assert isinstance(verdict, Accept)
    assert verdict.subprotocol is None


def test_without_a_token_the_client_is_told_to_bring_one() -> None:
    assert refused(TOKENS(asked())) == (b"a token is needed\n", "Bearer")


def test_an_invalid_token_is_named_so() -> None:
    assert refused(TOKENS(asked(bearing(token(exp=1))))) == (
        b"the token has expired\n",
        'Bearer error="invalid_token", error_description="the token has expired"',
    )


def test_the_first_token_decides_even_where_another_is_good() -> None:
    verdict = TOKENS(asked(bearing("bad"), f"Sec-WebSocket-Protocol: bearer.{token()}"))
    assert refused(verdict)[0] == b"the token is malformed\n"


def test_the_refusal_shows_nothing_of_the_token() -> None:
    bad = token(key="another secret of the same length, at least, as the other one is.", sub="mallory")
    verdict = TOKENS(asked(bearing(bad)))
    assert isinstance(verdict, Reject)
    assert not any(part.encode() in verdict.pack() for part in (*bad.split("."), "mallory"))


def test_other_sources_are_looked_at_where_they_are_named() -> None:
    check = checks.jwt(SECRET, algorithms=["HS256"], sources=("cookie:t", "query:t"))
    assert isinstance(check(asked(f"Cookie: t={token()}")), Accept)
    assert isinstance(check(asked(target=f"/?t={token()}")), Accept)
    assert refused(check(asked(bearing(token()))))[1] == "Bearer"


@pytest.mark.parametrize("algorithm", [name for name in checks.keys.KINDS if not name.startswith("HS")])
def test_tokens_of_every_public_algorithm_are_verified(algorithm: str) -> None:
    check = checks.jwt(public_pem(algorithm), algorithms=[algorithm])
    assert check.verify(token(algorithm))["sub"] == "alice"
    head, _, signature = token(algorithm).rpartition(".")
    assert why_not(f"{head}.{signature[::-1]}", check) in ("has a wrong signature", "is malformed")


def test_a_file_of_keys_serves_the_token_that_names_one(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.json", jwk("RS256", 1, kid="one"), jwk("ES256", kid="two"))
    check = checks.jwt(jwks_file=path, algorithms=["RS256", "ES256"])
    assert check.verify(token("RS256", 1, headers={"kid": "one"}))["sub"] == "alice"
    assert check.verify(token("ES256", headers={"kid": "two"}))["sub"] == "alice"
    assert why_not(token("RS256", 2, headers={"kid": "one"}), check) == "has a wrong signature"
    assert "key or algorithm" in why_not(token("RS256", 1, headers={"kid": "three"}), check)
    assert "key or algorithm" in why_not(token("ES256", headers={"kid": "one"}), check)


def test_a_token_that_takes_a_public_key_for_a_secret_is_refused() -> None:
    # The classic: HMAC over the very bytes of the RSA key that everybody may know.
    pem = public_pem("RS256").encode()
    body = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': 'mallory', 'exp': 9_999_999_999})}"
    forged = body + "." + base64.urlsafe_b64encode(hmac.digest(pem, body.encode(), hashlib.sha256)).decode().rstrip("=")
    for algorithms in (["RS256"], ["RS256", "PS256"]):
        assert "key or algorithm" in why_not(forged, checks.jwt(public_pem("RS256"), algorithms=algorithms))


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "", None, [], ["HS256"], {}, 3])
def test_a_token_without_a_real_algorithm_is_refused(alg: Any) -> None:
    claims = encoded({"sub": "mallory", "exp": 9_999_999_999})
    for signature in ("", "AAAA"):
        assert why_not(f"{encoded({'alg': alg})}.{claims}.{signature}")


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "has expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": "soon"}, "is malformed"),
        ({"nbf": 9_999_999_999}, "is not valid yet"),
        ({"aud": "other"}, "is for another audience"),
        ({"iss": "https://other.example"}, "is from another issuer"),
        ({"iss": None}, "lacks the claim iss"),
        ({"aud": None}, "lacks the claim aud"),
    ],
)
def test_a_claim_that_does_not_fit_is_named(claims: dict[str, Any], why: str) -> None:
    check = checks.jwt(SECRET, algorithms=["HS256"], audience="chat", issuer="https://a.example")
    good: dict[str, Any] = {"aud": "chat", "iss": "https://a.example"}
    assert check.verify(token(**good))["aud"] == "chat"
    assert why_not(token(**{**good, **claims}), check) == why


def test_audience_and_issuer_may_be_several() -> None:
    check = checks.jwt(SECRET, algorithms=["HS256"], audience=["chat", "video"], issuer=["a", "b"])
    assert check.verify(token(aud="video", iss="b"))
    assert why_not(token(aud="mail", iss="b"), check) == "is for another audience"


def test_a_token_for_an_audience_is_not_for_who_names_none() -> None:
    assert why_not(token(aud="somebody")) == "is for another audience"


def test_a_token_without_an_end_is_let_in_only_where_exp_is_not_required() -> None:
    verdict = checks.jwt(SECRET, algorithms=["HS256"], require=())(asked(bearing(token(exp=None))))
    assert isinstance(verdict, Accept)
    assert verdict.expires_at is None


def test_other_claims_can_be_required() -> None:
    check = checks.jwt(SECRET, algorithms=["HS256"], require=("exp", "https://a.example/role"))
    assert refused(check(asked(bearing(token()))))[0] == b"the token lacks the claim https://a.example/role\n"


def test_an_end_beyond_all_times_is_an_end() -> None:
    verdict = TOKENS(asked(bearing(token(exp=10**400))))
    assert isinstance(verdict, Accept)
    assert verdict.expires_at == checks.tokens.FOREVER


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c", "a.b.c.d", "é.é.é", "\ud800", "." * 16384, "a" * 16385, None, b"a.b.c", 3])
def test_what_is_no_token_is_malformed(text: Any) -> None:
    assert why_not(text) == "is malformed"


@pytest.mark.parametrize(
    "header", ["[" * 6000, '{"alg":' * 1000, '"HS256"', "[]", "null", '{"alg":"HS256","kid":3}', '{"alg":"HS256","crit":["x"],"x":1}']
)
def test_a_header_made_to_hurt_is_malformed(header: str) -> None:
    head = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")
    assert why_not(f"{head}.{encoded({})}.AAAA") == "is malformed"


def test_extensions_that_must_be_understood_are_refused_though_signed() -> None:
    signed = jwt.encode({"exp": 9_999_999_999}, SECRET, headers={"crit": ["exp2"], "exp2": 1})
    assert why_not(signed) == "is malformed"


def test_claims_nested_to_hurt_are_malformed_though_signed() -> None:
    body = f"{encoded({'alg': 'HS256'})}.{base64.urlsafe_b64encode(b'[' * 9000).decode().rstrip('=')}"
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), body.encode(), hashlib.sha256)).decode().rstrip("=")
    assert why_not(f"{body}.{signature}") == "is malformed"


@given(st.text(max_size=60) | st.lists(st.sampled_from([*token().split("."), "", "AAAA", "e30"]), max_size=4).map(".".join))
def test_no_text_does_anything_but_verify_or_be_invalid(text: str) -> None:
    with suppress(TokenInvalid):
        assert TOKENS.verify(text)["sub"] == "alice"


def test_a_renewed_token_can_be_verified_without_a_request() -> None:
    claims = TOKENS.verify(token(exp=int(time.time()) + 120))
    assert TOKENS.expires_at(claims) == claims["exp"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "one of key and jwks_file"),
        ({"key": SECRET, "jwks_file": "keys.json"}, "one of key and jwks_file"),
        ({"key": SECRET, "algorithms": []}, "algorithms"),
        ({"key": SECRET, "algorithms": ["none"]}, "everybody"),
        ({"key": SECRET, "algorithms": ["RS256"]}, "public key in PEM"),
        ({"key": SECRET, "sources": ["body"]}, "source"),
        ({"key": SECRET, "subprotocol_prefix": "a b"}, "prefix"),
        ({"key": SECRET, "leeway_s": -1}, "leeway_s"),
        ({"key": SECRET, "leeway_s": float("nan")}, "leeway_s"),
        ({"key": SECRET, "leeway_s": 7200}, "leeway_s"),
        ({"key": SECRET, "require": "exp"}, "sequence of claims"),
        ({"key": SECRET, "require": ["a\nb"]}, "cannot stand in a header"),
    ],
)
def test_what_could_not_work_is_said_when_it_is_made(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checks.jwt(**{"algorithms": ["HS256"], **given})


def test_algorithms_have_no_default() -> None:
    with pytest.raises(TypeError, match="algorithms"):
        checks.jwt(SECRET)  # type: ignore[call-arg]


def test_without_pyjwt_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt.algorithms", None)
    with pytest.raises(ExtraMissing, match=r"unlimitedws\[jwt\]"):
        checks.jwt(SECRET, algorithms=["HS256"])


def test_it_is_a_plain_check() -> None:
    assert kind_of(TOKENS) == "plain"
    assert kind_of(checks.every(checks.origin(), TOKENS)) == "plain"


def test_keys_in_memory_are_shown_nowhere() -> None:
    assert SECRET not in repr(TOKENS)
    assert str(private_key("RS256")) not in repr(checks.jwt(public_pem("RS256"), algorithms=["RS256"]))
