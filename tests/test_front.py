from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fronts import House
from tests.peer import KEY, request
from tests.pipes import Pipe
from unlimitedws.engine.contract import Refusal, Upgrade
from unlimitedws.handlers import Handlers
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.closing import Cause


def fronted(given: Any, ask: Callable[[House], Any], **settings: Any) -> Any:
    """What `ask` finds, on the loop that a front needs."""

    async def scene() -> Any:
        house = House(given, **settings)
        found = ask(house)
        house.pool.close()
        return found

    return asyncio.run(scene())


def routed(given: Any, *targets: bytes) -> list[Any]:
    return fronted(given, lambda house: [house.front.route(target) for target in targets])  # type: ignore[no-any-return]


def plain(method: str = "GET", target: str = "/") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


@pytest.mark.parametrize(("target", "path"), [(b"/", "/"), (b"/caf%C3%A9", "/café"), (b"/a%2Fb", "/a/b"), (b"/a+b", "/a+b"), (b"//", "//")])
def test_a_target_leads_to_its_decoded_path(target: bytes, path: str) -> None:
    assert routed(Handlers(), target)[0] == (path, 0)


@pytest.mark.parametrize("target", [b"/%ff", b"/%zz", b"/%4"])
def test_a_target_that_cannot_be_decoded_leads_nowhere(target: bytes) -> None:
    assert routed(Handlers(), target)[0] is None


def test_a_mapping_routes_exactly_its_paths() -> None:
    given = {"/chat": Handlers(), "/café": Handlers()}
    assert routed(given, b"/chat", b"/caf%C3%A9", b"/chat/", b"/") == [("/chat", 0), ("/café", 1), None, None]


def test_an_upgrade_names_path_endpoint_and_subprotocol() -> None:
    given = {"/a": Handlers(), "/b": Handlers(subprotocols=("v2", "v1"))}
    answer = fronted(given, lambda house: house.answer(request("/b?x=1", "Sec-WebSocket-Protocol: v1, v2")))
    assert (answer.path, answer.endpoint, answer.subprotocol) == ("/b", 1, "v2")


@pytest.mark.parametrize(
    ("given", "head", "status"),
    [
        ({"/a": Handlers()}, plain("GET", "/b"), b"404"),
        ({"/a": Handlers()}, request("/b"), b"404"),
        (Handlers(), plain("GET", "/"), b"426"),
        (Handlers(), plain("POST", "/"), b"405"),
        (Handlers(), request("/", "Host: twice"), b"400"),
        (Handlers(), b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_any_other_request_is_refused(given: Any, head: bytes, status: bytes) -> None:
    answer = fronted(given, lambda house: house.answer(head))
    assert answer.response.split(b" ")[1] == status
    assert answer.cause is Cause.HANDSHAKE_REFUSED


def test_a_request_that_breaks_the_server_itself_gets_500_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def answers(house: House) -> list[Any]:
        house.front._proxies = None  # type: ignore[assignment]  # a mistake of ours, wherever it is
        return [house.front.answer(request(), Pipe()), house.front.admit(request(), KEY, "/", 0, Pipe())]

    for answer in fronted(Handlers(), answers):
        assert isinstance(answer, Refusal)
        assert answer.response.startswith(b"HTTP/1.1 500 ")
    assert caplog.text.count("answered with 500") == 2


# ---- the fast path


HEADS = [
    request("/chat?x=1"),
    request("/chat").replace(b"Sec-WebSocket-Key: ", b"sec-websocket-key:\t").replace(b"==\r\n", b"== \r\n"),
    request("/chat").replace(b"Sec-WebSocket-Key: ", b"SEC-WEBSOCKET-KEY:"),
    request("/chat", "Cookie: a=b", "X-Sec-WebSocket-Key: no", "X: Sec-WebSocket-Key: no"),
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("verdict", [None, Accept(headers={"X-A": "1"}, state=5, expires_at=7.0), Reject(401)])
def test_the_fast_path_answers_like_the_full_one(head: bytes, verdict: Any) -> None:
    handlers = Handlers()
    handlers.on_upgrade = lambda request: verdict
    answer, admitted = fronted(handlers, lambda house: (house.front.answer(head, Pipe()), house.front.admit(head, KEY, "/chat", 0, Pipe())))
    assert admitted == answer


def test_compression_is_agreed_on_where_it_is_switched_on_and_offered() -> None:
    head = request("/", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    both = lambda house: (house.front.answer(head, Pipe()), house.front.admit(head, KEY, "/", 0, Pipe()))  # noqa: E731
    for answer in fronted(Handlers(), both, deflate=True):
        assert answer.deflate is not None
        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no" in answer.response
    for answer in (*fronted(Handlers(), both), fronted(Handlers(), lambda house: house.answer(request()), deflate=True)):
        assert answer.deflate is None
        assert b"Extensions" not in answer.response


def test_only_what_a_hook_or_a_proxy_or_compression_must_see_is_guarded() -> None:
    hooked = Handlers()
    hooked.on_upgrade = lambda request: None
    guarded = lambda house: [endpoint.guarded for endpoint in house.front.endpoints[: house.front.nobody]]  # noqa: E731
    assert fronted({"/a": hooked, "/b": Handlers()}, guarded) == [True, False]
    proxies = {"trusted_proxies": "192.0.2.1", "forwarded_header": "forwarded"}
    assert fronted({"/a": hooked, "/b": Handlers()}, guarded, **proxies) == [True, True]
    assert fronted({"/a": hooked, "/b": Handlers()}, guarded, deflate=True) == [True, True]


# ---- proxies and gates


def test_the_client_of_a_trusted_proxy_is_the_remote_address() -> None:
    settings = {"trusted_proxies": "192.0.2.1", "forwarded_header": "forwarded"}
    head = request("/", 'Forwarded: for="198.51.100.7:99"')
    for ask in (lambda house, pipe: house.front.answer(head, pipe), lambda house, pipe: house.front.admit(head, KEY, "/", 0, pipe)):
        assert fronted(Handlers(), lambda house, ask=ask: ask(house, Pipe()), **settings).remote_address[0] == "198.51.100.7"  # type: ignore[misc]
        stranger = Pipe(("203.0.113.9", 1))
        assert fronted(Handlers(), lambda house, ask=ask, pipe=stranger: ask(house, pipe), **settings).remote_address is None  # type: ignore[misc]


def test_one_client_of_a_proxy_too_many_is_turned_away() -> None:
    settings = {"trusted_proxies": "192.0.2.1", "forwarded_header": "forwarded", "max_connections_per_address": 1}

    def ask(house: House) -> list[bool]:
        head = request("/", "Forwarded: for=198.51.100.7")
        first = house.front.answer(head, Pipe())
        assert house.front.gate is not None
        house.front.gate.enter(("198.51.100.7", 0))  # as the engine does
        return [isinstance(answer, Upgrade) for answer in (first, house.front.answer(head, Pipe()))]

    assert fronted(Handlers(), ask, **settings) == [True, False]


def test_handshakes_over_their_rate_get_503_before_any_hook_is_asked() -> None:
    asked: list[Any] = []
    handlers = Handlers()
    handlers.on_upgrade = asked.append

    def ask(house: House) -> list[Any]:
        return [house.front.answer(request(), Pipe()) for _ in range(3)]

    answers = fronted(handlers, ask, handshakes_per_s=1.0, handshake_burst_s=1.0)
    assert [answer.response[9:12] for answer in answers] == [b"101", b"503", b"503"]
    assert answers[1].cause is Cause.SHED
    assert len(asked) == 1


def test_without_limits_no_engine_need_ask_a_gate() -> None:
    assert fronted(Handlers(), lambda house: house.front.gate) is None
    assert fronted(Handlers(), lambda house: house.front.gate, max_connections_per_address=5) is not None


# ---- what is told


def test_an_expiring_connection_is_handed_on_to_be_expired() -> None:
    class Connection:
        is_open = True

    connection = Connection()

    def ask(house: House) -> list[Any]:
        house.front.expires(connection, 10.0)
        house.expiry.tick(20.0)
        return house.expired

    assert fronted(Handlers(), ask) == [connection]


def test_a_stream_that_fails_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    fronted(Handlers(), lambda house: house.front.stream_failed(KeyError("x")))
    [record] = caplog.records
    assert "its connection is cut" in record.getMessage()


def test_paused_accepting_is_one_line_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    fronted(Handlers(), lambda house: house.front.accepting_paused("too many open files"))
    [record] = caplog.records
    assert "accepting is paused: too many open files; raise the limit" in record.getMessage()
