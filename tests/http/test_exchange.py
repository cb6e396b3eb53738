"""One request and its response, without a connection: the pipe is the test's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fronts import WAIT_S, House
from tests.http.asking import Answer, plain, read
from tests.pipes import Pipe
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.http.request import BodyLost, HttpRequest
from unlimitedws.http.response import Response

KINDS = ("plain", "async", "blocking")
CHUNKED = "Transfer-Encoding: chunked"


def of_kind(kind: str, function: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    async def later(request: HttpRequest) -> Any:
        await asyncio.sleep(0)
        await request.body()
        return function(request)

    return {"plain": function, "async": later, "blocking": blocking(lambda request: function(request))}[kind]


def run(handlers: Handlers, scene: Callable[[House], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
    async def play() -> Any:
        house = House({"/ws": handlers}, **settings)
        try:
            return await scene(house)
        finally:
            await house.idle()
            house.pool.close()

    return asyncio.run(play())


def routed(method: str, function: Callable[..., Any]) -> Handlers:
    handlers = Handlers()
    handlers.route(method, "/")(function)
    return handlers


def fetched(function: Callable[..., Any], said: bytes, *data: bytes, **settings: Any) -> tuple[Answer, Pipe]:
    """The response of a route to the request `said`, behind which `data` comes, and the pipe at its end."""
    method = said.split(b" ")[0].decode()

    async def scene(house: House) -> tuple[Answer, Pipe]:
        head, _, behind = said.partition(b"\r\n\r\n")
        pipe = await house.answered(head + b"\r\n\r\n", *([behind] if behind else []), *data)
        return read(pipe.written, method), pipe

    result: tuple[Answer, Pipe] = run(routed("GET" if method == "HEAD" else method, function), scene, **settings)
    return result


# ---- what comes back


@pytest.mark.parametrize("kind", KINDS)
def test_a_route_of_each_kind_answers_and_the_connection_goes_on(kind: str) -> None:
    answer, pipe = fetched(of_kind(kind, lambda request: f"<p>{request.path}"), plain())
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"<p>/", "text/html; charset=utf-8")
    assert answer.headers["content-length"] == "4"
    assert answer.headers["date"].endswith("GMT")
    assert "connection" not in answer.headers
    assert (pipe.ending, pipe.rest) == ("restart", b"")


def test_a_route_may_take_nothing() -> None:
    assert fetched(lambda: b"x", plain())[0].body == b"x"


def test_status_type_and_headers_are_sent() -> None:
    answer, _ = fetched(lambda: Response("a,b", "text/csv", 303, [("Location", "/new"), ("X-A", "1")]), plain())
    assert (answer.status, answer.headers["location"], answer.headers["x-a"], answer.body) == (303, "/new", "1", b"a,b")


@pytest.mark.parametrize("response", [Response("hello"), Response(iter([b"hel", b"lo"])), Response(b"x" * 200_000)])
def test_the_answer_to_head_is_that_to_get_without_its_body(response: Response) -> None:
    answer, pipe = fetched(lambda: response, plain("HEAD"))
    assert (answer.status, answer.body, pipe.ending) == (200, b"", "restart")
    if isinstance(response.body, str | bytes):
        assert answer.headers["content-length"] == str(len(response.body))


@pytest.mark.parametrize("body", ["ignored", b"x" * 200_000, iter([b"x"])])
def test_no_content_has_neither_body_nor_length_nor_type(body: Any) -> None:
    answer, pipe = fetched(lambda: Response(body, status=204), plain())
    assert (answer.status, answer.body, pipe.ending) == (204, b"", "restart")
    assert not {"content-length", "content-type", "transfer-encoding"} & answer.headers.keys()


def test_a_file_is_sent_whole_whatever_its_size(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "data.bin").write_bytes(content)
    answer, pipe = fetched(lambda: tmp_path / "data.bin", plain())
    assert (answer.body, answer.headers["content-length"], pipe.ending) == (content, "256000", "restart")


def raising(request: Any) -> Any:
    raise KeyError("the database")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (raising, "the database"),
        (lambda request: 3, "not int"),
        (lambda request: None, "not NoneType"),
        (lambda request: exit(1), "SystemExit"),
        (lambda request: Path("/nowhere/at/all"), "No such file"),
    ],
)
def test_a_route_that_fails_is_answered_with_500_and_logged(
    kind: str, function: Callable[..., Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer, pipe = fetched(of_kind(kind, function), plain("GET", "/?token=secret", "Cookie: a=secret"))
    assert (answer.status, pipe.ending) == (500, "restart")
    assert text.encode() not in answer.body
    [record] = caplog.records
    assert record.getMessage().startswith("GET / (")
    assert text in caplog.text
    assert "secret" not in caplog.text


# ---- streams


def counting(to: int) -> Iterator[bytes]:
    for number in range(to):
        yield b"%d," % number


async def counting_later(to: int) -> AsyncIterator[str]:
    for number in range(to):
        await asyncio.sleep(0)
        yield f"{number},"


EXPECTED = b"".join(counting(100))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [counting, counting_later])
def test_an_iterator_is_sent_in_chunks(kind: str, body: Callable[[int], Any]) -> None:
    answer, pipe = fetched(of_kind(kind, lambda request: Response(body(100), "text/plain")), plain())
    assert (answer.body, answer.headers["transfer-encoding"], pipe.ending) == (EXPECTED, "chunked", "restart")


def test_the_pieces_of_a_blocking_route_are_made_in_threads() -> None:
    threads: set[str] = set()

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            threads.add(threading.current_thread().name)
            yield b"x"

    assert fetched(blocking(lambda: Response(pieces())), plain())[0].body == b"xxx"
    assert all(name.startswith("unlimitedws-blocking") for name in threads)


def test_no_more_is_made_than_the_peer_reads() -> None:
    made: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield b"x"

    async def scene(house: House) -> None:
        pipe = Pipe()
        pipe.is_full = True
        pipe.carry(house.front.answer(plain(), pipe))  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
        assert made == [0]  # one is in hand when it is seen that there is no room
        pipe.drain()
        await house.until(lambda: pipe.ending)
        assert (made, read(pipe.written).body) == ([0, 1, 2], b"xxx")

    run(routed("GET", lambda: Response(pieces())), scene)


def test_a_large_body_in_memory_waits_for_its_reader_too() -> None:
    async def scene(house: House) -> None:
        pipe = Pipe()
        pipe.is_full = True
        pipe.carry(house.front.answer(plain(), pipe))  # type: ignore[arg-type]
        await asyncio.sleep(0.02)
        assert len(pipe.written) < 200_000
        pipe.drain()
        await house.until(lambda: pipe.ending)
        assert len(read(pipe.written).body) == 1_000_000

    run(routed("GET", lambda: b"x" * 1_000_000), scene)


def test_a_peer_that_stops_reading_a_stream_is_cut() -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    async def scene(house: House) -> None:
        pipe = Pipe()
        pipe.is_full = True
        pipe.carry(house.front.answer(plain(), pipe))  # type: ignore[arg-type]
        await house.until(lambda: pipe.ending)
        assert (pipe.ending, closed) == ("abort", [True])

    run(routed("GET", lambda: Response(pieces())), scene, http_timeout_s=0.1)


@pytest.mark.parametrize("waits", [True, False])
def test_a_stream_whose_peer_went_is_closed(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[bool] = []

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x"
        finally:
            closed.append(True)

    async def scene(house: House) -> None:
        pipe = Pipe()
        pipe.is_full = waits
        pipe.carry(house.front.answer(plain(), pipe))  # type: ignore[arg-type]
        await house.until(lambda: pipe.written)
        pipe.lose()
        await house.until(lambda: closed)

    run(routed("GET", lambda: Response(pieces())), scene)
    assert caplog.records == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_fails_half_way_is_cut_so_that_nobody_takes_it_for_whole(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[Any]:
        yield b"x"
        raise KeyError("the database")

    async def scene(house: House) -> str | None:
        return (await house.answered(plain())).ending  # type: ignore[no-any-return]

    assert run(routed("GET", of_kind(kind, lambda request: Response(pieces()))), scene) == "abort"
    assert "the database" in caplog.text


def test_a_piece_of_another_type_is_the_routes_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(house: House) -> str | None:
        return (await house.answered(plain())).ending  # type: ignore[no-any-return]

    assert run(routed("GET", lambda: Response(iter([b"x", 5]))), scene) == "abort"  # type: ignore[list-item]
    assert "not int" in caplog.text


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 300_000)

    async def scene(house: House) -> None:
        pipe = Pipe()
        pipe.is_full = True
        pipe.carry(house.front.answer(plain(), pipe))  # type: ignore[arg-type]
        await house.until(lambda: pipe.written)
        path.write_bytes(b"")
        pipe.drain()
        await house.until(lambda: pipe.ending)
        assert pipe.ending == "abort"

    run(routed("GET", lambda: path), scene)
    assert "became shorter" in caplog.text


# ---- the body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("headers", "body"),
    [(["Content-Length: 5"], b"hello"), ([CHUNKED], b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n")],
)
def test_a_body_is_read_however_it_comes(kind: str, headers: list[str], body: bytes) -> None:
    head = plain("POST", "/", *headers)
    function = of_kind(kind, lambda request: request.body_bytes)
    for cut in range(len(body) + 1):
        answer, pipe = fetched(function, head, *(part for part in (body[:cut], body[cut:]) if part))
        assert (answer.body, pipe.ending, pipe.rest) == (b"hello", "restart", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_behind_a_request_is_the_next_one(kind: str) -> None:
    following = plain("GET", "/next")
    function = of_kind(kind, lambda request: request.body_bytes)
    for data in ((b"hello" + following,), (b"hel", b"lo" + following[:9], following[9:]), (b"hello", following)):
        answer, pipe = fetched(function, plain("POST", "/", "Content-Length: 5"), *data)
        assert (answer.body, pipe.ending) == (b"hello", "restart")
        assert following.startswith(pipe.rest)  # the rest waits in the kernel, or comes after the answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("setting", [0, 4])
def test_a_body_over_the_limit_is_413(kind: str, setting: int) -> None:
    function = of_kind(kind, lambda request: pytest.fail("the route was called"))
    announced, pipe = fetched(function, plain("POST", "/", "Content-Length: 5"), http_body_bytes=setting)
    assert (announced.status, announced.headers["connection"], pipe.ending) == (413, "close", "close")
    counted, pipe = fetched(function, plain("POST", "/", CHUNKED), b"3\r\nabc\r\n", b"3\r\ndef\r\n", http_body_bytes=setting)
    assert (counted.status, counted.headers["connection"], pipe.ending) == (413, "close", "close")


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_chunked_body_over_the_limit_that_comes_at_once_is_413(kind: str) -> None:
    function = of_kind(kind, lambda request: pytest.fail("the route was called"))
    answer, pipe = fetched(function, plain("POST", "/", CHUNKED), b"6\r\nabcdef\r\n0\r\n\r\n", http_body_bytes=5)
    assert (answer.status, pipe.ending) == (413, "close")


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_of_exactly_the_limit_is_read(kind: str) -> None:
    assert fetched(of_kind(kind, lambda request: request.body_bytes), plain("POST", "/", body=b"12345"), http_body_bytes=5)[0].status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_dawdles_is_408(kind: str) -> None:
    function = of_kind(kind, lambda request: pytest.fail("the route was called"))
    answer, pipe = fetched(function, plain("POST", "/", "Content-Length: 5"), b"hell", http_timeout_s=0.1)
    assert (answer.status, answer.headers["connection"], pipe.ending) == (408, "close", "close")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [b"x\r\n", b"-1\r\n", b"5\nhello\r\n0\r\n\r\n", b"1\r\nab\r\n", b"fffffffffffffffffffffffff\r\n"])
def test_a_body_that_is_framed_wrongly_is_400(kind: str, bad: bytes) -> None:
    function = of_kind(kind, lambda request: pytest.fail("the route was called"))
    answer, pipe = fetched(function, plain("POST", "/", CHUNKED), bad)
    assert (answer.status, pipe.ending) == (400, "close")


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_chunk_extension_is_refused(kind: str) -> None:
    function = of_kind(kind, lambda request: pytest.fail("the route was called"))
    answer, pipe = fetched(function, plain("POST", "/", CHUNKED), b"5;" + b"x" * 100_000)
    assert (answer.status // 100, pipe.ending) == (4, "close")


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_waits_is_told_to_go_on_when_its_body_is_wanted(kind: str) -> None:
    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
        await house.until(lambda: pipe.written)
        assert pipe.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        pipe.receive(b"hello")
        await house.until(lambda: pipe.ending)
        answer = read(pipe.written)
        assert (answer.informed, answer.body, pipe.ending) == ([100], b"hello", "restart")

    run(routed("POST", of_kind(kind, lambda request: request.body_bytes)), scene)


def test_a_body_that_nobody_wants_is_not_asked_for_and_the_connection_ends() -> None:
    async def refuse(request: HttpRequest) -> Response:
        return Response("no", status=403)

    answer, pipe = fetched(refuse, plain("POST", "/", "Content-Length: 5", "Expect: 100-continue"))
    assert (answer.informed, answer.status, answer.headers["connection"], pipe.ending) == ([], 403, "close", "close")


def test_what_comes_of_a_body_before_it_is_wanted_is_kept_and_the_rest_stays_outside() -> None:
    go = asyncio.Event()

    async def late(request: HttpRequest) -> bytes:
        await go.wait()
        return await request.body()

    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", "Content-Length: 10"), b"hello")
        assert pipe.is_paused
        go.set()
        await house.until(lambda: not pipe.is_paused)
        pipe.receive(b"world")
        await house.until(lambda: pipe.ending)
        assert read(pipe.written).body == b"helloworld"

    run(routed("POST", late), scene)


def test_a_peer_that_goes_before_its_body_is_there_is_told_to_the_route(caplog: pytest.LogCaptureFixture) -> None:
    told: list[BaseException] = []

    async def waiting(request: HttpRequest) -> bytes:
        try:
            return await request.body()
        except BodyLost as error:
            told.append(error)
            raise

    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", "Content-Length: 10"), b"hello")
        await asyncio.sleep(0.01)
        pipe.lose()
        await house.idle()

    run(routed("POST", waiting), scene)
    assert len(told) == 1
    assert caplog.records == []


def test_a_route_whose_peer_went_runs_to_its_end_and_is_answered_by_nobody() -> None:
    finished: list[bool] = []

    async def slow() -> bytes:
        await asyncio.sleep(0.02)
        finished.append(True)
        return b"x"

    async def scene(house: House) -> Pipe:
        pipe = house.answer(plain())
        await asyncio.sleep(0)
        pipe.lose()
        await house.idle()
        return pipe  # type: ignore[no-any-return]

    assert run(routed("GET", slow), scene).written == b""
    assert finished == [True]


def test_a_peer_that_only_ends_its_side_still_gets_its_answer_and_then_the_end() -> None:
    go = asyncio.Event()

    async def slow() -> bytes:
        await go.wait()
        return b"x"

    async def scene(house: House) -> None:
        pipe = house.answer(plain())
        pipe.stream.ended()
        go.set()
        await house.until(lambda: pipe.ending)
        answer = read(pipe.written)
        assert (answer.body, answer.headers["connection"], pipe.ending) == (b"x", "close", "close")

    run(routed("GET", slow), scene)


def test_a_peer_that_ends_its_side_in_the_middle_of_its_body_is_cut() -> None:
    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", "Content-Length: 10"), b"hello")
        pipe.stream.ended()
        assert pipe.ending == "abort"

    run(routed("POST", lambda request: b""), scene)


# ---- the connection


def test_a_client_that_asks_for_it_is_closed() -> None:
    for function in (lambda: "x", lambda: Response(iter([b"x"]))):
        answer, pipe = fetched(function, plain("GET", "/", "Connection: close"))
        assert (answer.headers["connection"], pipe.ending) == ("close", "close")


def test_connections_are_closed_after_their_answer_while_the_worker_stops() -> None:
    async def scene(house: House) -> None:
        house.front.draining = True
        pipe = house.answer(plain())
        assert (read(pipe.written).headers["connection"], pipe.ending) == ("close", "close")

    run(routed("GET", lambda: "x"), scene)


def test_an_offer_to_speak_another_protocol_is_let_pass() -> None:
    for method in ("GET", "POST"):
        answer, pipe = fetched(lambda: "x", plain(method, "/", "Upgrade: h2c", "Connection: Upgrade"))
        assert (answer.status, answer.body, pipe.ending) == (200, b"x", "restart")


@pytest.mark.parametrize("kind", ["async", "blocking"])
def test_no_more_routes_run_at_once_than_the_setting_says(kind: str) -> None:
    running: list[int] = []
    most: list[int] = []
    go = threading.Event()

    async def slow() -> bytes:
        running.append(1)
        most.append(len(running))
        while not go.is_set():
            await asyncio.sleep(0.001)
        running.pop()
        return b"x"

    @blocking
    def stuck() -> bytes:
        running.append(1)
        most.append(len(running))
        assert go.wait(WAIT_S)
        running.pop()
        return b"x"

    async def scene(house: House) -> None:
        pipes = [house.answer(plain()) for _ in range(5)]
        gone = house.answer(plain())
        gone.lose()
        await house.until(lambda: len(running) == 2)
        go.set()
        await house.until(lambda: all(pipe.ending for pipe in pipes))
        assert (max(most), len(most)) == (2, 5)

    run(routed("GET", slow if kind == "async" else stuck), scene, http_running=2)


def test_who_sends_or_reads_slowly_takes_no_turn_from_the_others() -> None:
    async def reading(request: HttpRequest) -> bytes:
        return await request.body()

    handlers = Handlers()
    handlers.post("/")(reading)
    handlers.get("/")(blocking(lambda: Response(iter([b"x", b"y"]))))

    async def scene(house: House) -> None:
        sending = house.answer(plain("POST", "/", "Content-Length: 5"), b"hell")
        stuck = Pipe()
        stuck.is_full = True
        stuck.carry(house.front.answer(plain(), stuck))  # type: ignore[arg-type]
        await house.until(lambda: stuck.written)
        for _ in range(2):
            other = await house.answered(plain("POST", "/", body=b"").replace(b"Host", b"Content-Length: 2\r\nHost"), b"ok")
            assert read(other.written).body == b"ok"
        sending.receive(b"o")
        await house.until(lambda: sending.ending)
        assert read(sending.written).body == b"hello"
        stuck.drain()
        await house.until(lambda: stuck.ending)
        assert house.front._site._house.turns.taken == 0

    run(handlers, scene, http_running=1)


def test_routes_that_read_slowly_never_run_more_than_the_setting_says_at_once() -> None:
    running: list[int] = []
    most: list[int] = []

    async def busy(request: HttpRequest) -> bytes:
        await request.body()
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.pop()
        return b""

    async def scene(house: House) -> None:
        pipes = [house.answer(plain("POST", "/", "Content-Length: 1")) for _ in range(20)]
        await asyncio.sleep(0.01)
        for pipe in pipes:
            pipe.receive(b"x")
        pipes[3].lose()
        await house.until(lambda: all(pipe.ending for pipe in pipes))
        await house.idle()
        assert (max(most), house.front._site._house.turns.taken) == (2, 0)

    run(routed("POST", busy), scene, http_running=2)


def test_a_route_may_read_its_body_twice_at_once() -> None:
    async def reading(request: HttpRequest) -> bytes:
        one, other = await asyncio.gather(request.body(), request.body())
        assert one is not None
        return one + other

    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", "Content-Length: 2"))
        await asyncio.sleep(0.01)
        pipe.receive(b"ab")
        await house.until(lambda: pipe.ending)
        await house.idle()
        assert (read(pipe.written).body, house.front._site._house.turns.taken) == (b"abab", 0)

    run(routed("POST", reading), scene, http_running=1)


def test_a_length_that_is_said_twice_is_one_length() -> None:
    said = plain("POST", "/", "Content-Length: 5", "Content-Length: 5")
    assert fetched(lambda request: request.body_bytes, said, b"hello")[0].body == b"hello"


def test_a_body_that_passes_the_limit_while_the_route_waits_for_it_is_413() -> None:
    async def reading(request: HttpRequest) -> bytes:
        return await request.body()

    async def scene(house: House) -> None:
        pipe = house.answer(plain("POST", "/", CHUNKED))
        await asyncio.sleep(0.01)
        pipe.receive(b"6\r\nabcdef\r\n0\r\n\r\n")
        assert (read(pipe.written).status, pipe.ending) == (413, "close")

    run(routed("POST", reading), scene, http_body_bytes=5)


def test_an_access_line_tells_of_each_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "unlimitedws.access")
    fetched(lambda: Response("hello", status=203), plain("GET", "/?token=secret"), access_log=True)
    [record] = caplog.records
    assert "GET 203 out=5" in record.getMessage()
    assert "secret" not in record.getMessage()
