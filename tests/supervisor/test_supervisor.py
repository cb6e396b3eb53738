"""A server as its operator sees it: start, signals, exit codes, the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.supervisor.conftest import Run
from tests.supervisor.running import CTL, ECHO, ROOT, Running, marked, read_bytes, until, until_gone, with_open_files
from unlimitedws import ConfigError, Supervisor, UnlimitedwsError

SLOW_CLIENT_APP = """
import time
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def block(conn, message):
    print("blocking", flush=True)
    time.sleep(60)
"""


def test_clients_get_their_echo_from_every_worker(run: Run, engine_name: str) -> None:
    server = run(workers=3, engine=engine_name).ready()
    assert server.says(r"with 3 workers, engine (\w+)")[1] == engine_name
    assert all(server.echoes() for _ in range(12))
    assert server.stats["total"]["connections_opened"] == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_clients_with_1001_and_ends_with_0(run: Run, number: signal.Signals, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(10)]
    server.signal(number)
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "server is stopping, retry in 1 s")
    assert server.ends() == 0


def test_too_few_open_files_are_one_line_that_says_what_to_do(run: Run) -> None:
    server = run(arguments=with_open_files(20, "-m", "unlimitedws", "app:handlers", "--workers", "1"))
    assert server.ends() == 1
    assert server.log.count("\n") == 1
    assert server.log.startswith("unlimitedws: 1 worker and their supervisor need 33 open files each, and the limit is 20: raise")


def test_a_working_directory_that_is_gone_is_one_line(run: Run) -> None:
    leaving = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    server = run(arguments=["-c", leaving, "-m", "unlimitedws.supervisor", "app:handlers", "--port", "0"])
    assert server.ends() == 1
    assert server.log == "unlimitedws: the working directory is gone; cd to one that is there\n"


def test_closed_standard_streams_are_nobody_else_s(run: Run) -> None:
    closing = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    flags = ["--workers", "1", "--port", "0", "--admin-port", "0", "--control-socket", "quiet.sock"]
    server = run(arguments=["-c", closing, "-m", "unlimitedws.supervisor", "app:handlers", *flags])
    status = [*CTL, "status", "--control-socket", str(server.folder / "quiet.sock")]
    until(lambda: " ready " in subprocess.run(status, capture_output=True, text=True).stdout)
    for pid in marked(server.mark):
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
    server.signal(signal.SIGTERM)
    assert server.ends() == 0


def test_new_clients_are_refused_as_soon_as_it_stops(run: Run) -> None:
    server = run(stop_timeout_s=20).ready()
    port = server.port
    with socket.create_connection(("127.0.0.1", port)) as mute:
        shake_hands(mute)
        server.signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=30).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused)
        assert server.process.poll() is None  # the mute client has not answered its Close frame
    assert server.ends() == 0


def test_a_client_that_does_not_answer_cannot_stop_it_from_stopping(run: Run) -> None:
    server = run(stop_timeout_s=1, close_timeout_s=60).ready()
    with socket.create_connection(("127.0.0.1", server.port)) as mute:
        shake_hands(mute)
        server.signal(signal.SIGTERM)
        assert server.ends(15) == 0


def test_a_second_signal_stops_at_once(run: Run) -> None:
    server = run(stop_timeout_s=300, close_timeout_s=300).ready()
    with socket.create_connection(("127.0.0.1", server.port)) as mute:
        shake_hands(mute)
        server.signal(signal.SIGTERM)
        server.says("SIGTERM: stopping")
        server.signal(signal.SIGTERM)
        assert server.ends(10) == 0
    assert "killing worker" not in server.log


def test_a_second_signal_kills_a_worker_that_hangs(run: Run) -> None:
    server = run(source=SLOW_CLIENT_APP, stop_timeout_s=300).ready()
    with server.connect() as client:
        client.send("block")
        server.says("blocking")
        server.signal(signal.SIGINT)
        server.says("SIGINT: stopping")
        server.signal(signal.SIGINT)
        assert server.ends(15) == 0
    server.says(r"killing worker \d+ of slot 0: it did not stop at the second signal")


def test_ctrl_c_in_a_terminal_reaches_the_whole_group_and_stops_politely(run: Run) -> None:
    server = run(workers=2).ready()
    client = server.connect()
    os.killpg(server.pid, signal.SIGINT)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert server.ends() == 0


def test_sigterm_to_the_whole_group_as_systemd_sends_it_is_one_stop_and_not_two(run: Run) -> None:
    server = run(workers=2, close_timeout_s=60).ready()
    client = server.connect()
    os.killpg(server.pid, signal.SIGTERM)
    with pytest.raises(ConnectionClosed) as closed:
        client.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert server.ends() == 0
    assert "starting another" not in server.log


def test_workers_and_template_end_when_the_supervisor_is_killed(run: Run) -> None:
    server = run(workers=2).ready()
    clients = [server.connect() for _ in range(4)]
    server.signal(signal.SIGKILL)
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert until_gone(server.mark, 10) == []


def test_a_worker_that_hangs_ends_too_when_the_supervisor_is_killed(run: Run) -> None:
    server = run(source=SLOW_CLIENT_APP, workers=1).ready()
    client = server.connect()
    client.send("block")
    server.says("blocking")
    server.signal(signal.SIGKILL)
    assert until_gone(server.mark, 15) == []


def test_the_port_can_be_used_again_at_once(run: Run) -> None:
    first = run().ready()
    with first.connect() as client:
        client.send("x")
        first.signal(signal.SIGTERM)
        assert first.ends() == 0
    assert run(port=first.port).ready().echoes()


# ---- starts that fail


def fails(server: Running, code: int) -> str:
    """Its log, after it ended with this exit code, with one readable error and nothing left behind."""
    assert server.ends() == code, server.log
    assert server.log.count("unlimitedws: ") == 1, server.log
    assert marked(server.mark) == []
    return server.log


def test_a_port_in_use_is_one_clear_error(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        log = fails(run(port=other.getsockname()[1]), 1)
    assert "Address already in use" in log
    assert "--port" in log


def test_a_port_of_another_server_of_the_same_user_is_in_use_too(run: Run) -> None:
    first = run().ready()
    assert "Address already in use" in fails(run(port=first.port), 1)
    assert first.echoes()


def test_an_admin_port_in_use_names_its_own_flag(run: Run) -> None:
    first = run().ready()
    assert "--admin-port" in fails(run(admin_port=first.admin_port), 1)


def test_a_certificate_that_cannot_be_used_ends_it_with_2_before_anything_is_forked(run: Run) -> None:
    server = run(certfile="none.pem")
    assert "TLS cannot use none.pem: No such file or directory" in fails(server, 2)
    assert "listening on" not in server.log


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("import sys; sys.exit('go away')", "go away"),
        ("handlers = 5", "5"),
        ("handler = 5", "'handlers'"),
        ("import os; os._exit(9)", "ended with exit code 9"),
        ("import os; os.kill(os.getpid(), 4)", "was killed by SIGILL"),
    ],
)
def test_an_app_that_cannot_be_imported_ends_it_with_3(run: Run, source: str, said: str) -> None:
    server = run(source=source)
    server.expected = "Traceback (most recent call last)"
    assert said in fails(server, 3)
    assert "listening on" not in server.log


ON_START_FAILS = (
    ECHO
    + """
@handlers.on_start
def connect_to_database(worker):
    raise ConnectionError("the database is away")
"""
)


def test_on_start_that_fails_at_the_first_start_ends_it_with_3(run: Run) -> None:
    server = run(source=ON_START_FAILS, workers=2)
    server.expected = "Traceback (most recent call last)"
    assert "the database is away" in fails(server, 3)


def test_a_stop_during_a_slow_import_ends_it_with_0(run: Run) -> None:
    server = run(source="print('importing', flush=True); import time; time.sleep(60)")
    server.says("importing")
    server.signal(signal.SIGTERM)
    assert server.ends(5) == 0


def test_a_stop_during_a_slow_on_start_ends_it_with_0(run: Run) -> None:
    server = run(source=ECHO + "import asyncio\n@handlers.on_start\nasync def slow(worker):\n  print('slow')\n  await asyncio.sleep(60)\n")
    server.says("slow")
    server.signal(signal.SIGTERM)
    assert server.ends(10) == 0


# ---- embedded in a program

LAUNCHER = """
import signal
from unlimitedws import Handlers, Supervisor

handlers = Handlers()

@handlers.on_message
def echo(conn, message):
    conn.send(message)

def mine(*_): pass
signal.signal(signal.SIGHUP, mine)
if __name__ == "__main__":
    Supervisor(handlers, port=0, admin_port=0, workers=2, stop_timeout_s=5).run()
    assert signal.getsignal(signal.SIGHUP) is mine
    print("back in the program")
"""


def test_a_launcher_script_runs_handlers_of_its_own(run: Run) -> None:
    server = run(script=LAUNCHER).ready()
    assert server.echoes()
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    assert "back in the program" in server.log


def test_a_launcher_script_that_gets_sighup_is_told_to_restart(run: Run) -> None:
    server = run(script=LAUNCHER).ready()
    server.signal(signal.SIGHUP)
    server.says("no reload: the program itself imported the app")
    assert server.echoes()


DEFECT = """
from unlimitedws.supervisor.fleet import Fleet

async def refill(fleet, slot, pause_s):
    raise ZeroDivisionError("a defect of ours")

Fleet.refill = refill
"""


def test_a_defect_of_the_supervisor_ends_the_server_instead_of_leaving_it_unwatched(run: Run) -> None:
    server = run(script=DEFECT + LAUNCHER).ready()
    server.expected = "Traceback (most recent call last)"
    os.kill(server.workers()[0], signal.SIGKILL)
    assert server.ends() == 1
    assert "ZeroDivisionError: a defect of ours" in server.log
    assert "back in the program" not in server.log


def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="prot"):
        Supervisor("app:handlers", prot=8000)


def test_run_outside_of_the_main_thread_is_refused() -> None:
    caught: list[UnlimitedwsError] = []

    def call() -> None:
        try:
            Supervisor("app:handlers", port=0).run()
        except UnlimitedwsError as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_run_inside_of_a_running_loop_is_refused() -> None:
    async def call() -> None:
        with pytest.raises(UnlimitedwsError, match="running loop"):
            Supervisor("app:handlers", port=0).run()

    asyncio.run(call())


# ---- the process itself


def test_the_descriptor_limit_is_raised_for_all_processes(tmp_path: Path, run: Run) -> None:
    script = "import resource\n_, hard = resource.getrlimit(7)\nresource.setrlimit(7, (256, hard))\n" + LAUNCHER
    server = run(script=script).ready()
    for pid in (server.pid, *server.workers()):
        line = next(line for line in read_bytes(f"/proc/{pid}/limits").splitlines() if line.startswith(b"Max open files"))
        soft, hard = line.split()[3:5]
        assert soft == hard


def test_the_supervisor_has_one_thread_and_never_imports_the_app(run: Run) -> None:
    server = run(source=ECHO + "import os; print('imported by', os.getpid())").ready()
    assert server.echoes()
    assert len(os.listdir(f"/proc/{server.pid}/task")) == 1
    assert server.says(r"imported by (\d+)")[1] != str(server.pid)
    assert server.log.count("imported by") == 1


ORPHAN_APP = (
    ECHO
    + """
import asyncio, os, signal, subprocess

def zombies():
    for name in filter(str.isdigit, os.listdir("/proc")):
        if open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0] == "Z":
            yield name

async def look():
    while os.path.exists(f"/proc/{orphan}"):
        await asyncio.sleep(0.05)
    print("zombies:", list(zombies()), flush=True)
    os.kill(1, signal.SIGTERM)

@handlers.on_start
def begin(worker):
    global orphan, task
    orphan = subprocess.run(["sh", "-c", "sleep 0.3 >/dev/null & echo $!"], capture_output=True, text=True).stdout.strip()
    task = asyncio.get_running_loop().create_task(look())
"""
)


def test_as_pid_1_it_reaps_orphans_and_stops(tmp_path: Path) -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a PID namespace (unshare --pid)")
    (tmp_path / "app.py").write_text(ORPHAN_APP)
    command = [*unshare, sys.executable, "-m", "unlimitedws.supervisor", "app:handlers", "--port=0", "--admin-port=0", "--workers=1"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert "zombies: []" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def shake_hands(sock: socket.socket) -> None:
    """A client that upgrades and then never says anything."""
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101")
