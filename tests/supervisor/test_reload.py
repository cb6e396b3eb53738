"""Code that changes under workers that run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.certificates import Authority
from tests.supervisor.conftest import Run
from tests.supervisor.counting import COUNTING, counted
from tests.supervisor.running import CONTROL, Running, is_alive, launcher, until

VERSIONED = """
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def tell(conn, message):
    conn.send("VERSION")
"""


def version(number: int) -> str:
    return VERSIONED.replace("VERSION", f"version {number}")


def answer(server: Running) -> str | bytes:
    """What a new client is told; nothing where its worker left meanwhile."""
    try:
        with server.connect() as client:
            client.send("?")
            return client.recv(timeout=30)
    except ConnectionClosed:
        return ""


def rewrite(server: Running, source: str) -> None:
    (server.folder / "app.py").write_text(source)


def test_sighup_brings_fresh_code_to_every_slot_and_closes_nobody(run: Run, engine_name: str) -> None:
    server = run(source=version(1), workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(6)]
    for client in clients:
        client.send("?")
    assert {client.recv(timeout=30) for client in clients} == {"version 1"}
    before = server.workers()
    rewrite(server, version(2))
    server.signal(signal.SIGHUP)
    server.says("reloaded app:handlers")
    server.successors(*before, workers=2)
    assert {answer(server) for _ in range(8)} == {"version 2"}
    until(lambda: not any(is_alive(pid) for pid in before))
    for client in clients:
        client.send("?")
    assert {client.recv(timeout=30) for client in clients} == {"version 2"}
    stats = server.stats
    assert (stats["reloads"], stats["restarts"]) == (1, 0)
    assert stats["total"]["connections_open"] == 6
    assert stats["total"]["closes"]["drain"] == 0
    assert len(templates(server)) == 1


def test_state_outlives_many_reloads(run: Run, engine_name: str) -> None:
    server = run(source=COUNTING.replace("def count", "async def count"), workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(3)]
    for number in range(1, 6):
        assert [each.messages for each in counted(clients)] == [number] * 3
        server.signal(signal.SIGHUP)
        until(lambda number=number: server.stats["reloads"] == number)  # type: ignore[misc]


def test_what_cannot_move_is_closed_with_1012(run: Run, tmp_path: Path, engine_name: str) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    server = run(source=version(1), certfile=chain, keyfile=key, workers=1, engine=engine_name).ready()
    url = f"wss://127.0.0.1:{server.port}/"
    context = authority.client_context()
    context.check_hostname = False
    with connect(url, ssl=context, open_timeout=30, close_timeout=5) as client:
        assert server.ctl("reload").stdout.endswith("the new code serves in 1 worker; 1 connection that could not move closed with 1012\n")
        server.says("closes with 1012 what cannot move: 1 connections")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


def test_a_client_that_talks_all_the_time_misses_nothing(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(4)]
    sent = 0
    for reload in range(1, 4):
        server.signal(signal.SIGHUP)
        while server.stats["reloads"] < reload:
            for client in clients:
                client.send(f"{sent}")
            sent += 1
    for client in clients:
        assert [client.recv(timeout=30) for _ in range(sent)] == [f"{number}" for number in range(sent)]


def test_the_port_is_open_all_through_a_reload(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    port = server.port
    rewrite(server, version(2))
    server.signal(signal.SIGHUP)
    while "reloaded app:handlers" not in server.log:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()


IMPORT_FAILS = "raise RuntimeError('broken code')"
ON_START_FAILS = version(2) + "@handlers.on_start\ndef no(worker):\n    raise OSError('no')\n"


@pytest.mark.parametrize("broken", [IMPORT_FAILS, ON_START_FAILS], ids=["import fails", "on_start fails"])
def test_code_that_does_not_start_changes_nothing(run: Run, broken: str) -> None:
    server = run(source=version(1), workers=2).ready()
    server.expected = "Traceback (most recent call last)"
    workers, template = server.workers(), server.template()
    rewrite(server, broken)
    server.signal(signal.SIGHUP)
    server.says(r"reload failed|goes on with the code it has")
    assert server.workers() == workers
    assert answer(server) == "version 1"
    until(lambda: templates(server) == [template])
    rewrite(server, version(3))
    server.signal(signal.SIGHUP)
    server.says("reloaded app:handlers")
    server.successors(*workers, workers=2)
    assert answer(server) == "version 3"


def test_a_start_that_failed_is_not_said_to_have_lost_connections(run: Run) -> None:
    server = run(source=version(1), workers=1).ready()
    server.expected = "Traceback (most recent call last)"
    rewrite(server, ON_START_FAILS)
    server.signal(signal.SIGHUP)
    server.says("goes on with the code it has")
    until(lambda: len(server.stats["workers"]) == 1)
    assert "is lost" not in server.log


HANGS = """
import os, time
while os.path.exists("import hangs"):
    time.sleep(0.02)
"""
WAITS = """
import asyncio, os

@handlers.on_start
async def start(worker):
    while os.path.exists("start hangs"):
        await asyncio.sleep(0.02)
"""
BLOCKS = WAITS.replace("async def", "def").replace("await asyncio.sleep", "__import__('time').sleep")

IMPATIENT = """
from unlimitedws.supervisor import child, generation, hatching
hatching.SLOW_START_S = generation.SLOW_IMPORT_S = child.GIVE_UP_S = 0.2
""" + launcher(workers=2, control_socket=CONTROL)


@pytest.mark.parametrize(
    ("what", "source", "slow"),
    [
        (
            "import hangs",
            HANGS + version(2),
            "still importing the app app:handlers after .*; the next reload that is asked for gives it up",
        ),
        ("start hangs", version(2) + WAITS, "still in on_start; the next reload that is asked for gives it up"),
        ("start hangs", version(2) + BLOCKS, "still in on_start"),
    ],
    ids=["import", "async on_start", "on_start"],
)
def test_code_that_hangs_in_its_start_is_given_up_for_the_next_reload(run: Run, what: str, source: str, slow: str) -> None:
    server = run(source=version(1), script=IMPATIENT).ready()
    (server.folder / what).touch()
    rewrite(server, source)
    server.signal(signal.SIGHUP)
    server.says(slow)
    assert ", changing (" in server.ctl("status").stdout
    assert answer(server) == "version 1"
    rewrite(server, version(3))
    server.signal(signal.SIGHUP)
    server.says("given up for the next reload")
    server.says("reloaded app:handlers")
    assert answer(server) == "version 3"
    until(lambda: len(server.stats["processes"]) == 4)


def test_more_workers_that_hang_in_their_start_do_not_hold_a_reload_up(run: Run) -> None:
    server = run(source=version(1) + WAITS, script=IMPATIENT).ready()
    (server.folder / "start hangs").touch()
    assert server.ctl("workers", "8", "--no-wait").returncode == 0
    until(lambda: re.search("changing .in on_start: worker .* of slot 4 and 3 more.,", server.ctl("status").stdout))
    server.says("still in on_start")
    rewrite(server, version(2))
    assert server.ctl("reload").returncode == 0
    assert re.search("no 8 workers, 2 go on: .*given up for the next reload", server.log)
    assert answer(server) == "version 2"


def test_a_worker_of_the_old_code_that_starts_late_does_not_take_the_place_of_the_fresh_one(run: Run, engine_name: str) -> None:
    server = run(source=version(1) + WAITS, workers=1, engine=engine_name).ready()
    (server.folder / "start hangs").touch()
    os.kill(server.workers()[0], signal.SIGKILL)
    until(lambda: [worker["state"] for worker in server.stats["workers"]] == ["starting"])
    (late,) = [worker["pid"] for worker in server.stats["workers"]]
    rewrite(server, version(2))
    server.signal(signal.SIGHUP)
    server.says("reloaded app:handlers")
    client = server.connect()
    (server.folder / "start hangs").unlink()
    until(lambda: not is_alive(late))
    client.send("?")
    assert client.recv(timeout=30) == "version 2"
    assert answer(server) == "version 2"
    assert server.stats["total"]["closes"]["drain"] == 0


SECOND_WAITS = WAITS.replace('while os.path.exists("start hangs")', 'while os.path.exists("first") and os.path.exists("start hangs")') + (
    '    open("first", "w").close()\n'
)


def test_a_reload_whose_template_is_killed_in_the_middle_comes_to_its_end(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    before = server.workers()
    (server.folder / "start hangs").touch()
    rewrite(server, version(2) + SECOND_WAITS)
    server.signal(signal.SIGHUP)
    until(
        lambda: [(worker["slot"], worker["state"]) for worker in server.stats["workers"]] == [(0, "ready"), (1, "ready"), (1, "starting")]
    )
    os.kill(server.template(), signal.SIGKILL)
    server.says("template process .* died")
    os.kill(server.stats["workers"][-1]["pid"], signal.SIGKILL)
    server.says("reload: slot 1 goes on with the code it has")
    (server.folder / "start hangs").unlink()
    server.says("reloaded app:handlers")
    server.successors(*before, workers=2)
    assert {answer(server) for _ in range(8)} == {"version 2"}


IN_STEPS = (
    version(2)
    + """
import os, time

with open("imports", "a") as imports:
    imports.write("!")
number = os.path.getsize("imports")

def pass_by(gate):
    print(gate, flush=True)
    while os.path.exists(gate):
        time.sleep(0.02)

pass_by(f"import {number}")
handlers.on_start = lambda worker: pass_by("start")
"""
)


def templates(server: Running) -> list[int]:
    return [process["pid"] for process in server.stats["processes"] if process["role"] == "template"]


def stepping(run: Run, **settings: object) -> Running:
    """A server that reloads code which stops at each gate, a file, for as long as it is there."""
    server = run(source=version(1), workers=2, **settings).ready()
    rewrite(server, IN_STEPS)
    (server.folder / "start").touch()
    return server


@pytest.mark.parametrize("is_in_use", [False, True], ids=["before it is in use", "when it is in use"])
def test_a_template_that_dies_in_the_middle_is_replaced_and_the_reload_goes_on(run: Run, is_in_use: bool) -> None:
    server = stepping(run)
    workers, template = server.workers(), server.template()
    server.signal(signal.SIGHUP)
    server.says("start")
    (fresh,) = set(templates(server)) - {template}
    os.kill(fresh, signal.SIGSTOP if is_in_use else signal.SIGKILL)
    (server.folder / "start").unlink()
    if is_in_use:
        until(lambda: workers[0] not in server.workers())
        os.kill(fresh, signal.SIGKILL)
    until(lambda: server.stats["reloads"] == 1, but=lambda: server.log)
    server.successors(*workers, workers=2)
    assert {answer(server) for _ in range(8)} == {"version 2"}
    until(lambda: not {template, fresh} & set(templates(server)))


def test_a_template_that_comes_after_a_reload_takes_nothing_from_it(run: Run) -> None:
    server = stepping(run)
    workers, template = server.workers(), server.template()
    for gate in ("import 1", "import 2"):
        (server.folder / gate).touch()
    server.signal(signal.SIGHUP)
    server.says("import 1")
    os.kill(template, signal.SIGKILL)
    server.says(f"template process {template} died")
    (fresh,) = templates(server)
    (server.folder / "import 1").unlink()
    server.says("import 2")
    server.says("start")
    os.kill(fresh, signal.SIGSTOP)  # the order of the second worker waits
    (server.folder / "start").unlink()
    until(lambda: workers[0] not in server.workers())
    late = next(pid for pid in templates(server) if pid != fresh)
    (server.folder / "import 2").unlink()
    until(lambda: templates(server) == [fresh], but=lambda: f"{fresh} {late} {server.log}")
    os.kill(fresh, signal.SIGCONT)
    until(lambda: server.stats["reloads"] == 1, but=lambda: server.log)
    server.successors(*workers, workers=2)


def test_a_worker_that_is_not_forked_before_a_reload_is_no_failure(run: Run) -> None:
    server = stepping(run, restart_backoff_s=0)
    template, (_, victim) = server.template(), server.workers()
    os.kill(template, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    server.says(rf"worker {victim} of slot 1 ended")  # how, a template would know that is not stopped
    server.signal(signal.SIGHUP)
    server.says("start")
    (server.folder / "start").unlink()
    until(lambda: server.stats["reloads"] == 1, but=lambda: server.log)
    os.kill(template, signal.SIGCONT)
    server.successors(victim, workers=2)
    assert server.stats["restarts"] == 1
    assert "no worker could start" not in server.log


def test_many_reloads_leave_nothing_behind(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    descriptors = len(os.listdir(f"/proc/{server.pid}/fd"))
    for number in range(2, 7):
        rewrite(server, version(number))
        server.signal(signal.SIGHUP)
        until(lambda number=number: server.stats["reloads"] == number - 1)  # type: ignore[misc]
        until(lambda number=number: answer(server) == f"version {number}")  # type: ignore[misc]
    until(lambda: len(server.stats["processes"]) == 4)
    until(lambda: len(os.listdir(f"/proc/{server.pid}/fd")) <= descriptors)


def test_with_reload_a_changed_file_restarts_the_workers(run: Run) -> None:
    source = "import helper\n" + VERSIONED.replace('"VERSION"', "helper.version")
    server = run(source=version(1), files={"helper.py": "version = 'version 2'\n"}, workers=1, reload=True).ready()
    assert answer(server) == "version 1"
    rewrite(server, source)
    server.says("app.py changed")
    until(lambda: answer(server) == "version 2")
    reloads = server.stats["reloads"]
    (server.folder / "helper.py").write_text("version = 'version 3'\n")
    until(lambda: answer(server) == "version 3")
    assert server.stats["reloads"] > reloads


def test_with_reload_broken_code_is_reported_and_the_next_change_tried(run: Run) -> None:
    server = run(source=version(1), workers=1, reload=True).ready()
    server.expected = "Traceback (most recent call last)"
    rewrite(server, "this is no Python")
    server.says("reload failed, the workers go on with the code they have")
    assert answer(server) == "version 1"
    time.sleep(0.01)  # another modification time
    rewrite(server, version(2))
    until(lambda: answer(server) == "version 2")


def test_a_stop_in_the_middle_of_a_reload_leaves_nothing_behind(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    rewrite(server, "print('importing', flush=True)\nimport time\ntime.sleep(60)")
    server.signal(signal.SIGHUP)
    server.says("importing")
    server.signal(signal.SIGTERM)
    assert server.ends(10) == 0


def served_names(server: Running, authority: Authority) -> list[str]:
    """The names of the certificate that a new client sees."""
    context = authority.client_context()
    context.check_hostname = False
    with context.wrap_socket(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as client:
        return [str(name) for kind, name in client.getpeercert()["subjectAltName"] if kind == "DNS"]  # type: ignore[index,misc]


def test_a_reload_takes_a_renewed_certificate_at_once_and_none_that_is_broken(run: Run, tmp_path: Path, engine_name: str) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("old.example")
    server = run(source=version(1), certfile=chain, keyfile=key, workers=2, engine=engine_name).ready()
    assert served_names(server, authority) == ["old.example"]
    kept = shutil.copy(chain, tmp_path / "kept.pem")
    chain.write_text("garbage")
    server.signal(signal.SIGHUP)
    server.says("reload failed, the workers go on with the code they have: TLS cannot use .*fullchain.pem: there is no certificate in it")
    shutil.copy(kept, chain)
    authority.issue("new.example", into=chain.parent)
    server.signal(signal.SIGHUP)
    until(lambda: server.stats["reloads"] == 1)
    until(lambda: served_names(server, authority) == ["new.example"])
