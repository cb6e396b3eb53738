"""The control socket: what it answers, to whom, and that no client of it disturbs the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.peer import request
from tests.supervisor.conftest import Run
from tests.supervisor.running import CONTROL, Running, is_alive, launcher, until
from unlimitedws.config import Config
from unlimitedws.errors import BadValue, SocketFileError
from unlimitedws.supervisor import control as module
from unlimitedws.supervisor.control import MOST_CLIENTS, REQUEST_BYTES, listen_for_control
from unlimitedws.supervisor.listeners import listen_for_slots


def say(server: Running, line: bytes) -> list[dict[str, Any]]:
    """The lines that answer this one."""
    with server.dial_control() as sock:
        sock.sendall(line)
        with sock.makefile("rb") as lines:
            return [json.loads(answer) for answer in lines]


def asked(server: Running, **request: object) -> dict[str, Any]:
    """The last line of the answer."""
    return say(server, json.dumps(request).encode() + b"\n")[-1]


def test_only_its_owner_may_connect_and_the_file_goes_with_the_server(run: Run) -> None:
    server = run().ready()
    file = server.folder / CONTROL
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    server.stop()
    assert not file.exists()


def test_a_launcher_script_has_one_too(run: Run) -> None:
    server = run(script=launcher(control_socket="c.sock")).ready()
    assert (server.folder / "c.sock").is_socket()


def test_without_a_path_there_is_none(run: Run) -> None:
    server = run(control_socket="").ready()
    assert not (server.folder / CONTROL).exists()
    assert "unlimitedws ctl" not in server.log


def test_one_request_gets_one_answer_with_its_progress_before(run: Run) -> None:
    server = run(workers=2).ready()
    *progress, last = say(server, b'{"verb": "reload"}\n')
    assert progress[0] == {"progress": "reloading app:handlers"}
    assert last == {"done": {"reloaded": True, "workers": 2, "closed": 0}}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"fly\n", "one line of JSON"),
        (b"\n", "one line of JSON"),
        (b"[1]\n", "one line of JSON"),
        (b"\xff\xfe\n", "one line of JSON"),
        (b"[" * (REQUEST_BYTES - 1) + b"\n", "one line of JSON"),
        (b'{"verb": "' + b"x" * REQUEST_BYTES + b'"}\n', "one line of JSON"),
        (b"{}\n", "does not know None"),
        (b'{"verb": ["status"]}\n', "does not know"),
        (b'{"verb": "fly"}\n', "it knows status, reload"),
        (b'{"verb": "workers"}\n', "1 to 1,024"),
        (b'{"verb": "workers", "number": 0}\n', "1 to 1,024"),
        (b'{"verb": "workers", "number": 1025}\n', "1 to 1,024"),
        (b'{"verb": "workers", "number": true}\n', "1 to 1,024"),
        (b'{"verb": "workers", "number": 1e999}\n', "1 to 1,024"),
        (b'{"verb": "workers", "number": "2"}\n', "1 to 1,024"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(server: Running, line: bytes, why: str) -> None:
    (answer,) = say(server, line)
    assert why in answer["failed"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One that many bad requests leave as it was."""
    running = Running(tmp_path_factory.mktemp("server"))
    try:
        yield running.ready()
        assert running.echoes()
        running.stop()
    finally:
        running.destroy()


def test_clients_that_are_silent_leave_or_do_not_read_disturb_nobody(run: Run) -> None:
    server = run(workers=2).ready()
    silent = [server.dial_control() for _ in range(8)]
    for said in (b"", b'{"verb": "sta', b'{"verb": "status"}\n', b'{"verb": "reload"}\n', b"\n" * 100_000):
        for _ in range(4):
            with server.dial_control() as client, contextlib.suppress(OSError):  # it hangs up in the middle of the flood
                client.sendall(said)
    assert asked(server, verb="status")["done"]["state"] in ("serving", "changing")
    assert server.echoes()
    for client in silent:
        client.close()
    until(lambda: asked(server, verb="status")["done"]["state"] == "serving")


def test_silent_clients_cannot_take_all_its_descriptors_and_are_sent_away_in_time(run: Run) -> None:
    server = run().ready()
    silent = [server.dial_control() for _ in range(MOST_CLIENTS)]
    with server.dial_control() as one_more:
        assert one_more.recv(100) == b""
    for client in silent:
        assert client.recv(100) == b""  # after REQUEST_S
        client.close()
    assert asked(server, verb="status")["done"]["state"] == "serving"


def test_what_was_begun_goes_on_without_its_client(run: Run) -> None:
    server = run(workers=1).ready()
    with server.dial_control() as client:
        client.sendall(b'{"verb": "workers", "number": 3}\n')
    until(lambda: len(server.workers()) == 3)


def test_who_does_not_want_to_wait_hears_that_it_has_begun(run: Run) -> None:
    server = run(workers=1).ready()
    assert say(server, b'{"verb": "workers", "number": 2, "wait": false}\n') == [{"done": {"begun": True}}]
    assert say(server, b'{"verb": "reload", "wait": false}\n') == [{"done": {"begun": True}}]
    until(lambda: len(server.workers()) == 2 and server.stats["reloads"] == 1)


def test_the_last_line_of_a_stop_comes_when_nothing_is_left(run: Run) -> None:
    server = run(workers=2).ready()
    workers = server.workers()
    assert asked(server, verb="stop") == {"done": {"stopped": True}}
    assert not any(is_alive(pid) for pid in workers)
    assert server.ends() == 0


def test_a_stop_that_takes_its_time_tells_how_many_are_left(run: Run) -> None:
    server = run(workers=1, close_timeout_s=60, stop_timeout_s=60).ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as mute, server.dial_control() as sock:
        mute.sendall(request())
        assert mute.recv(4096).startswith(b"HTTP/1.1 101")
        until(lambda: server.stats["total"]["connections_open"] == 1)
        sock.sendall(b'{"verb": "stop"}\n')
        with sock.makefile("rb") as lines:
            assert [json.loads(lines.readline()) for _ in range(2)] == [{"progress": "stopping"}, {"progress": "1 connections left"}]
            server.signal(signal.SIGTERM)
            assert json.loads(list(lines)[-1]) == {"done": {"stopped": True}}
    assert server.ends() == 0


def test_a_stop_by_somebody_else_ends_what_is_waited_for(run: Run) -> None:
    source = "print('importing', flush=True)\nimport time\ntime.sleep(60)"
    server = run(workers=1).ready()
    (server.folder / "app.py").write_text(source)
    with server.dial_control() as client, server.dial_control() as silent:
        client.sendall(b'{"verb": "reload"}\n')
        server.says("importing")
        server.signal(signal.SIGTERM)
        with client.makefile("rb") as lines:
            assert "the server is stopping" in json.loads(lines.readlines()[-1])["failed"]
        assert silent.recv(100) == b""
    assert server.ends() == 0


# ---- the file


def test_what_a_killed_server_left_is_replaced(run: Run) -> None:
    server = run().ready()
    os.kill(server.pid, signal.SIGKILL)
    server.ends()
    assert (server.folder / CONTROL).is_socket()
    run(control_socket=f"../{server.folder.name}/{CONTROL}").ready()
    assert asked(server, verb="status")["done"]["pid"] != server.pid


def test_a_server_that_answers_there_is_an_error_where_the_path_was_given(run: Run) -> None:
    server = run().ready()
    other = run(control_socket=f"../{server.folder.name}/{CONTROL}")
    assert other.ends() == 1
    assert "another server answers there" in other.log
    assert "control_socket" in other.log
    assert asked(server, verb="status")["done"]["pid"] == server.pid


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_with_auto_the_server_goes_on_without_and_a_line_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "nowhere")
    assert listen_for_control(Config(), 8000) is None
    (line,) = caplog.messages
    assert "nowhere/unlimitedws-8000.sock" in line
    assert "set control_socket" in line
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/" + "x" * 200)
    assert listen_for_control(Config(), 8000) is None


def test_with_auto_it_is_named_by_the_port(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", ".")
    listener = listen_for_control(Config(), 8000)
    assert listener is not None
    assert Path("unlimitedws-8000.sock").is_socket()
    listener.close()
    assert not Path("unlimitedws-8000.sock").exists()


def test_a_path_that_was_given_has_to_be_usable(here: Path) -> None:
    with pytest.raises(SocketFileError, match="its folder does not exist"):
        listen_for_control(Config(control_socket="no/where.sock"), None)
    with pytest.raises(BadValue, match="at most 107 bytes"):
        Config(control_socket="x" * 200)


def test_the_port_is_that_of_the_first_tcp_listener(here: Path) -> None:
    for listen, has_port in (("unix:a.sock", False), ("unix:b.sock, 127.0.0.1:0", True)):
        listeners = listen_for_slots(Config(listen=listen), 1)
        try:
            assert bool(listeners.port) == has_port
        finally:
            listeners.close()


# ---- defects


async def crash(*_: object) -> dict[str, Any]:
    raise ZeroDivisionError


def test_a_defect_is_told_and_logged(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> bytes:
        listener = listen_for_control(Config(control_socket="c.sock"), None)
        assert listener is not None
        control = module.Control({"crash": crash})
        await control.serve(listener.sock)
        reader, writer = await asyncio.open_unix_connection("c.sock")
        writer.write(b'{"verb": "crash"}\n')
        answer = await reader.read()
        writer.close()
        await control.close()
        listener.close()
        return answer

    assert "defect" in json.loads(asyncio.run(main()))["failed"]
    assert "ZeroDivisionError" in caplog.text
