"""Plain HTTP and slow handshakes over real connections: both engines, both loops."""

from __future__ import annotations

import asyncio
import gc
import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.exceptions import InvalidStatus

from tests.http.asking import plain
from tests.peer import TEXT, pack, request
from tests.serving import WAIT_S, Served, close_code, eventually, head, served, upgrade
from unlimitedws.functions import blocking
from unlimitedws.handlers import Handlers
from unlimitedws.http.request import HttpRequest
from unlimitedws.http.response import Response
from unlimitedws.request import Request
from unlimitedws.verdict import Accept, Reject
from unlimitedws.wire.closing import Cause
from unlimitedws.worker import HANDSHAKES_S

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def loop_factory(request: pytest.FixtureRequest) -> Any:
    return LOOPS[request.param]


@pytest.fixture(scope="module", autouse=True)
def _libuv_is_set_up() -> None:
    uvloop.run(asyncio.sleep(0))  # its first loop opens descriptors that stay with the process


@contextmanager
def browsing(there: Served) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection("127.0.0.1", there.port, timeout=WAIT_S)
    try:
        yield client
    finally:
        client.close()


def fetch(client: http.client.HTTPConnection, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    client.request(method, target, body, headers)
    response = client.getresponse()
    return response.status, response.read()


def site() -> Handlers:
    handlers = Handlers()
    handlers.get("/plain")(lambda: "plain")

    @handlers.post("/echo")
    async def echo(request: HttpRequest) -> bytes:
        return await request.body()

    @handlers.get("/slow")
    @blocking
    def slow() -> str:
        return "slow"

    @handlers.get("/stream")
    async def stream() -> Response:
        async def pieces() -> Any:
            for _ in range(200):
                yield b"x" * 50_000

        return Response(pieces())

    handlers.get("/large")(lambda: b"y" * 3_000_000)
    handlers.on_message = lambda conn, message: conn.send(message)
    return handlers


def test_many_requests_go_over_one_connection(engine_name: str, loop_factory: Any, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"z" * 1_000_000)
    with served(site(), engine=engine_name, loop_factory=loop_factory, static_dir=str(tmp_path), health_path="/healthz") as there:
        with browsing(there) as client:
            for _ in range(2):
                assert fetch(client, "GET", "/plain") == (200, b"plain")
                assert fetch(client, "HEAD", "/plain") == (200, b"")
                assert fetch(client, "GET", "/slow") == (200, b"slow")
                assert fetch(client, "POST", "/echo", b"e" * 500_000) == (200, b"e" * 500_000)
                assert fetch(client, "POST", "/echo", iter([b"e" * 9] * 9)) == (200, b"e" * 81)
                assert fetch(client, "GET", "/stream") == (200, b"x" * 10_000_000)
                assert fetch(client, "GET", "/large") == (200, b"y" * 3_000_000)
                assert fetch(client, "GET", "/static/a.bin") == (200, b"z" * 1_000_000)
                assert fetch(client, "GET", "/healthz") == (200, b"ok\n")
            assert there.counters["connections_accepted"] == 1
            eventually(lambda: there.counters["http_requests"] == 18)
            assert there.counters["handshake_failures"] == 0
        eventually(lambda: there.counters["closes_http_answered"] == 1)
        assert there.counters["handshake_failures"] == 0


def test_pipelined_requests_are_answered_in_their_order(engine_name: str) -> None:
    with served(site(), engine=engine_name) as there, there.socket() as peer:
        asked = [plain("GET", "/slow"), plain("POST", "/echo", body=b"one"), plain("GET", "/plain"), plain("POST", "/echo", body=b"two")]
        peer.sendall(b"".join(asked))
        received = b""
        while received.count(b"HTTP/1.1 200 OK") < 4 or not received.endswith(b"two"):
            more = peer.recv(65536)
            assert more, received
            received += more
        places = [received.index(b"\r\n\r\n" + body) for body in (b"slow", b"one", b"plain", b"two")]
        assert places == sorted(places)


def test_a_request_may_come_byte_by_byte(engine_name: str) -> None:
    with served(site(), engine=engine_name) as there, there.socket() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in plain("POST", "/echo", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n":
            peer.sendall(bytes((byte,)))
        assert head(peer).startswith(b"HTTP/1.1 200 OK\r\n")
        assert peer.recv(3) == b"abc"


def test_a_connection_may_become_a_websocket_after_some_requests(engine_name: str) -> None:
    with served(site(), engine=engine_name) as there, there.socket() as peer:
        peer.sendall(plain("GET", "/plain"))
        assert head(peer).startswith(b"HTTP/1.1 200 OK\r\n")
        assert peer.recv(5) == b"plain"
        upgrade(peer)
        eventually(lambda: there.counters["http_requests"] == there.counters["connections_open"] == 1)


def test_a_silent_connection_between_requests_is_closed_and_no_failure(engine_name: str) -> None:
    with served(site(), engine=engine_name, handshake_timeout_s=0.2) as there, there.socket() as peer:
        peer.sendall(plain("GET", "/plain"))
        head(peer)
        assert peer.recv(5) == b"plain"
        assert peer.recv(1) == b""
        eventually(lambda: there.counters["closes_http_answered"] == 1)
        assert there.counters["handshake_failures"] == 0


def test_a_client_that_reads_slowly_gets_a_stream_whole_and_it_is_not_made_ahead(engine_name: str) -> None:
    made: list[int] = []
    handlers = Handlers()

    @handlers.get("/")
    async def stream() -> Response:
        async def pieces() -> Any:
            for number in range(500):
                made.append(number)
                yield b"x" * 50_000

        return Response(pieces())

    with served(handlers, engine=engine_name, sndbuf_bytes=65536) as there, there.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.sendall(plain())
        eventually(lambda: made)
        last = -1
        while last != len(made):  # until it waits for us
            last = len(made)
            threading.Event().wait(0.1)
        assert len(made) < 500
        assert there.counters["queued_bytes"] < 1 << 20
        received = 0
        head(peer)
        while not (data := peer.recv(1 << 20)).endswith(b"\r\n0\r\n\r\n"):
            assert data
            received += len(data)
        assert len(made) == 500


def test_a_client_that_still_reads_the_response_is_not_taken_for_a_silent_one(engine_name: str) -> None:
    handlers = Handlers()
    handlers.get("/")(lambda: b"x" * 60_000)
    with served(handlers, engine=engine_name, sndbuf_bytes=4096, handshake_timeout_s=0.5) as there, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(WAIT_S)
        peer.connect(("127.0.0.1", there.port))
        peer.sendall(plain())
        head(peer)
        left = 60_000
        while left:  # 1.2 s in all, which is longer than the deadline
            data = peer.recv(min(left, 5000), socket.MSG_WAITALL)
            assert data, f"cut with {left} bytes unread"
            left -= len(data)
            threading.Event().wait(0.1)
        peer.sendall(plain("GET", "/", "Connection: close"))
        assert head(peer).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_goes_in_the_middle_leaves_nothing(engine_name: str) -> None:
    with served(site(), engine=engine_name) as there:
        for target in ("/stream", "/large", "/plain"):
            with there.socket() as peer:
                peer.sendall(plain("GET", target))
                peer.recv(1)
        with there.socket() as peer:
            peer.sendall(plain("POST", "/echo", "Content-Length: 10") + b"half")
        eventually(lambda: there.counters["handshakes_pending"] == 0)


def test_a_body_over_the_limit_is_answered_while_it_is_still_being_sent(engine_name: str) -> None:
    with served(site(), engine=engine_name, http_body_bytes=1000) as there, browsing(there) as client:
        client.putrequest("POST", "/echo")
        client.putheader("Transfer-Encoding", "chunked")
        client.endheaders()
        client.send(b"fff0\r\n" + b"x" * 0xFFF0)
        assert client.getresponse().status == 413


def test_a_wrong_request_behind_a_good_one_is_refused(engine_name: str) -> None:
    with served(site(), engine=engine_name) as there, there.socket() as peer:
        peer.sendall(plain("GET", "/plain") + b"GET /plain HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert head(peer).startswith(b"HTTP/1.1 200 OK\r\n")
        assert peer.recv(5) == b"plain"
        assert head(peer).startswith(b"HTTP/1.1 400 ")


def test_a_stop_waits_for_a_response_that_is_being_made(engine_name: str) -> None:
    asked, go = threading.Event(), threading.Event()
    handlers = Handlers()

    @handlers.get("/")
    @blocking
    def slow() -> str:
        asked.set()
        assert go.wait(WAIT_S)
        return "done"

    with served(handlers, engine=engine_name) as there, browsing(there) as client, ThreadPoolExecutor(1) as threads:
        client.request("GET", "/")
        assert asked.wait(WAIT_S)
        stop = threads.submit(there.run, there.server.stop())
        eventually(lambda: there.server.worker._front.draining)
        threading.Event().wait(2 * HANDSHAKES_S)  # unfinished handshakes are cut by now
        go.set()
        response = client.getresponse()
        assert (response.status, response.read(), response.getheader("Connection")) == (200, b"done", "close")
        stop.result(WAIT_S)


# ---- handshakes


def hooked(hook: Any) -> Handlers:
    handlers = Handlers()
    handlers.on_upgrade = hook
    handlers.on_message = lambda conn, message: conn.send(message)
    return handlers


@pytest.mark.parametrize("kind", ["plain", "async", "blocking"])
def test_a_hook_of_each_kind_decides(engine_name: str, loop_factory: Any, kind: str) -> None:
    def plain_hook(request: Any) -> Any:
        if request.cookies.get("session") != "good":
            return Reject(401, "who are you?")
        return Accept(cookies=[("seen", "1")], state=request.path)

    async def async_hook(request: Any) -> Any:
        await asyncio.sleep(0.001)
        return plain_hook(request)

    states: list[Any] = []
    handlers = hooked({"plain": plain_hook, "async": async_hook, "blocking": blocking(lambda request: plain_hook(request))}[kind])
    handlers.on_connect = lambda conn: states.append(conn.state)
    with served(handlers, engine=engine_name, loop_factory=loop_factory) as there:
        with there.client("/a", additional_headers={"Cookie": "session=good"}) as client:
            client.send("hello")
            assert client.recv(timeout=WAIT_S) == "hello"
            assert client.response is not None
            assert client.response.headers["Set-Cookie"].startswith("seen=1")
        with pytest.raises(InvalidStatus) as caught:
            there.client("/b")
        assert (caught.value.response.status_code, caught.value.response.body) == (401, b"who are you?")
        assert states == ["/a"]
        eventually(lambda: there.counters["closes_handshake_refused"] == there.counters["handshake_failures"] == 1)


def test_frames_that_come_with_a_slow_handshake_are_answered_after_it(engine_name: str) -> None:
    go = threading.Event()

    async def hook(request: Any) -> None:
        while not go.is_set():
            await asyncio.sleep(0.001)

    with served(hooked(hook), engine=engine_name) as there, there.socket() as peer:
        peer.sendall(request() + pack(TEXT, b"early"))
        eventually(lambda: there.counters["handshakes_pending"] == 1)
        peer.sendall(pack(TEXT, b"later"))
        go.set()
        assert head(peer).startswith(b"HTTP/1.1 101 ")
        received = b""
        while len(received) < 14:
            received += peer.recv(14)
        assert received == b"\x81\x05early\x81\x05later"


def test_a_slow_hook_does_not_hold_up_the_others(engine_name: str) -> None:
    async def hook(request: Any) -> None:
        if request.path == "/slow":
            await asyncio.Event().wait()

    with served(hooked(hook), engine=engine_name) as there, there.socket() as slow:
        slow.sendall(request("/slow"))
        eventually(lambda: there.counters["handshakes_pending"] == 1)
        with there.client("/quick") as client:
            client.send("x")
            assert client.recv(timeout=WAIT_S) == "x"


def test_a_hook_that_takes_too_long_is_answered_with_503_and_counted_as_late(engine_name: str) -> None:
    async def hook(request: Any) -> None:
        await asyncio.Event().wait()

    with served(hooked(hook), engine=engine_name, handshake_timeout_s=0.2) as there, there.socket() as peer:
        peer.sendall(request())
        assert head(peer).startswith(b"HTTP/1.1 503 ")
        eventually(lambda: there.counters["closes_handshake_timeout"] == 1)


def test_a_peer_that_goes_while_it_is_decided_on_cancels_its_hook(engine_name: str) -> None:
    seen: list[str] = []

    async def hook(request: Any) -> None:
        seen.append("asked")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with served(hooked(hook), engine=engine_name) as there:
        with there.socket() as peer:
            peer.sendall(request())
            eventually(lambda: seen)
        eventually(lambda: seen == ["asked", "cancelled"])
        eventually(lambda: there.counters["handshakes_pending"] == 0)


def test_many_wait_together_without_loss(engine_name: str) -> None:
    async def hook(request: Any) -> None:
        await asyncio.sleep(0.01)

    with served(hooked(hook), engine=engine_name, handshakes_deciding=50) as there:
        peers = [there.socket() for _ in range(300)]
        for peer in peers:
            peer.sendall(request())
        assert {head(peer)[:12] for peer in peers} == {b"HTTP/1.1 101"}
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("kind", ["plain", "async", "blocking", "refused", "route"])
def test_nothing_of_a_request_is_kept_once_it_is_answered(engine_name: str, kind: str) -> None:
    def hook(request: Any) -> Any:
        requests.append(weigh(request))
        return Reject(403) if kind == "refused" else Accept(state=request.path)

    async def async_hook(request: Any) -> Any:
        return hook(request)

    requests: list[int] = []
    hooks = {"async": async_hook, "blocking": blocking(lambda request: hook(request))}
    handlers = hooked(hooks.get(kind, hook))
    before = {id(each) for each in kept(Request)}  # other tests of this process have some
    handlers.get("/page")(lambda request: str(requests.append(weigh(request))))
    with served(handlers, engine=engine_name) as there, there.socket() as peer:
        peer.sendall(plain("GET", "/page") if kind == "route" else request("/chat?token=secret", "Cookie: a=b"))
        head(peer)
        eventually(lambda: len(requests) == 1 and not {id(each) for each in kept(Request)} - before, "the request is kept")


def weigh(request: Any) -> int:
    return len(request.head)


def kept(kind: type) -> list[Any]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, kind)]


def test_an_expired_connection_is_closed_with_1008_and_its_own_cause(engine_name: str) -> None:
    causes: list[Any] = []
    handlers = hooked(lambda request: Accept(expires_at=1.0))
    handlers.on_close = lambda conn, close: causes.append((close.code, close.cause))
    with served(handlers, engine=engine_name) as there:
        with there.socket() as peer:
            upgrade(peer)
            assert close_code(peer) == 1008
        eventually(lambda: causes)
        assert causes == [(1008, Cause.EXPIRED)]
        eventually(lambda: there.counters["closes_expired"] == 1)


def test_a_connection_that_is_renewed_in_time_stays(engine_name: str) -> None:
    handlers = hooked(lambda request: Accept(expires_at=1.0))
    workers: list[Any] = []
    handlers.on_start = workers.append
    handlers.on_connect = lambda conn: workers[0].expire_at(conn, None)
    handlers.on_message = None
    handlers.on_message = lambda conn, message: workers[0].expire_at(conn, 1.0)
    with served(handlers, engine=engine_name) as there, there.client() as client:
        assert len(there.call(lambda: there.server.worker.connections)) == 1
        client.send("now")
        with pytest.raises(Exception, match="1008"):
            client.recv(timeout=WAIT_S)
