"""The on_upgrade hook, and what its verdict becomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fronts import House
from tests.peer import ACCEPT, request
from unlimitedws.engine.contract import Refusal, Upgrade
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.closing import Cause

KINDS = ("plain", "async", "blocking")


def of_kind(kind: str, verdict: Callable[[Request], Any]) -> Handlers:
    """Handlers whose on_upgrade is plain, async or blocking and gives `verdict(request)`."""
    handlers = Handlers(subprotocols=("v2", "v1"))

    async def later(request: Request) -> Any:
        await asyncio.sleep(0)
        return verdict(request)

    handlers.on_upgrade = {"plain": verdict, "async": later, "blocking": blocking(lambda request: verdict(request))}[kind]
    return handlers


def asked(kind: str, verdict: Callable[[Request], Any], head: bytes = request("/"), **settings: Any) -> Any:
    """The answer to one handshake."""

    async def ask() -> Any:
        house = House(of_kind(kind, verdict), **settings)
        answer = await house.answered(head)
        await house.idle()
        house.pool.close()
        return answer

    return asyncio.run(ask())


@pytest.mark.parametrize("kind", KINDS)
def test_none_and_accept_let_the_client_in(kind: str) -> None:
    for verdict in (None, Accept()):
        answer = asked(kind, lambda request, verdict=verdict: verdict)  # type: ignore[misc]
        assert isinstance(answer, Upgrade)
        assert answer.response.endswith(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n")
        assert answer[1:] == ("/", 0, None, None, None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_an_accept_names_the_terms(kind: str) -> None:
    state = object()
    verdict = Accept("v1", headers={"X-One": "1"}, cookies=[("a", "b")], state=state, expires_at=1e9)
    answer = asked(kind, lambda request: verdict, request("/", "Sec-WebSocket-Protocol: v2, v1"))
    lines = answer.response.split(b"\r\n")
    assert b"Sec-WebSocket-Protocol: v1" in lines
    assert b"X-One: 1" in lines
    assert any(line.startswith(b"Set-Cookie: a=b") for line in lines)
    assert (answer.subprotocol, answer.state, answer.expires_at) == ("v1", state, 1e9)
    assert answer.response.endswith(b"\r\n\r\n")


def test_without_a_word_of_the_hook_the_subprotocol_is_chosen_as_without_a_hook() -> None:
    for verdict in (None, Accept()):
        answer = asked("plain", lambda request, verdict=verdict: verdict, request("/", "Sec-WebSocket-Protocol: v1, v2"))  # type: ignore[misc]
        assert answer.subprotocol == "v2"


@pytest.mark.parametrize("kind", KINDS)
def test_a_reject_is_answered_as_it_says(kind: str) -> None:
    answer = asked(kind, lambda request: Reject(401, "who are you?", {"WWW-Authenticate": "Bearer"}))
    assert isinstance(answer, Refusal)
    assert answer.response.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"\r\nConnection: close\r\n" in answer.response
    assert b"\r\nWWW-Authenticate: Bearer\r\n" in answer.response
    assert answer.response.endswith(b"\r\n\r\nwho are you?")
    assert answer.cause is Cause.HANDSHAKE_REFUSED


def raising(request: Request) -> Any:
    raise KeyError("no such user")


def cancelled(request: Request) -> Any:
    raise asyncio.CancelledError("by a library of its own")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (raising, "no such user"),
        (cancelled, "CancelledError"),
        (lambda request: True, "not bool"),
        (lambda request: Reject, "not type"),
        (lambda request: Accept("v3"), "'v3', which the client did not offer"),
        (lambda request: exit(3), "SystemExit"),
    ],
)
def test_a_hook_that_fails_is_answered_with_500_and_logged(
    kind: str, verdict: Callable[[Request], Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = asked(kind, verdict, request("/chat?token=secret", "Cookie: session=secret"))
    assert answer.response.startswith(b"HTTP/1.1 500 ")
    assert answer.cause is Cause.HANDSHAKE_REFUSED
    [record] = caplog.records
    assert "on_upgrade" in record.getMessage()
    assert "/chat" in record.getMessage()
    assert text in caplog.text
    assert "secret" not in caplog.text


def test_a_plain_hook_that_gives_a_coroutine_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None: ...

    answer = asked("plain", lambda request: check())
    assert answer.response.startswith(b"HTTP/1.1 500 ")
    assert "make it async" in caplog.text


def test_the_hook_of_each_endpoint_is_its_own() -> None:
    async def ask() -> list[Any]:
        house = House({"/a": of_kind("plain", lambda request: Reject(403)), "/b": Handlers()})
        assert [endpoint.guarded for endpoint in house.front.endpoints[:2]] == [True, False]
        return [house.answer(request(path)) for path in ("/a", "/b")]

    refused, accepted = asyncio.run(ask())
    assert isinstance(refused, Refusal)
    assert isinstance(accepted, Upgrade)


def test_the_hook_sees_the_request() -> None:
    seen: list[Any] = []

    def look(request: Request) -> None:
        seen.append((request.path, request.query.get("a"), request.cookies, request.remote_address, request.subprotocols))

    asked("plain", look, request("/caf%C3%A9?a=1", "Cookie: c=d", "Sec-WebSocket-Protocol: v1"))
    assert seen == [("/café", "1", {"c": "d"}, ("192.0.2.1", 4000), ("v1",))]


def test_no_hook_is_asked_about_a_request_that_is_no_handshake() -> None:
    for head in (request("/").replace(b"Version: 13", b"Version: 8"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"nonsense\r\n\r\n"):
        answer = asked("plain", lambda request: pytest.fail("the hook was asked"), head)
        assert isinstance(answer, Refusal)
