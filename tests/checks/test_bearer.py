from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.asking import asked
from unlimitedws.checks.bearer import SUBPROTOCOL_PREFIX, finder

K8S = "base64url.bearer.authorization.k8s.io."


def found(*names: str, headers: tuple[str, ...] = (), target: str = "/", prefix: str = SUBPROTOCOL_PREFIX) -> str | None:
    return finder(names, prefix)(asked(*headers, target=target))


@pytest.mark.parametrize(
    ("line", "token"),
    [
        ("Authorization: Bearer a.b.c", "a.b.c"),
        ("authorization: bearer a.b.c", "a.b.c"),
        ("Authorization: Bearer  a.b.c", "a.b.c"),
        ("Authorization: Bearer", ""),
        ("Authorization: Basic a.b.c", None),
        ("Authorization: a.b.c", None),
        ("X-Authorization: Bearer a.b.c", None),
    ],
)
def test_a_token_in_the_header(line: str, token: str | None) -> None:
    assert found("header", headers=(line,)) == token


def test_two_authorization_headers_are_no_token_that_could_be_good() -> None:
    assert found("header", headers=("Authorization: Bearer a.b.c", "Authorization: Bearer d.e.f")) == "a.b.c, Bearer d.e.f"


@pytest.mark.parametrize(
    ("offer", "token"),
    [
        ("chat.v1, bearer.a.b.c", "a.b.c"),
        ("bearer.a.b.c, chat.v1", "a.b.c"),
        ("bearer.", ""),
        ("chat.v1", None),
        ("xbearer.a.b.c", None),
    ],
)
def test_a_token_among_the_subprotocols(offer: str, token: str | None) -> None:
    assert found("subprotocol", headers=(f"Sec-WebSocket-Protocol: {offer}",)) == token


def test_the_prefix_of_the_subprotocol_can_be_another() -> None:
    offer = ("Sec-WebSocket-Protocol: chat.v1, token-a.b.c",)
    assert found("subprotocol", headers=offer, prefix="token-") == "a.b.c"
    assert found("subprotocol", headers=offer) is None


@pytest.mark.parametrize("token", ["a", "ab", "abc", "a.b-c_d", "~~??>>"])
def test_a_subprotocol_may_carry_the_token_in_base64url_as_kubernetes_has_it(token: str) -> None:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    assert found("subprotocol", headers=(f"Sec-WebSocket-Protocol: {K8S}{encoded}, v4.channel.k8s.io",), prefix=K8S) == token


@pytest.mark.parametrize("wrong", ["a", "!!!!", "_w"])
def test_base64url_that_is_none_is_no_token_that_could_be_good(wrong: str) -> None:
    assert found("subprotocol", headers=(f"Sec-WebSocket-Protocol: {K8S}{wrong}",), prefix=K8S) == ""


def test_a_token_in_a_cookie_or_the_query_by_its_name() -> None:
    assert found("cookie:t", headers=("Cookie: s=1; t=a.b.c",)) == "a.b.c"
    assert found("cookie:t", headers=("Cookie: s=1",)) is None
    assert found("query:t", target="/?s=1&t=a.b.c") == "a.b.c"
    assert found("query:t", target="/?s=1") is None


def test_only_the_places_that_were_named_are_looked_at() -> None:
    headers = ("Authorization: Bearer a", "Sec-WebSocket-Protocol: bearer.b", "Cookie: t=c")
    assert found("query:t", headers=headers) is None


def test_the_first_place_that_has_a_token_decides() -> None:
    headers = ("Authorization: Bearer a", "Sec-WebSocket-Protocol: bearer.b", "Cookie: t=c")
    assert found("cookie:t", "header", headers=headers) == "c"
    assert found("query:t", "subprotocol", "header", headers=headers) == "b"


@pytest.mark.parametrize(
    "names", [(), "header", ("headers",), ("cookie",), ("cookie:",), ("cookie:a b",), ("query:",), ("header:x",), ("body:x",)]
)
def test_a_place_that_is_not_known_is_refused(names: Any) -> None:
    with pytest.raises(ValueError, match="source"):
        finder(names, SUBPROTOCOL_PREFIX)


@pytest.mark.parametrize("prefix", ["", "bearer ", "bearer,"])
def test_a_prefix_that_no_subprotocol_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        finder(("subprotocol",), prefix)
