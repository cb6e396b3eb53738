"""Too many, too fast, and at a bad time."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.conftest import ends, memory, refused
from tests.hostile.table import NOBODY, Row, row, rows
from tests.peer import TEXT, Peer, pack, request
from tests.serving import WAIT_S, Lines, Served, close_code, eventually, head, served, upgrade
from unlimitedws import Accept, Handlers, Reject
from unlimitedws.logs import JsonFormatter
from unlimitedws.memory import Reading

LIMIT, SHED = "closes_limit", "closes_shed"
WELCOME = b"HTTP/1.1 101 "


def dial(there: Served, address: str) -> socket.socket:
    """A connection from another address of this machine."""
    return socket.create_connection(("127.0.0.1", there.port), timeout=WAIT_S, source_address=(address, 0))


def is_refused(peer: socket.socket) -> bool:
    """Whether we were closed without a word."""
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


# ---- connections


@row("More connections than `max_connections`, `max_connections_total`", "closed at once", LIMIT, max_connections_total=3)
def test_connections_over_the_total_are_closed_and_places_become_free(there: Served) -> None:
    inside = [there.socket() for _ in range(3)]
    for peer in inside:
        upgrade(peer)
    with there.socket() as one_too_many:
        assert is_refused(one_too_many)
    inside.pop().close()
    eventually(lambda: there.counters["connections_open"] == 2)
    with there.socket() as peer:
        upgrade(peer)
    for peer in inside:
        peer.close()


@row("More connections from one address than `max_connections_per_address`", "closed at once; other addresses are served",
     LIMIT, max_connections_per_address=2)  # fmt: skip
def test_one_address_cannot_take_every_place(there: Served) -> None:
    with dial(there, "127.0.0.7") as first, dial(there, "127.0.0.7") as second:
        upgrade(first)
        upgrade(second)
        for _ in range(5):
            with dial(there, "127.0.0.7") as third:
                assert is_refused(third)
        with dial(there, "127.0.0.8") as other:
            upgrade(other)


@row("More unfinished requests than `max_handshakes_pending`", "closed at once, until the others are cut at their deadline",
     LIMIT, max_handshakes_pending=5, handshake_timeout_s=1.0)  # fmt: skip
def test_unfinished_requests_are_bounded(there: Served) -> None:
    slow = [there.socket() for _ in range(5)]
    eventually(lambda: there.counters["handshakes_pending"] == 5)
    with there.socket() as peer:
        assert is_refused(peer)
    eventually(lambda: not there.counters["handshakes_pending"])
    with there.socket() as peer:
        upgrade(peer)
    for peer in slow:
        peer.close()


# ---- handshakes


def answer_to(peer: socket.socket) -> bytes:
    with peer:
        peer.sendall(request("/"))
        return head(peer)


def assert_is_told_to_come_back(answer: bytes) -> None:
    assert answer.startswith(b"HTTP/1.1 503 ")
    found = re.search(rb"\r\nRetry-After: (\d+)\r\n", answer)
    assert found
    assert 1 <= int(found[1]) <= 30


@row("More handshakes than `handshakes_per_s`", "503 with `Retry-After`, a random time up to `retry_after_s`", SHED,
     handshakes_per_s=2.0, handshake_burst_s=2.0)  # fmt: skip
def test_handshakes_over_the_rate_are_told_to_come_back(there: Served) -> None:
    for answer in refused(lambda: answer_to(there.socket()), 12, burst=4, per_s=2, welcome=WELCOME):
        assert_is_told_to_come_back(answer)
    time.sleep(1.0)  # for the honest client after this


@row("More handshakes from one address than `handshakes_per_s_per_address`", "503 likewise; other addresses are served", SHED,
     handshakes_per_s_per_address=1.0, handshake_burst_s=3.0)  # fmt: skip
def test_one_address_cannot_use_up_the_rate(there: Served) -> None:
    for answer in refused(lambda: answer_to(dial(there, "127.0.0.7")), 8, burst=3, per_s=1, welcome=WELCOME):
        assert_is_told_to_come_back(answer)
    assert answer_to(dial(there, "127.0.0.8")).startswith(WELCOME)


@row("Any handshake while memory is short (`shed_memory`, `shed_stall`)", "503 likewise; who is connected stays", SHED, shed_memory=0.9)
def test_while_memory_is_short_nobody_new_comes_in(there: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = there.server.worker._pressure.memory  # type: ignore[union-attr]
    with there.client() as inside:
        monkeypatch.setattr(memory, "read", lambda: Reading(0.99, 0.0))
        eventually(lambda: there.counters["shedding"])
        answer = eventually(lambda: (said := answer_to(there.socket())).startswith(b"HTTP/1.1 503 ") and said)
        assert_is_told_to_come_back(answer)
        inside.send("still here")
        assert inside.recv(timeout=WAIT_S) == "still here"
        monkeypatch.setattr(memory, "read", lambda: Reading(0.1, 0.0))
        eventually(lambda: not there.counters["shedding"])
        eventually(lambda: answer_to(there.socket()).startswith(WELCOME))


# ---- rates of one connection


def chatter(there: Served, messages: int) -> tuple[socket.socket, float]:
    peer = there.socket()
    upgrade(peer)
    began = time.monotonic()
    peer.sendall(pack(TEXT, b"x" * 100) * messages)
    return peer, began


def assert_is_closed_as_too_fast(peer: socket.socket) -> None:
    received = b""
    while not received.endswith((1008).to_bytes(2, "big") + b"too fast"):
        more = peer.recv(65536)
        assert more, received[-20:]
        received += more


@row(
    "More messages than `messages_per_s`, `rate_policy` close",
    "Close 1008; what came behind is not handled",
    "closes_rate",
    messages_per_s=10.0,
    rate_policy="close",
)
def test_a_chatterer_is_closed(there: Served) -> None:
    peer, began = chatter(there, 200)
    with peer:
        assert_is_closed_as_too_fast(peer)
    assert there.counters["messages_out"] <= 12 + 10 * (time.monotonic() - began)


@row(
    "More messages than `messages_per_s`, `rate_policy` delay",
    "its reads wait, and with them the peer",
    NOBODY,
    messages_per_s=40.0,
    rate_policy="delay",
)
def test_a_chatterer_waits(there: Served) -> None:
    peer, began = chatter(there, 80)
    with peer:
        left = 80 * 102
        while left:
            left -= len(peer.recv(left))
        assert time.monotonic() - began > 0.7, "80 messages at 40 a second, 40 of them at once, take a second"


@row("More bytes than `bytes_per_s`, `rate_policy` close", "Close 1008", "closes_rate", bytes_per_s=2000.0, rate_policy="close")
def test_a_flood_of_bytes_is_closed(there: Served) -> None:
    peer, _ = chatter(there, 1000)
    with peer:
        assert_is_closed_as_too_fast(peer)


# ---- slow decisions, and what reaches the log


SLOW = Row(
    "A handshake whose `on_upgrade` hook takes too long", "503 at `handshake_timeout_s`; others are not delayed", "closes_handshake_timeout"
)


@rows([SLOW])
def test_a_hook_that_never_decides_is_given_up(engine_name: str) -> None:
    handlers = Handlers()

    @handlers.on_upgrade
    async def never(request: Any) -> None:
        await asyncio.Event().wait()

    with served({"/slow": handlers, "/": Handlers()}, engine=engine_name, handshake_timeout_s=0.3) as there:
        with there.socket() as slow, there.socket() as peer:
            slow.sendall(request("/slow"))
            upgrade(peer)
            assert head(slow).startswith(b"HTTP/1.1 503 ")
        eventually(lambda: there.counters[SLOW.counted] == 1)


INJECTED = Row("Line feeds and terminal escapes in a path, for the log's reader", "escaped: one line of the log", NOBODY)


@pytest.fixture
def handlers_log() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger("unlimitedws.handlers")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


@rows([INJECTED])
def test_a_path_cannot_forge_a_line_of_the_log(engine_name: str, handlers_log: list[str]) -> None:
    handlers = Handlers()

    @handlers.on_message
    def fail(conn: Any, message: Any) -> None:
        raise ValueError

    with served(handlers, engine=engine_name) as there, there.socket() as peer:
        upgrade(peer, "/a%0d%0aERROR%20forged%1b[2J")
        peer.sendall(pack(TEXT, b"x"))
        assert close_code(peer) == 1011
        eventually(lambda: handlers_log)
    first = handlers_log[0].splitlines()[0]
    assert "/a\\r\\nERROR forged\\x1b[2J" in first


INVENTED = Row(
    "A long path that nobody has asked for before, with each of many handshakes", "let in or refused; nothing of it is kept", NOBODY
)


@rows([INVENTED])
@pytest.mark.parametrize("verdict", [None, Reject(403), Accept(state="x")], ids=["let in", "refused", "let in with a state"])
def test_paths_leave_nothing_behind(engine_name: str, verdict: Any) -> None:
    handlers = Handlers()
    handlers.on_upgrade = lambda request: verdict
    offer = "Sec-WebSocket-Extensions: permessage-deflate"

    def visit(there: Served, number: int) -> None:
        with there.socket() as peer:
            peer.sendall(request(f"/{number}{'x' * 10_000}", *([offer] if number % 2 else [])))
            assert head(peer)
            Peer(peer).reset()

    with served(handlers, engine=engine_name, deflate=True) as there:
        for number in range(200):
            visit(there, number)
        before = memory()
        for number in range(200, 1200):
            visit(there, number)
        eventually(lambda: ends(there) == 1200)
        assert memory() - before < 4 << 20


TOKEN = "eyJhbGciOiJub25lIn0"
ASKED_WITH_A_TOKEN = (
    "/in", "/out", "/raises", "/raises-later", "/late", "/refused-later", "/nowhere", "/static/nothing", "/page", "/page/raises",
)  # fmt: skip
SECRET = Row("A token in the query, in a header or a subprotocol, whatever comes of its request", "it is in no line of any log", NOBODY)


def deciding(request: Any) -> Any:
    match request.path:
        case "/out" | "/refused-later":
            return Reject(401, "not you")
        case "/raises" | "/raises-later":
            raise ValueError("a mistake in the hook")


async def deciding_later(request: Any) -> Any:
    await asyncio.sleep(60 if request.path == "/late" else 0)
    return deciding(request)


def fail(*args: Any) -> Any:
    raise ValueError("a mistake in a handler")


def app_with_secrets() -> dict[str, Handlers]:
    now, later = Handlers(), Handlers()
    now.on_upgrade, later.on_upgrade = deciding, deciding_later
    now.on_message = fail
    now.get("/page")(lambda request: "a page")
    now.get("/page/raises")(fail)
    return {"/in": now, "/out": now, "/raises": now, "/raises-later": later, "/late": later, "/refused-later": later}


@rows([SECRET])
def test_a_token_is_in_no_line_of_any_log(engine_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.handler.setFormatter(JsonFormatter())  # which shows what a record carries besides
    settings: dict[str, Any] = {"access_log": True, "static_dir": str(tmp_path), "handshake_timeout_s": 1.0}
    with caplog.at_level(logging.DEBUG, "unlimitedws.access"), served(app_with_secrets(), engine=engine_name, **settings) as there:
        there.call(lambda: (there.loop.set_debug(True), setattr(there.loop, "slow_callback_duration", 0)))  # tells of every callback
        for path in ASKED_WITH_A_TOKEN:
            with there.socket() as peer:
                lines = (f"Authorization: Bearer {TOKEN}", f"Sec-WebSocket-Protocol: chat, bearer.{TOKEN}", f"Cookie: token={TOKEN}")
                asked = request(f"{path}?token={TOKEN}&{TOKEN}", *lines)
                peer.sendall(asked.replace(b"Upgrade: websocket\r\n", b"") if path.startswith(("/page", "/static")) else asked)
                if head(peer).startswith(b"HTTP/1.1 101 "):
                    peer.sendall(pack(TEXT, b"x"))
                    assert close_code(peer) == 1011
        with there.socket() as peer:
            peer.sendall(f"GET /?token={TOKEN} HTTP/1.0\r\n\r\n".encode())
            assert head(peer).startswith(b"HTTP/1.1 505 ")
        there.call(lambda: there.loop.set_debug(False))
    assert len([record for record in caplog.records if record.name == "unlimitedws.access"]) == len(ASKED_WITH_A_TOKEN) + 1
    assert "a mistake in the hook" in caplog.text
    assert "a mistake in a handler" in caplog.text
    assert TOKEN not in caplog.text


FLOODED = Row(
    "A handler that it makes raise again and again", "Close 1011 each time; 10 reports, then one a second and a count", "handler_errors"
)


@rows([FLOODED])
def test_failing_handlers_cannot_flood_the_log(engine_name: str, handlers_log: list[str]) -> None:
    handlers = Handlers()

    @handlers.on_message
    def fail(conn: Any, message: Any) -> None:
        raise ValueError

    with served(handlers, engine=engine_name) as there:
        for _ in range(300):
            with there.socket() as peer:
                upgrade(peer)
                peer.sendall(pack(TEXT, b"x"))
                assert close_code(peer) == 1011
        eventually(lambda: there.counters[FLOODED.counted] == 300)
    assert 10 <= len(handlers_log) < 60
    assert re.fullmatch(r"\d+ more lines like this one: on_message of connection .*", handlers_log[-1])


# ---- who says who he is


SPOOFED = Row("`Forwarded`, `X-Forwarded-For` or a PROXY preface from an address that is no trusted proxy",
              "headers are ignored; a preface is cut where a listener expects one, else 400", "closes_handshake_refused")  # fmt: skip


@rows([SPOOFED])
def test_nobody_can_choose_his_address(engine_name: str) -> None:
    seen: list[Any] = []
    handlers = Handlers()
    handlers.on_connect = lambda conn: seen.append(conn.remote_address[0])
    settings = {"trusted_proxies": "10.0.0.0/8", "forwarded_header": "x-forwarded-for"}
    with served(handlers, engine=engine_name, **settings) as there:
        with there.socket() as peer:
            upgrade(peer, "/", "X-Forwarded-For: 192.0.2.9", "Forwarded: for=192.0.2.9")
        with there.socket() as peer:
            peer.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.1 1 2\r\n" + request("/"))
            assert head(peer).startswith(b"HTTP/1.1 400 ")
        eventually(lambda: there.counters[SPOOFED.counted] == 1)
    assert seen == ["127.0.0.1"]


OUTSIDE = Row("A path out of a static folder: `..`, encoded, or by a symbolic link", "404", NOBODY)


@rows([OUTSIDE])
def test_static_files_do_not_lead_out_of_their_folder(engine_name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "fine.txt").write_text("fine")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / ".hidden").write_text("secret")
    with served({"/ws": Handlers()}, engine=engine_name, static_dir=str(folder)) as there:
        for path, found in {"fine.txt": True, "../secret": False, "%2e%2e/secret": False, "..%2fsecret": False,
                            "link": False, ".hidden": False, "fine.txt%00": False, "/etc/passwd": False}.items():  # fmt: skip
            with there.socket() as peer:
                peer.sendall(f"GET /static/{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
                peer.shutdown(socket.SHUT_WR)
                answer = head(peer)
                assert answer.startswith(b"HTTP/1.1 200 ") is found, (path, answer)
