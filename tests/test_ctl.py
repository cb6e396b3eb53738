"""`unlimitedws ctl`: how it finds its server, what it shows, and what it says where it cannot."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.running import Running, until
from unlimitedws import ctl as module
from unlimitedws.cli import main
from unlimitedws.config import DEFAULTS
from unlimitedws.ctl import Failed, NoServer, run, status
from unlimitedws.errors import ConfigError

Serve = Callable[..., Path]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Listens on a Unix socket of this name, and answers the first request with these bytes."""
    monkeypatch.chdir(tmp_path)
    listeners, threads = [], []

    def start(name: str, answer: bytes = b'{"done": {}}\n') -> Path:
        listener = socket.socket(socket.AF_UNIX)
        listeners.append(listener)
        listener.bind(name)
        listener.listen()

        def converse() -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    with client:
                        if client.recv(4096):
                            client.sendall(answer)
            except OSError:
                return

        threads.append(threading.Thread(target=converse, daemon=True))
        threads[-1].start()
        return Path(name)

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(10)


def told(verb: str, path: Path | str, number: str | None = None, **options: Any) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run(verb, number, control_socket=str(path), **{"wait": True, "as_json": False, **options})
    return out.getvalue()


# ---- the way to the server


def test_where_no_server_is_it_says_what_to_look_at(serve: Serve) -> None:
    with pytest.raises(NoServer, match="no such file; is the server up"):
        told("status", "nowhere.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind("stale.sock")
    with pytest.raises(NoServer, match="nobody listens there; the server is gone"):
        told("status", "stale.sock")
    Path("file").touch()
    with pytest.raises(NoServer, match="it is no socket"):
        told("status", "file")
    with pytest.raises(NoServer, match="control_socket is empty"):
        told("status", "")


def test_the_only_server_is_found_and_what_others_left_is_passed_over(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind("stale.sock")
    found = [Path("stale.sock"), serve("one.sock")]
    monkeypatch.setattr(module, "candidates", lambda environ, uid: found)
    assert told("reload", "auto", as_json=True) == "{}\n"
    found.append(serve("two.sock"))
    with pytest.raises(NoServer, match=r"2 servers run here; choose one with --control-socket: one\.sock, two\.sock"):
        told("reload", "auto")
    found[:] = [Path("stale.sock")]
    with pytest.raises(NoServer, match="name that with --control-socket PATH"):
        told("reload", "auto")


def test_where_the_user_may_not_it_says_who_may(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> socket.socket:
        raise PermissionError(13, os.strerror(13))

    path = serve("one.sock")
    monkeypatch.setattr(module, "connected", refuse)
    monkeypatch.setattr(module, "candidates", lambda environ, uid: [path])
    for place in (path, "auto"):
        with pytest.raises(NoServer, match=r"permission denied; try it as user \w+, or as root"):
            told("status", place)


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"", NoServer, "ended before it answered"),
        (b'{"progress": "going"}\n', NoServer, "ended before it answered"),
        (b"what?\n", NoServer, "the server was lost"),
        (b"[]\n", NoServer, "what answers is no unlimitedws server"),
        (b'{"other": 1}\n', NoServer, "what answers is no unlimitedws server"),
        (b'{"failed": "it rains"}\n', Failed, "it rains"),
    ],
)
def test_an_answer_that_is_none_is_an_error(serve: Serve, answer: bytes, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        told("reload", serve("one.sock", answer))


def test_a_server_that_does_not_answer_is_not_waited_for_forever(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("silent.sock")
        silent.listen()
        with pytest.raises(NoServer, match="does not answer within"):
            told("status", "silent.sock")


# ---- what it is asked


@pytest.mark.parametrize(
    ("verb", "number", "why"),
    [
        ("fly", None, "ctl cannot 'fly'; it can status, reload"),
        ("reload", "4", "'4' is one argument too many"),
        ("workers", None, "unlimitedws ctl workers 4"),
        *(("workers", number, "a number from 1 on, not") for number in ("0", "-1", "1.5", "many", "²", "9" * 30)),
    ],
)
def test_a_mistake_is_told_before_a_server_is_looked_for(verb: str, number: str | None, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        told(verb, "nowhere.sock", number)


def test_progress_is_shown_as_it_comes_and_not_to_scripts(serve: Serve) -> None:
    answer = b'{"progress": "half"}\n{"done": {"before": 2, "workers": 1, "moved": 1234, "closed": 1}}\n'
    path = serve("one.sock", answer)
    assert (
        told("workers", path, "1")
        == "half\n1 worker, 2 before; 1,234 connections moved; 1 connection that could not move closed with 1012\n"
    )
    assert json.loads(told("workers", path, "1", as_json=True)) == {"before": 2, "workers": 1, "moved": 1234, "closed": 1}


def test_the_table_of_workers_has_a_line_for_each() -> None:
    about = {"version": "1", "pid": 7, "state": "serving", "uptime_s": 90061, "engine": "native", "listening": ["h:1", "unix:/s"]}
    row = {"slot": 0, "pid": 12345, "state": "ready", "connections": 1234567, "uptime_s": 3.2}
    assert ", changing (an upgrade), pid 7," in status({**about, "state": "changing", "doing": "an upgrade", "workers": []})
    assert status({**about, "workers": [row, {**row, "slot": 1, "connections": 2, "state": "draining"}]}) == (
        "unlimitedws 1, native engine, serving, pid 7, up 1 d 1 h, on h:1, unix:/s\n"
        "slot    pid     state  connections  age\n"
        "   0  12345     ready    1,234,567  3 s\n"
        "   1  12345  draining            2  3 s"
    )


# ---- the whole command


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in DEFAULTS:
        monkeypatch.delenv(f"UNLIMITEDWS_{name.upper()}", raising=False)
    running = Running(tmp_path, workers=2)
    try:
        yield running.ready()
        running.stop()
    finally:
        running.destroy()


def test_a_setting_in_any_spelling_names_the_server(
    server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(server.folder)
    Path("settings.toml").write_text('control_socket = "control.sock"\nworkers = 2\n')
    assert main(["ctl", "status", "--config", "settings.toml"]) == 0
    monkeypatch.setenv("UNLIMITEDWS_CONTROL_SOCKET", "control.sock")
    assert main(["ctl", "status"]) == 0
    assert capsys.readouterr().out.count(f"pid {server.pid}") == 2
    assert main(["ctl", "status", "--control-socket", "nowhere.sock"]) == 1
    assert main(["ctl", "fly"]) == 2
    assert "nowhere.sock" in capsys.readouterr().err


def test_a_reload_of_code_that_does_not_start_ends_with_its_error(server: Running) -> None:
    server.expected = "Traceback (most recent call last)"
    workers = server.workers()
    (server.folder / "app.py").write_text("raise RuntimeError('broken code')")
    done = server.ctl("reload")
    assert done.returncode == 1
    assert "broken code" in done.stderr
    assert server.workers() == workers
    (server.folder / "app.py").write_text("from unlimitedws import Handlers\nhandlers = Handlers()\n")
    done = server.ctl("reload")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the new code serves in 2 workers")
    assert server.stats["reloads"] == 1
    assert not set(workers) & set(server.workers())


def test_two_that_reload_at_once_are_both_told_how_it_ended(server: Running) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(server.ctl("reload").returncode)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [0, 0]
    assert server.stats["reloads"] in (1, 2)


def test_a_stop_returns_when_the_server_is_gone(server: Running) -> None:
    done = server.ctl("stop")
    assert (done.returncode, done.stdout) == (0, "stopping\nstopped\n")
    until(lambda: server.process.poll() is not None)
    assert server.ctl("status").returncode == 1
