"""More workers and fewer while the server runs: what clients, counters and the operator see of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect, unix_connect

from tests.certificates import Authority
from tests.supervisor.conftest import Run
from tests.supervisor.counting import COUNTING, counted
from tests.supervisor.manager import managing
from tests.supervisor.running import CONTROL, CTL, ECHO, Running, descriptors, is_alive, launcher, listening_inodes, until, with_open_files
from tests.supervisor.test_fleet import Talk
from unlimitedws.supervisor.scaling import evenly


def scale(server: Running, workers: int) -> str:
    """Has so many workers serve; what it says at the end."""
    done = server.ctl("workers", str(workers))
    assert done.returncode == 0, f"{done.stderr}\n{server.log}"
    return done.stdout.splitlines()[-1]


def held(server: Running) -> list[int]:
    """Connections of each worker that serves, by slot."""
    return [worker["connections_open"] for worker in server.stats["workers"] if worker["state"] == "ready"]


class Newcomers:
    """Connects again and again, in a thread of its own, and counts those that did not get their echo."""

    def __init__(self, server: Running) -> None:
        self.url = f"ws://127.0.0.1:{server.port}/"
        self.came, self.failed = 0, list[str]()
        self.stopping = False
        self.thread = threading.Thread(target=self.come, daemon=True)
        self.thread.start()

    def come(self) -> None:
        while not self.stopping:
            try:
                with connect(self.url, open_timeout=30, close_timeout=30) as client:
                    client.send("hello")
                    assert client.recv(timeout=30) == "hello"
            except Exception as error:
                self.failed.append(repr(error))
            self.came += 1

    def finish(self) -> list[str]:
        """What those who failed met."""
        self.stopping = True
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.failed


@contextlib.contextmanager
def newcomers(server: Running) -> Iterator[Newcomers]:
    coming = Newcomers(server)
    try:
        yield coming
        seen = coming.came
        until(lambda: coming.came > seen + 5)
    finally:
        failed = coming.finish()
    assert failed == [], server.log


# ---- clients


def test_from_one_to_four_to_two_under_load_nobody_loses_a_message_and_no_newcomer_is_refused(run: Run, engine_name: str) -> None:
    server = run(workers=1, engine=engine_name).ready()
    talks = [Talk(server.connect()) for _ in range(12)]
    with newcomers(server):
        for workers in (4, 2, 3, 1):
            before = [talk.answers for talk in talks]
            scale(server, workers)
            until(lambda before=before: all(talk.answers > was + 5 for talk, was in zip(talks, before, strict=True)))  # type: ignore[misc]
            assert len(server.workers()) == workers
    assert [talk.finish() for talk in talks] == [True] * 12
    assert [talk.wrong for talk in talks] == [0] * 12
    stats = server.stats
    assert (stats["restarts"], stats["total"]["closes"]["drain"], stats["total"]["connections_refused"]) == (0, 0, 0)


def test_connections_are_moved_evenly_with_their_state(run: Run, engine_name: str) -> None:
    server = run(source=COUNTING, workers=1, engine=engine_name).ready()
    clients = [server.connect() for _ in range(12)]
    ids = set()
    for number, workers, shares in ((1, 1, [12]), (2, 4, [3, 3, 3, 3]), (3, 2, [6, 6]), (4, 3, [4, 4, 4])):
        scale(server, workers)
        until(lambda shares=shares: held(server) == shares, but=lambda: server.log)  # type: ignore[misc]
        said = counted(clients)
        assert {each.messages for each in said} == {number}
        ids |= {each.id for each in said}
    assert len(ids) == 12


def test_new_workers_get_their_share_of_new_connections(run: Run, engine_name: str) -> None:
    server = run(workers=1, engine=engine_name).ready()
    scale(server, 3)
    until(lambda: server.echoes() and all(slot["connections_opened"] for slot in server.stats["slots"]))


def test_what_cannot_move_is_closed_with_1012_and_told(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    chain, key = authority.issue("localhost")
    server = run(certfile=chain, keyfile=key, workers=2).ready()
    context = authority.client_context()
    context.check_hostname = False
    clients = [connect(f"wss://127.0.0.1:{server.port}/", ssl=context, open_timeout=30, close_timeout=5) for _ in range(12)]
    for client in clients:
        server.clients.enter_context(client)
    until(lambda: sum(held(server)) == 12)
    leaving = held(server)[1]
    said = scale(server, 1)
    assert (f"; {leaving} connection" in said) == ("that could not move closed with 1012" in said) == bool(leaving)
    closed = []
    for client in clients:
        try:
            client.send("still there?")
            assert client.recv(timeout=30) == "still there?"
        except ConnectionClosed as error:
            closed.append(error.rcvd.code if error.rcvd else None)
    assert closed == [1012] * leaving


@pytest.mark.parametrize("place", ["unix:app.sock", "unix:app.sock, 127.0.0.1:0", "127.0.0.1:0, 127.0.0.1:0"])
def test_every_kind_of_place_is_served_by_those_that_come_and_by_those_that_stay(run: Run, place: str) -> None:
    server = run(listen=place, workers=1).ready()

    def echo() -> None:
        for where in server.places:
            path, _, port = where.partition(":")
            client = unix_connect(str(relative(server)), "ws://x/") if path == "unix" else connect(f"ws://127.0.0.1:{port}/")
            with client:
                client.send("hello")
                assert client.recv(timeout=30) == "hello"

    for workers in (3, 1, 2):
        scale(server, workers)
        for _ in range(6):
            echo()


def relative(server: Running) -> Path:
    return Path(os.path.relpath(server.folder / "app.sock"))


def test_sockets_of_systemd_that_only_one_worker_had_go_to_a_neighbour(run: Run) -> None:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(reusing(0))]
        socks.append(stack.enter_context(reusing(socks[0].getsockname()[1])))
        server = run(listen="systemd", sockets=socks, workers=2).ready()
        port = socks[0].getsockname()[1]
        for workers in (1, 2, 1):
            scale(server, workers)
            for _ in range(12):
                with connect(f"ws://127.0.0.1:{port}/", open_timeout=30) as client:
                    client.send("hello")
                    assert client.recv(timeout=30) == "hello"


def reusing(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_what_systemd_keeps_follows_the_number_of_workers(run: Run, tmp_path: Path) -> None:
    with managing(f"@{os.urandom(8).hex()}") as manager:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        server = run(workers=1, port=port, environ={"NOTIFY_SOCKET": manager.address, "FDSTORE": "8"}).ready()
        scale(server, 3)
        manager.hears("FDNAME=unlimitedws-2$")
        manager.hears("STATUS=serving 0 connections with 3 workers")
        scale(server, 2)
        assert "FDNAME=unlimitedws-2" in manager.hears("FDSTOREREMOVE")
        scale(server, 3)
        manager.hears("FDNAME=unlimitedws-3$")


REFUSED = """
# A kernel, or a sandbox, that lets nobody steer.
import errno, os
from unlimitedws.supervisor import steering

def refuse(listener, weights):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))

steering.attach = refuse

"""


def test_where_nobody_may_steer_newcomers_wait_a_moment_and_are_not_refused(run: Run) -> None:
    server = run(script=REFUSED + launcher(workers=2, control_socket=CONTROL)).ready()
    server.says("the kernel lets nobody steer new connections")
    with newcomers(server):
        for workers in (4, 1, 2):
            scale(server, workers)
    assert server.stats["total"]["closes"]["drain"] == 0


def test_a_worker_that_is_restarted_all_the_time_can_be_removed(run: Run) -> None:
    source = ECHO + (
        "import os, time\n@handlers.on_start\ndef stuck(worker):\n    while os.path.exists('stuck'):\n        time.sleep(0.02)\n"
    )
    server = run(source=source, workers=2, stop_timeout_s=1).ready()
    (server.folder / "stuck").touch()
    victim = server.workers()[1]
    os.kill(victim, signal.SIGKILL)
    until(lambda: [worker["state"] for worker in server.stats["workers"]] == ["ready", "starting"])
    scale(server, 1)
    assert len(server.stats["workers"]) == 1
    assert server.echoes()
    (server.folder / "stuck").unlink()
    scale(server, 2)


# ---- what is shown


def counters(server: Running) -> dict[str, float]:
    """Every counter of /metrics, by name and labels."""
    lines = server.get("/metrics")[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if re.match(r"\w+(_total|_count)\{", line))}


def test_no_counter_goes_back_or_away_and_no_gauge_of_a_removed_slot_stays(run: Run) -> None:
    server = run(workers=3).ready()
    for _ in range(30):
        assert server.echoes()
    until(lambda: server.stats["total"]["closes"]["peer_closed"] == 30)
    before, total = counters(server), server.stats["total"]
    scale(server, 1)
    for again in range(2):
        now, stats = counters(server), server.stats
        assert {name: value for name, value in before.items() if now[name] < value} == {}
        assert all(stats["total"][name] >= total[name] for name in ("connections_opened", "messages_in", "bytes_out", "cpu_us"))
        assert [slot["slot"] for slot in stats["slots"]] == ([0, 1, 2] if again else [0])
        assert ('unlimitedws_worker_ready{slot="2"}' in server.get("/metrics")[1]) == bool(again)
        assert ('unlimitedws_connections_open{slot="2"}' in server.get("/metrics")[1]) == bool(again)
        before = now
        scale(server, 3)
    assert len(server.stats["total"]["closes"]) > 0
    assert server.get("/readyz")[0] == 200


def test_the_log_has_a_line_for_each_change_and_says_what_moved(run: Run) -> None:
    server = run(workers=1).ready()
    for _ in range(4):
        server.connect()
    until(lambda: held(server) == [4])
    moved = r"; \d connections moved"  # 2; more where a worker is so slow that it seems to have too few
    assert re.fullmatch(rf"2 workers, 1 before{moved}", scale(server, 2))
    assert scale(server, 2) == "2 workers, 2 before"
    assert scale(server, 1) == "1 worker, 2 before; 2 connections moved"
    first, second = re.findall(r"scaled (.*)", server.log)
    assert re.fullmatch(rf"from 1 to 2 workers{moved}, 0 closed with 1012", first)
    assert second == "from 2 to 1 workers; 2 connections moved, 0 closed with 1012"


def test_nothing_is_left_of_workers_that_have_gone(run: Run) -> None:
    server = run(workers=1).ready()
    scale(server, 2)
    scale(server, 1)  # what is imported at the first time, is
    before, worker = descriptors(server.pid), server.workers()[0]
    of_worker = len(descriptors(worker))
    for _ in range(3):
        scale(server, 4)
        scale(server, 1)
    until(lambda: len(descriptors(server.pid)) <= len(before), but=lambda: f"{before}\n{descriptors(server.pid)}")
    assert len(descriptors(worker)) <= of_worker
    assert len(listening_inodes(server.pid)) == 2  # and the admin port's
    assert len(server.stats["processes"]) == 3


# ---- by signal


def test_signals_add_and_remove_one_and_the_last_one_stays(run: Run) -> None:
    server = run(workers=1).ready()
    server.signal(signal.SIGTTIN)
    until(lambda: len(server.workers()) == 2)
    server.signal(signal.SIGTTIN)
    until(lambda: len(server.workers()) == 3)
    for left in (2, 1):
        server.signal(signal.SIGTTOU)
        until(lambda left=left: len(server.workers()) == left)  # type: ignore[misc]
    server.signal(signal.SIGTTOU)
    server.says("SIGTTOU: 1 is the least number of workers")
    assert server.echoes()


def test_workers_shrug_at_a_signal_to_the_whole_group(run: Run) -> None:
    server = run(workers=1).ready()
    os.killpg(server.pid, signal.SIGTTIN)
    until(lambda: len(server.workers()) == 2)
    assert all(server.echoes() for _ in range(4))


# ---- what happens in the middle


def test_a_reload_keeps_the_number(run: Run) -> None:
    server = run(workers=1).ready()
    scale(server, 3)
    before = server.workers()
    assert server.ctl("reload").returncode == 0
    assert len(server.successors(*before, workers=3)) == 3
    scale(server, 2)
    assert server.ctl("reload").returncode == 0
    assert len(server.workers()) == 2


def test_two_who_ask_at_once_both_get_what_they_asked_for_one_after_the_other(run: Run) -> None:
    server = run(workers=2).ready()
    said: list[str] = []
    threads = [threading.Thread(target=lambda n=n: said.append(scale(server, n))) for n in (4, 1, 3)]  # type: ignore[misc]
    threads.append(threading.Thread(target=lambda: said.append(server.ctl("reload").stdout)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(said) == 4
    last = re.findall(r"scaled from \d+ to (\d+)", server.log)[-1]
    assert len(server.workers()) == int(last)
    assert server.echoes()


def test_more_than_the_open_files_allow_are_refused_and_everything_goes_on(run: Run) -> None:
    flags = ["--workers", "1", "--port", "0", "--admin-port", "0", "--control-socket", CONTROL]
    server = run(arguments=with_open_files(40, "-m", "unlimitedws", "app:handlers", *flags)).ready()
    client = server.connect()
    scaling = subprocess.run([*CTL, "workers", "20", "--control-socket", CONTROL], cwd=server.folder, capture_output=True, text=True)
    assert scaling.returncode == 1
    told = "no 20 workers, 1 go on: 20 workers and their supervisor need 84 open files each, and the limit is 40: raise"
    assert scaling.stderr.startswith(f"unlimitedws: {told}")
    client.send("still there")
    assert client.recv(timeout=30) == "still there"


def test_a_worker_that_does_not_start_changes_nothing_and_is_told(run: Run) -> None:
    source = ECHO + "import os\n@handlers.on_start\ndef no(worker):\n    if os.path.exists('full'):\n        raise OSError('no room')\n"
    server = run(source=source, workers=2).ready()
    server.expected = "Traceback (most recent call last)"
    (server.folder / "full").touch()
    workers = server.workers()
    done = server.ctl("workers", "4")
    assert done.returncode == 1
    assert "no 4 workers, 2 go on" in done.stderr
    assert "no room" in done.stderr
    assert server.workers() == workers
    assert len(listening_inodes(server.pid)) == 3
    assert all(server.echoes() for _ in range(6))
    (server.folder / "full").unlink()
    scale(server, 4)


HASTY = """
import os
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
async def slow(conn, message):
    if message == "wait":
        import asyncio
        while not os.path.exists("go"):
            await asyncio.sleep(0.02)
    conn.send(message)
"""


SECOND_FAILS = (
    ECHO
    + """
import asyncio, os

@handlers.on_start
async def start(worker):
    if worker.serial == 2:
        while not os.path.exists("fail"):
            await asyncio.sleep(0.02)
        raise OSError("no")
"""
)


def test_a_worker_that_is_given_up_because_another_failed_moves_whom_it_has_accepted(run: Run, engine_name: str) -> None:
    server = run(source=SECOND_FAILS, listen="unix:ws.sock", workers=1, engine=engine_name).ready()
    server.expected = "Traceback (most recent call last)"
    assert server.ctl("workers", "3", "--no-wait").returncode == 0
    until(
        lambda: [(worker["slot"], worker["state"]) for worker in server.stats["workers"]] == [(0, "ready"), (1, "starting"), (2, "ready")]
    )
    clients: list[ClientConnection] = []

    def is_held_by_the_third() -> bool:
        clients.append(server.connect_at(server.places[0]))
        return bool(server.stats["workers"][2]["connections_open"])

    until(is_held_by_the_third)
    (server.folder / "fail").touch()
    server.says("no 3 workers, 1 go on: on_start failed")
    until(lambda: held(server) == [len(clients)], but=lambda: server.log)
    for client in clients:
        client.send("still there?")
    assert all(answers(client, "still there?") for client in clients)
    assert server.stats["total"]["closes"]["drain"] == 0


def answers(client: ClientConnection, message: str) -> bool:
    """Whether this is what it receives, and not its end."""
    try:
        return client.recv(timeout=30) == message
    except ConnectionClosed:
        return False


def in_the_middle(server: Running) -> tuple[threading.Thread, list[ClientConnection]]:
    """Begins to go from two workers to one, and comes back while the second one has connections that cannot move yet."""
    clients = [server.connect() for _ in range(24)]
    until(lambda: sum(held(server)) == 24 and min(held(server)) > 0)
    for client in clients:
        client.send("wait")
    until(lambda: server.stats["total"]["messages_in"] == 24)
    thread = threading.Thread(target=server.ctl, args=("workers", "1"))
    thread.start()
    until(lambda: json.loads(server.ctl("status", "--json").stdout)["state"] == "changing")
    return thread, clients


@pytest.mark.parametrize("victim", [0, 1], ids=["the one that stays", "the one that goes"])
def test_a_worker_killed_in_the_middle_of_scaling_down_costs_only_its_own_clients(run: Run, victim: int, engine_name: str) -> None:
    server = run(source=HASTY, workers=2, engine=engine_name, handover_timeout_s=60).ready()
    workers = server.workers()
    thread, clients = in_the_middle(server)
    left = held(server)[1 - victim]
    os.kill(workers[victim], signal.SIGKILL)
    until(lambda: not is_alive(workers[victim]))
    with newcomers(server):
        (server.folder / "go").touch()
        thread.join(60)
    assert not thread.is_alive()
    until(lambda: len(server.workers()) == 1 and not is_alive(workers[1]), but=lambda: server.log)
    assert (server.workers() == [workers[0]]) == (victim == 1)
    server.says("scaled from 2 to 1")
    assert sum(answers(client, "wait") for client in clients) == left
    scale(server, 2)
    assert all(server.echoes() for _ in range(6))


def test_kills_at_any_time_leave_the_number_that_was_asked_for_or_told(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name, restart_backoff_s=0.2).ready()
    for workers in (4, 2, 3, 1):
        done: list[subprocess.CompletedProcess[str]] = []
        thread = threading.Thread(target=lambda n=workers, done=done: done.append(server.ctl("workers", str(n))))  # type: ignore[misc]
        thread.start()
        while thread.is_alive():
            if pids := [worker["pid"] for worker in server.stats["workers"]]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[-1], signal.SIGKILL)
            thread.join(0.4)
        told = re.search(r"(\d+) go on", done[0].stderr)
        expected = workers if done[0].returncode == 0 else int(told[1]) if told else -1
        until(lambda expected=expected: len(server.workers()) == expected, 40.0, but=lambda: server.log)  # type: ignore[misc]
        assert server.echoes()


def test_a_stop_in_the_middle_of_scaling_leaves_nothing_behind(run: Run) -> None:
    server = run(source=HASTY, workers=2, handover_timeout_s=60, stop_timeout_s=1).ready()
    thread, _ = in_the_middle(server)
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    thread.join(60)
    assert not thread.is_alive()


def test_a_stop_while_new_workers_start_leaves_nothing_behind(run: Run) -> None:
    source = (
        ECHO
        + "import os, time\n@handlers.on_start\ndef wait(worker):\n    print('starting', flush=True)\n"
        + ("    while os.path.exists('wait'):\n        time.sleep(0.02)\n")
    )
    server = run(source=source, workers=1).ready()
    (server.folder / "wait").touch()
    thread = threading.Thread(target=server.ctl, args=("workers", "3"))
    thread.start()
    until(lambda: server.log.count("starting") >= 3)
    server.signal(signal.SIGTERM)
    (server.folder / "wait").unlink()
    assert server.ends() == 0
    thread.join(60)


# ---- limits


def test_the_limits_of_the_server_are_shared_by_as_many_as_there_are(run: Run) -> None:
    server = run(workers=1, max_connections_per_address=4).ready()
    clients = [server.connect() for _ in range(4)]
    assert refused(server)
    scale(server, 2)  # each may have two, and has two
    assert refused(server)
    scale(server, 1)
    assert refused(server)
    clients[0].close()
    until(lambda: not refused(server))


def refused(server: Running) -> bool:
    try:
        with connect(f"ws://127.0.0.1:{server.port}/", open_timeout=30) as client:
            client.send("hello")
            return client.recv(timeout=30) != "hello"
    except Exception:
        return True


# ---- the plan


@pytest.mark.parametrize(
    ("held", "more", "shares"),
    [
        ([0], 7, [7]),
        ([0, 0, 0], 7, [3, 2, 2]),
        ([5, 0], 5, [0, 5]),
        ([5, 0], 3, [0, 3]),
        ([5, 1, 2], 4, [0, 3, 1]),
        ([9, 9], 0, [0, 0]),
        ([], 3, []),
    ],
)
def test_those_who_hold_least_get_most(held: list[int], more: int, shares: list[int]) -> None:
    assert evenly(held, more) == shares
