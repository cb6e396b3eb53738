"""The admin endpoint: what it answers, and what it does not put up with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pytest

from tests.supervisor.conftest import Run
from tests.supervisor.running import until
from unlimitedws.hostnames import Hostnames
from unlimitedws.supervisor import admin as module
from unlimitedws.supervisor.admin import Admin, Answer, Asked, document, text

BIG = "x" * 2_000_000


def fail() -> Answer:
    raise ZeroDivisionError("a defect")


async def echo(asked: Asked) -> Answer:
    return document(list(asked))


ROUTES = {
    "/stats": lambda: document({"answer": 42}),
    "/healthz": lambda: text(HTTPStatus.OK, "ok"),
    "/big": lambda: text(HTTPStatus.OK, BIG),
    "/defect": fail,
}


def with_admin(conversation: Callable[[int, Admin], Awaitable[None]]) -> None:
    """Runs a conversation with an endpoint on its port; nothing is left of it afterwards."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        admin = Admin(ROUTES, {"/things": echo})
        await admin.serve(listener)
        try:
            await asyncio.wait_for(conversation(listener.getsockname()[1], admin), 20)
        finally:
            await admin.close()
        assert not admin.clients

    asyncio.run(main())


async def says(port: int, request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    received = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines if line), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_json_and_text_are_answered_whole() -> None:
    async def conversation(port: int, _: Admin) -> None:
        status, headers, body = await says(port, get("/stats?pretty=1"))
        assert (status, headers["Content-Type"], json.loads(body)) == ("HTTP/1.1 200 OK", "application/json", {"answer": 42})
        assert headers["Content-Length"] == str(len(body))
        assert (await says(port, get("/healthz")))[2] == b"ok\n"
        assert len((await says(port, get("/big")))[2]) == len(BIG) + 1

    with_admin(conversation)


def test_head_has_the_headers_of_get_and_no_body() -> None:
    async def conversation(port: int, _: Admin) -> None:
        _status, of_get, body = await says(port, get("/stats"))
        status, of_head, nothing = await says(port, get("/stats", "HEAD"))
        assert (status, nothing) == ("HTTP/1.1 200 OK", b"")
        assert of_head == of_get
        assert len(body) > 0

    with_admin(conversation)


def test_no_answer_is_cached_or_guessed_at_or_loads_anything() -> None:
    async def conversation(port: int, _: Admin) -> None:
        for path in ("/stats", "/healthz", "/nowhere"):
            headers = (await says(port, get(path)))[1]
            assert headers["Cache-Control"] == "no-store"
            assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["X-Content-Type-Options"] == "nosniff"

    with_admin(conversation)


def test_an_unknown_path_lists_those_that_there_are() -> None:
    async def conversation(port: int, _: Admin) -> None:
        status, _headers, body = await says(port, get("/metricz"))
        assert status == "HTTP/1.1 404 Not Found"
        assert b"/stats /healthz" in body

    with_admin(conversation)


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_other_methods_are_405_and_told_what_is_allowed(method: str) -> None:
    async def conversation(port: int, _: Admin) -> None:
        request = f"{method} /stats HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".encode()
        status, headers, _body = await says(port, request)
        assert (status, headers["Allow"]) == ("HTTP/1.1 405 Method Not Allowed", "GET, HEAD")

    with_admin(conversation)


@pytest.mark.parametrize("target", ["GET /stats", "HEAD /stats", "GET /nowhere", "GET /things", "DELETE /things/4"])
def test_the_page_of_somebody_else_reads_nothing_and_is_told_how_it_would(target: str) -> None:
    """DNS rebinding: the name is theirs, the address is ours."""

    async def conversation(port: int, _: Admin) -> None:
        status, _headers, body = await says(port, f"{target} HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n".encode())
        assert status == "HTTP/1.1 421 Misdirected Request"
        assert target.startswith("HEAD") or b"--admin-names evil.example" in body

    with_admin(conversation)


def test_who_asks_by_address_or_by_a_name_of_ours_is_answered() -> None:
    async def conversation(port: int, admin: Admin) -> None:
        admin.names = Hostnames("stats.example.com")
        for host in (f"127.0.0.1:{port}", f"[::1]:{port}", "localhost", "stats.example.com", ""):
            assert (await says(port, f"GET /stats HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()))[0] == "HTTP/1.1 200 OK"
        assert (await says(port, b"GET /stats HTTP/1.0\r\n\r\n"))[0] == "HTTP/1.1 200 OK"

    with_admin(conversation)


def test_what_is_for_all_is_answered_under_any_name() -> None:
    async def conversation(port: int, admin: Admin) -> None:
        admin.for_all = ("/healthz",)
        request = b"GET /healthz?x HTTP/1.1\r\nHost: unlimitedws.monitoring.svc:9001\r\n\r\n"
        assert (await says(port, request))[0] == "HTTP/1.1 200 OK"

    with_admin(conversation)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", "400 Bad Request"),
        (b"GET /stats HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET /stats HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 20_000, "431 Request Header Fields Too Large"),
        (bytes(range(256)) + b"\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400 Bad Request"),
    ],
)
def test_what_is_no_request_is_refused(request_bytes: bytes, status: str) -> None:
    async def conversation(port: int, _: Admin) -> None:
        assert (await says(port, request_bytes))[0] == f"HTTP/1.1 {status}"

    with_admin(conversation)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_come_the_next_client_is_answered(seed: int) -> None:
    chance = random.Random(seed)
    garbage = chance.choice([b"", b"GET ", b"GET /stats HTTP/1.1\r\n", b"GET /connections/"]) + chance.randbytes(chance.randrange(20_000))

    async def conversation(port: int, _: Admin) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
        writer.transport.abort()
        assert (await says(port, get("/healthz")))[0] == "HTTP/1.1 200 OK"

    with_admin(conversation)


def test_a_service_hears_method_rest_query_and_authorization() -> None:
    async def conversation(port: int, _: Admin) -> None:
        request = b"DELETE /things/4/5?x=%20 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer y\r\nAccept: a\r\nAccept: b\r\n\r\n"
        assert json.loads((await says(port, request))[2]) == ["DELETE", "4/5", "x=%20", "Bearer y", "a,b"]
        assert json.loads((await says(port, get("/things")))[2]) == ["GET", "", "", "", ""]
        assert (await says(port, get("/thingsandmore")))[0] == "HTTP/1.1 404 Not Found"

    with_admin(conversation)


def test_a_route_that_fails_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def conversation(port: int, _: Admin) -> None:
        assert (await says(port, get("/defect")))[0] == "HTTP/1.1 500 Internal Server Error"
        assert (await says(port, get("/healthz")))[0] == "HTTP/1.1 200 OK"

    with_admin(conversation)
    assert "a defect" in caplog.text


def test_a_client_that_says_nothing_or_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.2)

    async def conversation(port: int, admin: Admin) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        _reader, deaf = await asyncio.open_connection("127.0.0.1", port, limit=1)
        deaf.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.write(get("/big"))
        while not admin.clients:
            await asyncio.sleep(0.01)
        while admin.clients:
            await asyncio.sleep(0.01)
        for each in (writer, deaf):
            each.transport.abort()

    with_admin(conversation)


def test_too_many_clients_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLIENTS", 2)

    async def conversation(port: int, admin: Admin) -> None:
        early = [await asyncio.open_connection("127.0.0.1", port) for _each in range(2)]
        while len(admin.clients) < 2:
            await asyncio.sleep(0.01)
        reader, late = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        early[0][1].write(get("/healthz"))
        assert (await early[0][0].read(-1)).endswith(b"ok\n")
        for _reader, writer in [*early, (reader, late)]:
            writer.transport.abort()

    with_admin(conversation)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


# ---- of a whole server


def test_stats_say_who_serves_what(run: Run) -> None:
    server = run(workers=2).ready()
    with server.connect() as client:
        client.send("0123456789")
        client.recv(timeout=30)
        stats = server.stats
    assert (stats["pid"], stats["listening"], stats["ready"]) == (server.pid, [f"127.0.0.1:{server.port}"], True)
    assert [worker["slot"] for worker in stats["workers"]] == [0, 1]
    assert {worker["state"] for worker in stats["workers"]} == {"ready"}
    assert {worker["engine"] for worker in stats["workers"]} == {stats["engine"]}
    total = stats["total"]
    assert (total["connections_open"], total["messages_in"], total["messages_out"]) == (1, 1, 1)
    assert total["bytes_in"] > 10
    assert total["connections_accepted"] == sum(worker["connections_accepted"] for worker in stats["workers"])
    assert total["closes"]["peer_closed"] == 0
    assert [process["role"] for process in stats["processes"]] == ["supervisor", "template", "worker", "worker"]
    for worker in stats["workers"]:
        assert worker["memory"]["rss_bytes"] >= worker["memory"]["pss_bytes"] > 0
        assert worker["cpu"]["seconds"] >= 0
        assert worker["descriptors"] is None or worker["descriptors"] > 3
        assert worker["uptime_s"] > 0
    until(lambda: server.stats["total"]["closes"]["peer_closed"] == 1)


def test_by_the_name_of_a_service_it_gives_metrics_and_readiness_and_nothing_of_clients(run: Run) -> None:
    server = run(workers=1, admin_names="dashboard.example.com").ready()

    def status(path: str, host: str) -> int:
        return server.get(path, host=host)[0]

    for path in ("/metrics", "/healthz", "/readyz"):
        assert status(path, "unlimitedws.monitoring.svc:9001") == 200
    for path in ("/", "/stats", "/history", "/history/workers", "/connections", "/connections/1", "/closes", "/config", "/uPlot.js"):
        assert status(path, "unlimitedws.monitoring.svc:9001") == 421
        assert status(path, "dashboard.example.com") == status(path, "localhost:1") != 421


def test_it_is_not_ready_before_the_first_worker_is_and_from_the_moment_it_stops(run: Run) -> None:
    source = "import asyncio, os\n" + SLOW_START
    server = run(source=source, workers=1, stop_timeout_s=60, close_timeout_s=60)
    assert server.get("/readyz") == (503, "no worker is ready\n")
    assert server.get("/healthz") == (200, "ok\n")
    (server.folder / "go").touch()
    server.ready()
    assert server.get("/readyz") == (200, "ready\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as mute:
        mute.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert mute.recv(4096)
        server.signal(signal.SIGTERM)
        until(lambda: server.get("/readyz") == (503, "the server is stopping\n"))
        assert server.get("/healthz") == (200, "ok\n")
    assert server.ends() == 0


SLOW_START = """
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_start
async def wait(worker):
    while not os.path.exists("go"):
        await asyncio.sleep(0.02)
"""


def test_a_client_of_the_endpoint_does_not_hold_up_the_end(run: Run) -> None:
    server = run().ready()
    with socket.create_connection(("127.0.0.1", server.admin_port)):
        server.signal(signal.SIGTERM)
        assert server.ends(4) == 0
