from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.peer import pack_close, request
from tests.serving import Lines, eventually, head, masked, served, upgrade
from unlimitedws import Handlers, Reject
from unlimitedws.access import http_answered, shown, websocket_ended
from unlimitedws.logs import ACCESS, JsonFormatter, TextFormatter
from unlimitedws.wire.closing import Cause, Close


def connection(path: str = "/chat", address: Any = ("192.0.2.1", 4000)) -> Any:
    return SimpleNamespace(path=path, remote_address=address, id=(7 << 40) + 1)


CLOSE = Close(1000, "bye\nbye", Cause.PEER_CLOSED, True)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, ACCESS)
    return caplog


def test_the_line_of_a_websocket(heard: pytest.LogCaptureFixture) -> None:
    websocket_ended(connection(), CLOSE, 12, 345, 1.23456)
    (record,) = heard.records
    assert record.getMessage() == "192.0.2.1:4000 /chat websocket peer_closed 1000 in=12 out=345 1.235s id=7696581394433"
    fields = json.loads(JsonFormatter().format(record))
    assert {name: fields[name] for name in ("address", "path", "id", "cause", "code", "bytes_in", "bytes_out", "duration_s")} == {
        "address": "192.0.2.1:4000", "path": "/chat", "id": "7696581394433", "cause": "peer_closed", "code": 1000,
        "bytes_in": 12, "bytes_out": 345, "duration_s": 1.235,
    }  # fmt: skip


def test_the_line_of_an_http_request(heard: pytest.LogCaptureFixture) -> None:
    http_answered("GET", "/a b", ("::1", 4000), 404, 17, 0.0004)
    assert heard.records[0].getMessage() == "[::1]:4000 /a%20b GET 404 out=17 0.000s"
    assert json.loads(JsonFormatter().format(heard.records[0]))["status"] == 404


@pytest.mark.parametrize("path", ["/a\r\n127.0.0.1:1 / websocket", "/a\x1b[2Jb", '/a" b', "/a\u2028b", "/é"])
def test_a_path_is_one_word_of_one_line(path: str, heard: pytest.LogCaptureFixture) -> None:
    websocket_ended(connection(path), CLOSE, 0, 0, 0)
    line = TextFormatter("%(message)s").format(heard.records[0])
    assert len(line.splitlines()) == 1
    assert len(line.split(" ")) == 9
    assert line.isprintable()
    assert json.loads(JsonFormatter().format(heard.records[0]))["path"] == path


def test_lines_with_another_cause_are_another_kind(heard: pytest.LogCaptureFixture) -> None:
    websocket_ended(connection(), CLOSE, 0, 0, 0)
    websocket_ended(connection(), Close(1006, "", Cause.PEER_RESET, False), 0, 0, 0)
    http_answered("GET", "/", "unix", 200, 0, 0)
    assert len({record.kind for record in heard.records}) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        (("192.0.2.1", 1), "192.0.2.1:1"),
        (("2001:db8::1", 1), "[2001:db8::1]:1"),
        ("unix", "unix"),
        ("", "unix"),
        ("/run/a b\n.sock", "/run/a%20b%0A.sock"),
    ],
)
def test_an_address_is_one_word(address: Any, word: str) -> None:
    assert shown(address) == word


def test_where_nobody_listens_nothing_is_made(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, ACCESS)
    websocket_ended(None, CLOSE, 0, 0, 0)
    http_answered("GET", "/", "unix", 200, 0, 0)
    assert caplog.records == []


# ---- as a server writes it


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger(ACCESS)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def handlers() -> Handlers:
    made = Handlers()
    made.on_message = lambda conn, message: conn.send(message)
    made.get("/page")(lambda: "hello")
    return made


def test_each_websocket_writes_one_line_at_its_end(engine_name: str, lines: list[str]) -> None:
    with served({"/ws": handlers()}, engine=engine_name, access_log=True) as there:
        with there.socket() as peer:
            upgrade(peer, "/ws?token=secret")
            peer.sendall(masked(b"x" * 94))  # 100 bytes with its head and key
            assert len(peer.recv(1000)) == 96
            peer.sendall(pack_close(4000, "bye\nbye"))
            address = shown(peer.getsockname())
            eventually(lambda: lines)
        assert re.fullmatch(rf"{re.escape(address)} /ws websocket peer_closed 4000 in=115 out=\d+ \d+\.\d\d\ds id=\d+", lines[0]), lines[0]
        assert len(lines) == 1


def test_plain_http_requests_write_a_line_too(engine_name: str, lines: list[str]) -> None:
    with served({"/ws": handlers()}, engine=engine_name, access_log=True) as there, there.socket() as peer:
        peer.sendall(b"GET /page?token=secret HTTP/1.1\r\nHost: test\r\n\r\n")
        address = shown(peer.getsockname())
        eventually(lambda: lines)
        assert re.fullmatch(rf"{re.escape(address)} /page GET 200 out=5 \d+\.\d\d\ds", lines[0]), lines[0]


def refusing() -> Handlers:
    made = Handlers()

    @made.on_upgrade
    def refuse(request: Any) -> Any:
        return Reject(403, "no")

    return made


def refusing_late(seconds: float) -> Handlers:
    made = Handlers()

    @made.on_upgrade
    async def refuse(request: Any) -> Any:
        await asyncio.sleep(seconds)
        return Reject(401, "no!")

    return made


BAD = {
    "a hook": (request("/no?token=secret"), "/no GET 403 out=2"),
    "an async hook": (request("/late?token=secret"), "/late GET 401 out=3"),
    "an async hook that takes too long": (request("/never?token=secret"), "/never GET 503"),
    "no such path": (request("/nowhere?token=secret"), "/nowhere GET 404"),
    "no such file": (b"GET /static/x%20y?token=secret HTTP/1.1\r\nHost: a\r\n\r\n", "/static/x%20y GET 404"),
    "plain HTTP on a WebSocket": (b"GET /ws?token=secret HTTP/1.1\r\nHost: a\r\n\r\n", "/ws GET 426"),
    "no request": (b"G\xe9T  ?token=secret\nX HTTP/1.1\r\n\r\n", " G%C3%A9T 400"),
}


@pytest.mark.parametrize(("said", "line"), BAD.values(), ids=BAD)
def test_a_refused_request_writes_a_line_too(engine_name: str, said: bytes, line: str, lines: list[str], tmp_path: Path) -> None:
    endpoints = {"/ws": handlers(), "/no": refusing(), "/late": refusing_late(0.01), "/never": refusing_late(60.0)}
    settings = {"handshake_timeout_s": 1.0} if "503" in line else {}
    with served(endpoints, engine=engine_name, access_log=True, static_dir=str(tmp_path), **settings) as there, there.socket() as peer:
        peer.sendall(said)
        address = shown(peer.getsockname())
        eventually(lambda: lines)
        assert lines[0].startswith(f"{address} {line}"), lines
        assert len(lines) == 1
        assert "secret" not in lines[0]


def test_a_refused_request_writes_nothing_without_the_setting(engine_name: str, lines: list[str]) -> None:
    with served({"/no": refusing()}, engine=engine_name) as there, there.socket() as peer:
        peer.sendall(request("/no"))
        assert head(peer).startswith(b"HTTP/1.1 403 ")
    assert lines == []


def test_the_end_of_a_long_path_is_left_out(engine_name: str, lines: list[str]) -> None:
    with served({"/ws": handlers()}, engine=engine_name, access_log=True) as there, there.socket() as peer:
        peer.sendall(request("/" + "x" * 10_000))
        eventually(lambda: lines)
    assert len(lines[0]) < 600
    assert "xxx... GET 404" in lines[0]


def test_without_the_setting_nothing_is_written(engine_name: str, lines: list[str]) -> None:
    with served({"/ws": handlers()}, engine=engine_name) as there, there.socket() as peer:
        upgrade(peer, "/ws")
        peer.close()
        eventually(lambda: there.counters["closes_peer_eof"])
    assert lines == []


def test_a_flood_of_connections_cannot_flood_the_log(engine_name: str, lines: list[str]) -> None:
    with served({"/ws": handlers()}, engine=engine_name, access_log=True, access_lines_per_s=20) as there:
        for _ in range(300):
            with there.socket() as peer:
                upgrade(peer, "/ws")
        eventually(lambda: there.counters["closes_peer_eof"] == 300)
    assert 20 <= len(lines) < 200
    assert re.match(r"\d+ more lines like this one: ", lines[-1])
