"""Which part of the site answers, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fronts import House
from tests.http.asking import Answer, plain, read
from unlimitedws.engine.contract import Refusal
from unlimitedws.handlers import Handlers
from unlimitedws.http.request import HttpRequest
from unlimitedws.wire.closing import Cause


def asked(given: Any, said: bytes, **settings: Any) -> Any:
    """The answer to a request: as read by a client, or a `Refusal`."""

    async def scene() -> Any:
        house = House(given, **settings)
        found = await house.answered(said)
        await house.idle()
        house.pool.close()
        return found if isinstance(found, Refusal) else read(found.written, said.split(b" ")[0].decode())

    return asyncio.run(scene())


def status(answer: Any) -> int:
    return int(answer.response[9:12]) if isinstance(answer, Refusal) else answer.status


@pytest.fixture
def handlers() -> Handlers:
    handlers = Handlers()
    handlers.get("/page")(lambda: "page")
    handlers.post("/form")(lambda: "form")
    handlers.get("/über uns")(lambda: "about")
    return handlers


@pytest.mark.parametrize("target", ["/page", "/page?x=1", "http://test/page"])
def test_a_route_answers_its_path(handlers: Handlers, target: str) -> None:
    assert asked(handlers, plain("GET", target)).body == b"page"


def test_paths_are_matched_decoded(handlers: Handlers) -> None:
    assert asked(handlers, plain("GET", "/%C3%BCber%20uns")).body == b"about"


def test_a_route_sees_who_asks_even_behind_a_proxy() -> None:
    seen: list[Any] = []
    handlers = Handlers()

    @handlers.get("/")
    def look(request: HttpRequest) -> str:
        seen.append((request.remote_address[0], request.scheme, request.path))
        return ""

    said = plain("GET", "/", "X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https")
    asked(handlers, said)
    asked(handlers, said, trusted_proxies="192.0.2.1", forwarded_header="x-forwarded-for")
    assert seen == [("192.0.2.1", "http", "/"), ("198.51.100.7", "https", "/")]


@pytest.mark.parametrize(
    ("given", "said", "expected", "allow"),
    [
        ("everywhere", plain("GET", "/"), 426, None),
        ("everywhere", plain("GET", "/form"), 426, None),
        ("everywhere", plain("POST", "/"), 405, "GET"),
        ("everywhere", plain("PUT", "/form"), 405, "POST"),
        ("one path", plain("GET", "/ws"), 426, None),
        ("one path", plain("GET", "/nowhere"), 404, None),
        ("one path", plain("POST", "/nowhere"), 404, None),
        ("one path", plain("GET", "/form"), 405, "POST"),
        ("one path", plain("POST", "/page"), 405, "GET, HEAD"),
        ("one path", plain("HEAD", "/form"), 405, "POST"),
        ("one path", plain("CONNECT", "/page"), 405, "GET, HEAD"),
    ],
)
def test_what_no_route_answers_is_refused_with_the_reason(
    handlers: Handlers, given: str, said: bytes, expected: int, allow: str | None
) -> None:
    refused = asked(handlers if given == "everywhere" else {"/ws": handlers}, said)
    assert status(refused) == expected
    assert refused.cause is Cause.HANDSHAKE_REFUSED
    lines = refused.response.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert (f"Allow: {allow}".encode() in lines) is (allow is not None)
    assert (b"Upgrade: websocket" in lines) is (expected == 426)
    assert refused.response.endswith(b"\r\n\r\n") is said.startswith(b"HEAD")


def test_health_answers_where_it_is_switched_on(handlers: Handlers) -> None:
    assert status(asked({"/ws": handlers}, plain("GET", "/healthz"))) == 404
    answer = asked({"/ws": handlers}, plain("GET", "/healthz"), health_path="/healthz")
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, b"ok\n", "no-store")


def test_health_tells_that_the_worker_stops() -> None:
    async def scene() -> Answer:
        house = House(Handlers(), health_path="/healthz")
        house.front.draining = True
        return read(house.answer(plain("GET", "/healthz")).written)

    answer = asyncio.run(scene())
    assert (answer.status, answer.body, answer.headers["connection"]) == (503, b"draining\n", "close")


def test_a_route_of_the_app_goes_before_health(handlers: Handlers) -> None:
    assert asked(handlers, plain("GET", "/page"), health_path="/page").body == b"page"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "a.txt").write_text("file")
    (tmp_path / "page").write_text("never seen")
    return str(tmp_path)


def test_files_of_the_folder_are_served_behind_the_routes(handlers: Handlers, folder: str) -> None:
    answer = asked(handlers, plain("GET", "/a.txt"), static_dir=folder, static_path="/")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"file", "4")
    head = asked(handlers, plain("HEAD", "/a.txt"), static_dir=folder, static_path="/")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "4")
    assert asked(handlers, plain("GET", "/page"), static_dir=folder, static_path="/").body == b"page"


def test_a_part_and_an_unchanged_file_are_answered_so(handlers: Handlers, folder: str) -> None:
    settings = {"static_dir": folder}
    part = asked(handlers, plain("GET", "/static/a.txt", "Range: bytes=1-2"), **settings)
    assert (part.status, part.body) == (206, b"il")
    unchanged = asked(handlers, plain("GET", "/static/a.txt", "If-None-Match: *"), **settings)
    assert (unchanged.status, unchanged.body, "content-type" in unchanged.headers) == (304, b"", False)


@pytest.mark.parametrize(("given", "expected"), [("everywhere", 426), ("one path", 404)])
def test_where_there_is_no_file_the_answer_is_that_without_a_folder(handlers: Handlers, folder: str, given: str, expected: int) -> None:
    app: Any = handlers if given == "everywhere" else {"/ws": handlers}
    for target in ("/static/none", "/static/../a.txt"):
        refused = asked(app, plain("GET", target), static_dir=folder)
        assert (status(refused), refused.cause) == (expected, Cause.HANDSHAKE_REFUSED)


def test_a_file_is_only_read(handlers: Handlers, folder: str) -> None:
    assert status(asked({"/ws": handlers}, plain("POST", "/static/a.txt"), static_dir=folder)) == 404
