from __future__ import annotations

from typing import Any

import pytest

from tests.peer import request
from unlimitedws.app import App
from unlimitedws.front import Front
from unlimitedws.handlers import Handlers
from unlimitedws.wire.closing import Cause


def front_of(given: Any) -> Front:
    return Front(App.of(given), ())


def plain(method: str = "GET", target: str = "/") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


@pytest.mark.parametrize(("target", "path"), [(b"/", "/"), (b"/caf%C3%A9", "/café"), (b"/a%2Fb", "/a/b"), (b"/a+b", "/a+b"), (b"//", "//")])
def test_a_target_leads_to_its_decoded_path(target: bytes, path: str) -> None:
    assert front_of(Handlers()).route(target) == (path, 0)


@pytest.mark.parametrize("target", [b"/%ff", b"/%zz", b"/%4"])
def test_a_target_that_cannot_be_decoded_leads_nowhere(target: bytes) -> None:
    assert front_of(Handlers()).route(target) is None


def test_a_mapping_routes_exactly_its_paths() -> None:
    front = front_of({"/chat": Handlers(), "/café": Handlers()})
    assert [front.route(target) for target in (b"/chat", b"/caf%C3%A9", b"/chat/", b"/")] == [("/chat", 0), ("/café", 1), None, None]


def test_an_upgrade_names_path_endpoint_and_subprotocol() -> None:
    front = front_of({"/a": Handlers(), "/b": Handlers(subprotocols=("v2", "v1"))})
    answer = front.answer(request("/b?x=1", "Sec-WebSocket-Protocol: v1, v2"))
    assert (answer.path, answer.endpoint, answer.subprotocol) == ("/b", 1, "v2")  # type: ignore[union-attr]


def test_a_page_answers_get_and_head_of_its_path() -> None:
    handlers = Handlers()
    handlers.get("/über uns")(lambda: "hello")
    front = front_of(handlers)
    for method, ending in (("GET", b"\r\n\r\nhello"), ("HEAD", b"\r\n\r\n")):
        for target in ("/%C3%BCber%20uns?x=1", "http://test/%C3%BCber%20uns"):
            answer = front.answer(plain(method, target))
            assert answer.response.startswith(b"HTTP/1.1 200 OK")
            assert answer.response.endswith(ending)
            assert answer.cause is Cause.HTTP_ANSWERED  # type: ignore[union-attr]


def test_a_page_and_a_websocket_may_share_a_path() -> None:
    handlers = Handlers()
    handlers.get("/")(lambda: "page")
    front = front_of({"/": handlers})
    assert front.answer(plain()).response.endswith(b"page")
    assert front.answer(request("/")).response.startswith(b"HTTP/1.1 101 ")


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
    answer = front_of(given).answer(head)
    assert answer.response.split(b" ")[1] == status
    assert answer.cause is Cause.HANDSHAKE_REFUSED  # type: ignore[union-attr]


def raises() -> Any:
    raise KeyError("the database")


@pytest.mark.parametrize(("function", "text"), [(raises, "the database"), (lambda: 3, "not int")])
def test_a_page_that_fails_is_answered_with_500_and_logged(function: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    handlers.get("/status")(function)
    answer = front_of(handlers).answer(plain("GET", "/status"))
    assert answer.response.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert text.encode() not in answer.response
    assert "the page /status" in caplog.text
    assert text in caplog.text


def test_paused_accepting_is_one_line_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    front_of(Handlers()).accepting_paused("too many open files")
    [record] = caplog.records
    assert "accepting is paused: too many open files; raise the limit" in record.getMessage()
