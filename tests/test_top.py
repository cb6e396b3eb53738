"""`unlimitedws top`: what it shows, and of whom."""

from __future__ import annotations

import builtins
import io
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.supervisor.running import Running, until
from unlimitedws import top
from unlimitedws.cli import main


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path, workers=2)
    try:
        yield running.ready()
        running.stop()
    finally:
        running.destroy()


def drawn(what: Any, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_one_look_tells_of_the_server_and_of_each_worker(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert server.echoes()
    until(lambda: server.stats["total"]["closes"]["peer_closed"] == 1)
    assert main(["top", f"127.0.0.1:{server.admin_port}", "--once"]) == 0
    shown = capsys.readouterr().out
    assert "ready" in shown
    assert [str(pid) in shown for pid in server.workers()] == [True, True]
    assert "peer closed" in drawn(top.View(server.stats, None))


@pytest.mark.parametrize("width", [80, 132, 200])
def test_nothing_is_cut_in_a_terminal_of_usual_width(server: Running, width: int) -> None:
    text = drawn(top.View(server.stats, server.stats | {"uptime_s": 0}), width)
    assert all(str(pid) in text for pid in server.workers())
    assert "…" not in text
    assert ("handshakes" in text) == (width >= 132)


def test_rates_are_since_the_look_before(server: Running) -> None:
    before = server.stats
    now = {
        **before,
        "uptime_s": before["uptime_s"] + 2.0,
        "total": {**before["total"], "messages_in": 500, "cpu_us": 10**6 + before["total"]["cpu_us"]},
    }
    shown = drawn(top.summary(now, before))
    assert "250/s" in shown
    assert "50.0 %" in shown
    assert "/s" not in drawn(top.summary(now, None))


def test_it_looks_again_and_again_and_waits_for_a_server_that_is_gone(server: Running) -> None:
    answers: list[Callable[[], Any]] = [lambda: server.stats, lambda: server.stats, gone, lambda: server.stats]
    seen = top.looks(lambda: answers.pop(0)(), 0.0)
    texts = [drawn(next(seen)) for _ in range(5)]
    assert "no server there" in texts[2]
    assert all("unlimitedws" in text for text in (texts[0], texts[1], texts[3]))


def gone() -> Any:
    raise top.NoAnswer("no server there")


def test_without_a_server_it_says_where_it_looked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "127.0.0.1:1", "--once"]) == 1
    error = capsys.readouterr().err
    assert "no stats at http://127.0.0.1:1/stats: Connection refused; " in error
    assert "admin_port" in error


def test_under_a_name_that_the_server_does_not_know_it_says_what_the_server_says(
    server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest: resolve("127.0.0.1", *rest))
    assert main(["top", f"stats.example:{server.admin_port}", "--once"]) == 1
    assert "421: this is not known as 'stats.example'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\0garbage\n", "what answers speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "what answers is no unlimitedws server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "what answers is no unlimitedws server"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<p>", "Expecting value"),
    ],
)
def test_somebody_else_at_that_address_is_told_as_one(answer: bytes, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        pool.submit(serve)
        assert main(["top", f"127.0.0.1:{listener.getsockname()[1]}", "--once"]) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(rf"unlimitedws: no stats at .*{why}.*; is the server up, and is this its admin_port\?\n", err)


@pytest.mark.parametrize("address", ["a b", "http://[bad", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_one_line(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", address, "--once"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_rich_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    importing = builtins.__import__

    def without_rich(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_rich)
    assert main(["top", "--once"]) != 0
    assert "pip install 'unlimitedws[top]'" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "x", "nan", "1e9"])
def test_an_interval_that_cannot_be_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--every-s", given]) == 2
    assert "0.1 to 3600" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (top.count(99_999), "99,999"),
        (top.count(1_234_567), "1.23M"),
        (top.bytes_of(1023), "1023 B"),
        (top.bytes_of(3 * 2**20), "3 MiB"),
        (top.bytes_of(5 * 2**50), "5.12e+03 TiB"),
        (top.seconds(999), "999 us"),
        (top.seconds(2_500_000), "2.5 s"),
        (top.duration(59), "59 s"),
        (top.duration(3600), "1 h 0 min"),
        (top.duration(200_000), "2 d 7 h"),
    ],
)
def test_numbers_are_for_people(shown: str, text: str) -> None:
    assert shown == text
