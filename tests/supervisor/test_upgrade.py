"""The supervisor replaced under workers that run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.supervisor.conftest import Run
from tests.supervisor.manager import Manager, managing
from tests.supervisor.running import (
    CONTROL,
    CTL,
    ECHO,
    MARK,
    ROOT,
    Running,
    descriptors,
    is_alive,
    launcher,
    listening_inodes,
    port_free_everywhere,
    until,
)
from tests.supervisor.test_reload import WAITS, answer, rewrite, version
from unlimitedws import __version__
from unlimitedws.supervisor.inheritance import FORMAT


def upgrade(server: Running, times: int = 1) -> None:
    """Asks for an upgrade and waits until it is complete, reload included; `times`: how many there have been then."""
    reloads = until(lambda: server.stats)["reloads"]
    server.signal(signal.SIGUSR2)
    is_through(server, times, reloads + 1)


def is_through(server: Running, upgrades: int, reloads: int) -> None:
    def now() -> bool:
        stats = stats_of(server)
        return (stats.get("upgrades"), stats.get("reloads")) == (upgrades, reloads)

    until(now, 60, but=lambda: server.log)
    until(lambda: len(stats_of(server).get("workers", [])) == len(stats_of(server).get("slots", [0])), 30, but=lambda: server.log)


def stats_of(server: Running) -> dict[str, Any]:
    """Nothing while the program is being replaced: it cuts whoever asks at this moment."""
    try:
        return server.stats
    except (OSError, ValueError):
        return {}


def echo(clients: list[ClientConnection], text: str) -> None:
    for client in clients:
        client.send(text)
    assert [client.recv(timeout=30) for client in clients] == [text] * len(clients)


# ---- what clients see


def test_connections_outlive_the_supervisor(run: Run, engine_name: str) -> None:
    server = run(source=version(1), workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(8)]
    echo_of_version(clients, 1)
    workers, listeners, port = server.workers(), listening_inodes(server.pid), server.port
    rewrite(server, version(2))
    upgrade(server)
    echo_of_version(clients, 2)
    assert server.process.poll() is None  # the same process
    assert listening_inodes(server.pid) == listeners
    server.says(r"upgraded from unlimitedws [\w.]+, Python [\w.+]+; 2 workers go on")
    assert not set(server.workers()) & set(workers)
    until(lambda: not any(is_alive(pid) for pid in workers))
    stats = server.stats
    assert (stats["pid"], stats["restarts"], stats["total"]["connections_open"]) == (server.pid, 0, 8)
    assert stats["total"]["connections_opened"] == 8
    assert stats["total"]["closes"]["drain"] == 0
    socket.create_connection(("127.0.0.1", port), timeout=30).close()


def echo_of_version(clients: list[ClientConnection], number: int) -> None:
    for client in clients:
        client.send("?")
    assert {client.recv(timeout=30) for client in clients} == {f"version {number}"}


def test_clients_that_talk_all_the_time_lose_nothing(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(4)]
    sent = 0
    for times in (1, 2):
        server.signal(signal.SIGUSR2)
        while stats_of(server).get("reloads") != times:
            for client in clients:
                client.send(f"{sent}")
            sent += 1
    for client in clients:
        assert [client.recv(timeout=30) for _ in range(sent)] == [f"{number}" for number in range(sent)]
    assert server.stats["upgrades"] == 2


def test_newcomers_are_never_refused(run: Run) -> None:
    server = run(workers=2).ready()
    port = server.port
    server.signal(signal.SIGUSR2)
    while "reloaded app:handlers" not in server.log:
        assert "no upgrade" not in server.log, server.log
        socket.create_connection(("127.0.0.1", port), timeout=30).close()


def test_what_was_counted_goes_on_being_counted(run: Run) -> None:
    server = run(workers=2).ready()
    echo([server.connect() for _ in range(3)], "once")
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    server.successors(victim, workers=2)
    before = server.stats
    until(lambda: json.loads(server.get("/history")[1])["history"])
    oldest = json.loads(server.get("/history")[1])["history"][0]["time"]
    upgrade(server)
    after = server.stats
    assert after["uptime_s"] > before["uptime_s"]
    assert after["restarts"] == 1
    assert after["total"]["messages_in"] >= before["total"]["messages_in"] == 3
    assert min(worker["serial"] for worker in after["workers"]) > max(worker["serial"] for worker in before["workers"])
    assert json.loads(server.get("/history")[1])["history"][0]["time"] == oldest


# ---- another release


def package(server_folder: Path, number: str, *, broken: str = "") -> Path:
    """A copy of the package of another version, as a folder for PYTHONPATH."""
    folder = server_folder / f"release-{number}"
    shutil.copytree(ROOT / "unlimitedws", folder / "unlimitedws", ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.pyx"))
    init = folder / "unlimitedws" / "__init__.py"
    text = init.read_text()
    line = next(line for line in text.splitlines() if line.startswith("__version__ = "))
    init.write_text(text.replace(line, f'__version__ = "{number}"\n{broken}'))
    return folder


def link(server_folder: Path, to: Path) -> None:
    """Points the link that is in PYTHONPATH to a release, at once."""
    new = server_folder / "new"
    new.symlink_to(to)
    new.rename(server_folder / "current")


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    """A folder with the release 1.0 and a link `current` to it."""
    folder = tmp_path / "releases"
    folder.mkdir()
    link(folder, package(folder, "1.0"))
    return folder


def test_a_new_release_takes_over(run: Run, releases: Path, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name, packages=releases / "current").ready()
    clients = [server.connect() for _ in range(4)]
    assert server.stats["version"] == "1.0"
    link(releases, package(releases, "2.0"))
    upgrade(server)
    server.says("upgraded from unlimitedws 1.0, ")
    assert server.stats["version"] == "2.0"
    echo(clients, "still there")
    link(releases, releases / "release-1.0")
    upgrade(server, 2)
    server.says("upgraded from unlimitedws 2.0, ")
    assert server.stats["version"] == "1.0"
    echo(clients, "and back")


def test_a_release_that_counts_other_things_reads_the_old_workers_too(run: Run, releases: Path) -> None:
    server = run(source=version(1), workers=2, packages=releases / "current").ready()
    server.expected = "Traceback (most recent call last)"
    clients = [server.connect() for _ in range(4)]
    echo_of_version(clients, 1)
    newer = package(releases, "2.0")
    change(
        newer / "unlimitedws/engine/counters.py",
        "WORKER = (\n",
        'WORKER = (\n    Field("naps", "counter", "naps", "a column of this release"),\n',
    )
    link(releases, newer)
    rewrite(server, "raise RuntimeError('not yet')")
    server.signal(signal.SIGUSR2)
    server.says("reload failed, the workers go on with the code they have", 60)  # so they are the old ones
    stats = server.stats
    assert (stats["version"], stats["total"]["naps"]) == ("2.0", 0)
    assert stats["total"]["messages_in"] == 4
    assert [worker["state"] for worker in stats["workers"]] == ["ready"] * 2
    rewrite(server, version(2))
    server.signal(signal.SIGHUP)
    is_through(server, 1, 1)
    echo_of_version(clients, 2)
    total = server.stats["total"]
    assert (total["connections_opened"], total["messages_in"]) == (4, 8)


def test_a_release_with_another_handover_drains_the_old_workers(run: Run, releases: Path) -> None:
    server = run(workers=2, packages=releases / "current").ready()
    clients = [server.connect() for _ in range(3)]
    newer = package(releases, "2.0")
    change(newer / "unlimitedws/handover/spoken.py", "VERSION = 1\n", "VERSION = 2\n")
    link(releases, newer)
    upgrade(server)
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    server.says("closes its connections: it is of another release")
    assert server.echoes()


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


DUMPING = """
import os, shutil

if "UNLIMITEDWS_UPGRADE" in os.environ:
    shutil.copy(f"/proc/self/fd/{os.environ['UNLIMITEDWS_UPGRADE']}", "document.json")
"""

SHAPE = """
fleet.children.facts.doom fleet.children.facts.engine fleet.children.facts.handover fleet.children.facts.questions
fleet.children.facts.ready_at fleet.children.facts.started_at fleet.children.facts.state fleet.children.facts.status
fleet.children.handed_over fleet.children.inherited.channel fleet.children.inherited.pidfd fleet.children.order.listeners
fleet.children.order.row fleet.children.order.serial fleet.children.order.slot fleet.children.order.workers fleet.children.pid
fleet.former fleet.generation.facts.engine fleet.generation.facts.files fleet.generation.facts.imports fleet.generation.facts.ready_at
fleet.generation.facts.threads fleet.generation.facts.why_not_native fleet.generation.inherited.channel fleet.generation.pid fleet.reloads
fleet.serial fleet.slots.current fleet.slots.number fleet.slots.restarts fleet.slots.retired fleet.table.columns
fleet.table.inherited.table fleet.upgrades fleet.workers.setting fleet.workers.wanted format history is_check listeners.admin.address
listeners.admin.any_port listeners.admin.fd listeners.admin.name listeners.admin.slot listeners.control.fd listeners.control.file
listeners.control.path listeners.files listeners.inherited listeners.next_number listeners.passed listeners.tcp.address
listeners.tcp.any_port listeners.tcp.fd listeners.tcp.name listeners.tcp.slot ours pid python report.started report.started_at signals
version
"""


def test_the_document_has_the_shape_of_its_format(run: Run) -> None:
    """Where this fails, the document has changed: count inheritance.FORMAT up, unless a release can do with either shape."""
    server = run(script=DUMPING + launcher()).ready()
    upgrade(server)
    document = json.loads((server.folder / "document.json").read_text())
    assert (document["format"], document["version"]) == (FORMAT, __version__)
    assert sorted(set(shape(document))) == SHAPE.split()


def shape(packed: Any, path: str = "") -> Iterator[str]:
    """Every key of a document, as a path; items of a list are not told apart."""
    if isinstance(packed, dict) and packed and path != "history":
        for key, item in packed.items():
            yield from shape(item, f"{path}.{key}".lstrip("."))
    elif isinstance(packed, list) and packed and isinstance(packed[0], dict):
        for item in packed:
            yield from shape(item, path)
    else:
        yield path


# ---- what is refused


def is_as_before(server: Running, workers: list[int], clients: list[ClientConnection]) -> None:
    assert server.workers() == workers
    assert server.stats["upgrades"] == 0
    echo(clients, "as before")


def refused(server: Running, why: str) -> None:
    clients, workers = [server.connect() for _ in range(2)], server.workers()
    server.signal(signal.SIGUSR2)
    server.says(f"no upgrade, everything goes on as it was: {why}", 60)
    is_as_before(server, workers, clients)


def test_a_package_that_cannot_be_imported_changes_nothing(run: Run, releases: Path) -> None:
    server = run(workers=2, packages=releases / "current").ready()
    server.expected = "Traceback (most recent call last)"
    link(releases, package(releases, "2.0", broken="raise RuntimeError('broken release')"))
    refused(server, r"it ended with exit code 1 before it would serve:(.|\n)*broken release")
    link(releases, package(releases, "3.0"))
    upgrade(server)
    assert server.stats["version"] == "3.0"


def test_a_release_that_does_not_know_the_format_changes_nothing(run: Run, releases: Path) -> None:
    server = run(packages=releases / "current").ready()
    newer = package(releases, "2.0")
    change(newer / "unlimitedws/supervisor/inheritance.py", "FORMAT = 1\n", "FORMAT = 2\n")
    link(releases, newer)
    refused(server, r"(.|\n)*unlimitedws 1.0 leaves its server in format 1, and this release takes over from format 2; restart")


def test_a_configuration_that_is_wrong_changes_nothing(run: Run) -> None:
    files = {"settings.toml": "ping_interval_s = 20\n"}
    server = run(files=files, config="settings.toml").ready()
    (server.folder / "settings.toml").write_text("ping_interval = 20\n")
    refused(server, r"(.|\n)*settings.toml: unknown setting ping_interval \(did you mean ping_interval_s\?\)")
    (server.folder / "settings.toml").write_text("ping_interval_s = 21\n")
    upgrade(server)
    assert json.loads(server.get("/config")[1])["settings"]["ping_interval_s"]["value"] == 21


def test_a_place_that_is_taken_changes_nothing(run: Run) -> None:
    server = run(files={"settings.toml": ""}, config="settings.toml").ready()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (server.folder / "settings.toml").write_text(f"listen = '127.0.0.1:0, 127.0.0.1:{taken}'\n")
        refused(server, rf"(.|\n)*cannot listen on 127.0.0.1 port {taken}: Address already in use")


def test_an_interpreter_that_is_gone_changes_nothing(run: Run, tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    server = run(python=python).ready()
    python.unlink()
    refused(server, rf"{python}: No such file or directory")


PREFIX = """
import os, sys
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def tell(conn, message):
    conn.send(os.path.realpath(sys.prefix))
"""


def interpreter(folder: Path) -> Path:
    """A virtual environment with what the tests' own has."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    version = Path(sys.base_prefix) / "bin"
    (folder / "pyvenv.cfg").write_text(f"home = {version}\ninclude-system-site-packages = false\n")
    return folder / "bin" / "python"


def test_the_interpreter_is_the_one_that_the_path_leads_to_by_then(run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        interpreter(tmp_path / name)
    (tmp_path / "current").symlink_to("one")
    server = run(python=tmp_path / "current" / "bin" / "python", source=PREFIX).ready()
    assert answer(server) == str(tmp_path / "one")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    upgrade(server)
    assert answer(server) == str(tmp_path / "two")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["-c", launcher()], "it was started by python -c"), (["-"], "it was not started from a file but typed in, or read from a pipe")],
    ids=["-c", "stdin"],
)
def test_a_program_that_is_no_file_is_refused(run: Run, arguments: list[str], why: str) -> None:
    server = run(arguments=arguments, stdin=launcher()).ready()
    refused(server, f"this program cannot be started again: {why}")


def test_a_program_that_does_not_come_to_serve_is_refused(run: Run) -> None:
    server = run(script=f"import os\nif os.path.exists('broken'):\n    raise SystemExit(0)\n{launcher()}").ready()
    (server.folder / "broken").touch()
    refused(server, r"it ended with exit code 0 before it would serve")


def test_an_exec_that_fails_changes_nothing(run: Run, tmp_path: Path) -> None:
    python = interpreter(tmp_path / "venv")
    script = f"import os\nif 'UNLIMITEDWS_UPGRADE' in os.environ:\n    os.unlink({str(python)!r})\n{launcher()}"
    server = run(python=python, script=script).ready()
    before = set(descriptors(server.pid).values())
    refused(server, rf"{python}: No such file or directory")
    until(lambda: set(descriptors(server.pid).values()) == before)
    os.kill(server.workers()[0], signal.SIGKILL)  # and goes on looking after its workers
    until(lambda: server.stats["restarts"] == 1 and server.workers())
    interpreter(tmp_path / "again").rename(python)
    change(server.folder / "launcher.py", "os.unlink", "str")
    upgrade(server)


# ---- at a bad moment


def test_after_a_program_that_fails_in_spite_of_the_check_the_workers_end_politely(run: Run) -> None:
    server = run(script=HALTING.replace('os.read(os.open("gate", os.O_RDONLY), 1)', "raise SystemExit(7)") + launcher(workers=2)).ready()
    clients = [server.connect() for _ in range(3)]
    server.signal(signal.SIGUSR2)
    for client in clients:
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert server.ends(60) == 7
    server.says(r"the supervisor is gone; stopping")


PWD = """
import os
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def tell(conn, message):
    conn.send(os.getcwd())
"""


def test_the_working_directory_is_the_one_that_its_name_leads_to_by_then(run: Run, tmp_path: Path) -> None:
    server = run(source=PWD, environ={"PWD": str(tmp_path / "current")}, current=tmp_path / "current").ready()
    assert answer(server) == str(server.folder)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(server.folder / "app.py", other)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(other)
    upgrade(server)
    assert answer(server) == str(other)


def test_a_script_names_its_interpreter_itself(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "serve"
    for name in ("one", "two"):
        interpreter(tmp_path / name)
    flags = ["app:handlers", "--port", "0", "--admin-port", "0", "--workers", "1"]
    text = "#!{}\nimport sys\nsys.path.insert(0, '')\nfrom unlimitedws.cli import serve_main\nsys.exit(serve_main())\n"
    script.write_text(text.format(tmp_path / "one" / "bin" / "python"))
    script.chmod(0o755)
    server = run(python=script, arguments=flags, source=PREFIX).ready()
    assert answer(server) == str(tmp_path / "one")
    script.write_text(text.format(tmp_path / "two" / "bin" / "python"))
    upgrade(server)
    assert answer(server) == str(tmp_path / "two")


def test_a_launcher_script_is_started_again(run: Run) -> None:
    script = f"import os\nprint('hello from', 'UNLIMITEDWS_UPGRADE' in os.environ, flush=True)\n{ECHO}\n" + launcher("handlers")
    server = run(script=script).ready()
    clients = [server.connect() for _ in range(3)]
    server.signal(signal.SIGHUP)
    server.says(r"no reload: the program itself imported the app; to get fresh code, upgrade \(SIGUSR2\)")
    change(server.folder / "launcher.py", "conn.send(message)", "conn.send('fresh')")
    upgrade(server)
    for client in clients:
        client.send("?")
        assert client.recv(timeout=30) == "fresh"
    assert [line for line in server.log.splitlines() if line.startswith("hello")] == ["hello from False", "hello from True"]


ENVIRONMENT = """
import os
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def tell(conn, message):
    conn.send(str([name for name in os.environ if "UPGRADE" in name]))
"""


def test_the_app_sees_nothing_of_it(run: Run) -> None:
    server = run(source=ENVIRONMENT).ready()
    upgrade(server)
    assert answer(server) == "[]"


def test_an_app_that_cannot_be_imported_keeps_its_old_workers(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    server.expected = "Traceback (most recent call last)"
    clients = [server.connect() for _ in range(3)]
    workers = server.workers()
    rewrite(server, "raise RuntimeError('broken app')")
    server.signal(signal.SIGUSR2)
    server.says("reload failed, the workers go on with the code they have", 60)
    assert server.workers() == workers
    echo_of_version(clients, 1)
    os.kill(workers[0], signal.SIGKILL)  # replaced by one of the old code
    server.successors(workers[0], workers=2)
    assert answer(server) == "version 1"
    rewrite(server, version(2))
    server.signal(signal.SIGHUP)
    is_through(server, 1, 1)
    assert answer(server) == "version 2"


HALTING = """
import os

if "UNLIMITEDWS_UPGRADE" in os.environ:
    if os.path.exists("checked"):
        print("replaced", flush=True)
        os.read(os.open("gate", os.O_RDONLY), 1)
    open("checked", "w").close()
"""


@pytest.fixture
def halting(run: Run) -> Running:
    """A server whose program waits after the exec until somebody opens `gate` for writing; nothing reads the channels until then."""
    server = run(script=HALTING + launcher(workers=2))
    os.mkfifo(server.folder / "gate")
    return server.ready()


def open_gate(server: Running) -> None:
    (server.folder / "gate").write_text("!")


def test_a_worker_that_dies_in_between_is_replaced(halting: Running) -> None:
    victim, neighbour = halting.workers()
    halting.signal(signal.SIGUSR2)
    halting.says("replaced", 60)
    os.kill(victim, signal.SIGKILL)
    until(lambda: not is_alive(victim))
    open_gate(halting)
    halting.says(rf"worker {victim} of slot 0 was killed by SIGKILL", 60)
    is_through(halting, 1, 1)
    assert halting.stats["restarts"] == 1
    assert not is_alive(neighbour)
    assert halting.echoes()


def test_the_template_that_dies_in_between_is_missed_by_nobody(halting: Running) -> None:
    template = halting.template()
    clients = [halting.connect() for _ in range(3)]
    halting.signal(signal.SIGUSR2)
    halting.says("replaced", 60)
    os.kill(template, signal.SIGKILL)
    open_gate(halting)
    is_through(halting, 1, 1)
    echo(clients, "still there")


def test_workers_wait_for_the_new_program_and_serve_meanwhile(halting: Running) -> None:
    clients = [halting.connect() for _ in range(3)]
    halting.signal(signal.SIGUSR2)
    halting.says("replaced", 60)
    echo([*clients, halting.connect()], "while nobody supervises")
    open_gate(halting)
    is_through(halting, 1, 1)
    echo(clients, "afterwards")


def test_signals_that_come_in_between_are_obeyed_afterwards(halting: Running) -> None:
    halting.signal(signal.SIGUSR2)
    halting.says("replaced", 60)
    halting.signal(signal.SIGTERM)
    open_gate(halting)
    assert halting.ends(60) == 0
    halting.says("SIGTERM: stopping")


def test_a_stop_right_after_the_order_stops(run: Run) -> None:
    server = run(workers=2).ready()
    server.signal(signal.SIGUSR2)
    server.signal(signal.SIGTERM)
    assert server.ends(60) == 0


@pytest.mark.parametrize("said", ["SIGUSR2: upgrading", "upgrading: checking", "upgrading to", "upgraded from"])
def test_a_stop_at_any_moment_stops(run: Run, said: str) -> None:
    server = run(workers=2).ready()
    server.signal(signal.SIGUSR2)
    server.says(said, 60)
    server.signal(signal.SIGTERM)
    assert server.ends(60) == 0


SLOW_IMPORT = version(2) + "\nimport os\nprint('importing', flush=True)\nos.read(os.open('gate', os.O_RDONLY), 1)\n"


def test_a_reload_under_way_is_waited_for(run: Run) -> None:
    server = run(source=version(1), workers=2).ready()
    os.mkfifo(server.folder / "gate")
    rewrite(server, SLOW_IMPORT)
    server.signal(signal.SIGHUP)
    server.says("importing")
    server.signal(signal.SIGUSR2)
    server.says("upgrading: waiting for another change")
    rewrite(server, version(3))
    open_gate(server)
    is_through(server, 1, 2)
    assert answer(server) == "version 3"


HALTING_IN_CHECK = """
import os

if "UNLIMITEDWS_UPGRADE" in os.environ and not os.path.exists("checked"):
    open("checked", "w").close()
    os.read(os.open("gate", os.O_RDONLY), 1)
"""


def test_one_that_waits_in_vain_is_refused_and_says_where_to_look(run: Run) -> None:
    script = "from unlimitedws.supervisor import upgrade\n\nupgrade.TURN_S = 0.2\n" + launcher(control_socket=CONTROL)
    server = run(source=version(1), script=script).ready()
    (server.folder / "start hangs").touch()
    rewrite(server, version(2) + WAITS)
    server.signal(signal.SIGHUP)
    until(lambda: [worker["state"] for worker in server.stats["workers"]] == ["ready", "starting"])
    done = server.ctl("upgrade")
    assert "not upgraded: another change has been under way for more than 0.2 s; ctl status says what it waits for" in done.stderr
    assert ", changing (in on_start: worker " in server.ctl("status").stdout
    (server.folder / "start hangs").unlink()
    server.says("reloaded app:handlers")


def test_one_at_a_time(run: Run) -> None:
    server = run(script=HALTING_IN_CHECK + launcher(workers=2, control_socket=CONTROL))
    os.mkfifo(server.folder / "gate")
    server.ready().signal(signal.SIGUSR2)
    until(lambda: (server.folder / "checked").exists(), 60)
    server.signal(signal.SIGUSR2)
    server.says("no second upgrade: one is under way already")
    open_gate(server)
    is_through(server, 1, 1)


@pytest.mark.parametrize(
    "asked", [{"verb": "reload"}, {"verb": "workers", "number": 3}, {"verb": "rebalance"}], ids=lambda asked: asked["verb"]
)
def test_who_waits_for_another_change_is_told_that_an_upgrade_came_first(run: Run, asked: dict[str, object]) -> None:
    server = run(script=HALTING_IN_CHECK + launcher(workers=2, control_socket=CONTROL)).ready()
    os.mkfifo(server.folder / "gate")
    server.signal(signal.SIGUSR2)
    until(lambda: (server.folder / "checked").exists(), 60)
    with server.dial_control() as sock, sock.makefile("rb") as lines:
        sock.sendall(json.dumps(asked).encode() + b"\n")
        lines.readline()  # it waits for its turn
        open_gate(server)
        *_, last = [json.loads(line) for line in lines]
    assert "an upgrade came first" in last["failed"]
    is_through(server, 1, 1)


def test_ten_upgrades_leave_nothing_behind(run: Run, engine_name: str) -> None:
    server = run(workers=2, engine=engine_name).ready()
    clients = [server.connect() for _ in range(4)]
    upgrade(server)
    until(lambda: len(server.stats["processes"]) == 4)
    before = len(descriptors(server.pid))  # one more or less: who has asked for the stats
    for times in range(2, 11):
        upgrade(server, times)
    echo(clients, "ten times over")
    until(lambda: len(server.stats["processes"]) == 4)
    until(lambda: len(descriptors(server.pid)) <= before, but=lambda: str(descriptors(server.pid)))


# ---- where it listens


def test_listeners_follow_the_settings(run: Run) -> None:
    server = run(files={"settings.toml": "listen = '127.0.0.1:0, unix:one.sock'"}, config="settings.toml", workers=2).ready()
    clients = [server.connect_at(place) for place in server.places]
    port = int(server.places[0].rpartition(":")[2])
    (server.folder / "settings.toml").write_text("listen = 'unix:two.sock, 127.0.0.1:0'")
    upgrade(server)
    assert server.stats["listening"] == [f"unix:{server.folder}/two.sock", f"127.0.0.1:{port}"]
    assert not (server.folder / "one.sock").exists()
    echo([*clients, server.connect_at(f"unix:{server.folder}/two.sock"), server.connect_at(f"127.0.0.1:{port}")], "all of them")
    (server.folder / "settings.toml").write_text("listen = 'unix:two.sock'")
    upgrade(server, 2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    echo([*clients, server.connect_at(f"unix:{server.folder}/two.sock")], "still")


def test_sockets_of_systemd_are_kept(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, managing(str(tmp_path / "notify")) as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "FDSTORE": "16"}
        server = run(sockets=[one], names="web", listen="systemd:web", environ=environ, workers=2).ready()
        said(manager, "READY=1")
        client = server.connect_at(server.places[0])
        for times in (1, 2):
            upgrade(server, times)
            said(manager, "RELOADING=1")
            said(manager, "READY=1")
            echo([client, server.connect_at(server.places[0])], "still there")


def test_listeners_in_the_store_of_systemd_stay_there(run: Run, tmp_path: Path) -> None:
    with managing(str(tmp_path / "notify")) as manager, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        environ = {"NOTIFY_SOCKET": manager.address, "FDSTORE": "16"}
        server = run(port=port, environ=environ, workers=2).ready()
        said(manager, "READY=1")
        kept = dict(manager.kept)
        upgrade(server)
        said(manager, "READY=1")
        assert manager.kept == kept
        assert "FDSTOREREMOVE=1" not in "".join(manager.has_heard())
        server.stop()
        socket.create_connection(("127.0.0.1", port), timeout=30).close()  # the test is its systemd


def said(manager: Manager, what: str) -> None:
    manager.hears(what)


def test_a_port_may_move_to_another_address(run: Run) -> None:
    port, admin = port_free_everywhere(), port_free_everywhere()
    server = run(files={"settings.toml": ""}, config="settings.toml", port=port, admin_port=admin).ready()
    client = server.connect()
    (server.folder / "settings.toml").write_text("host = '*'\nadmin_host = '0.0.0.0'\n")
    upgrade(server)
    assert server.stats["listening"] == [f"[::]:{port}"]
    echo([client, server.connect_at(f"127.0.0.1:{port}"), server.connect_at(f"[::1]:{port}")], "everywhere")


# ---- with the other things that an operator does


def test_ctl_ends_when_the_new_workers_serve(run: Run, releases: Path) -> None:
    server = run(workers=2, packages=releases / "current").ready()
    workers = server.workers()
    link(releases, package(releases, "2.0"))
    done = server.ctl("upgrade")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "checking the new program"
    assert re.fullmatch(r"upgrading to unlimitedws 2.0, Python \S+", done.stdout.splitlines()[1])
    assert done.stdout.splitlines()[-1] == "2 workers of unlimitedws 2.0"
    assert not set(server.workers()) & set(workers)
    assert json.loads(server.ctl("upgrade", "--json").stdout) == {"upgraded": True, "version": "2.0", "workers": 2}
    assert server.ctl("upgrade", "--no-wait").stdout == "the upgrade has begun\n"
    is_through(server, 3, 3)


def test_ctl_tells_what_an_upgrade_waits_for(run: Run) -> None:
    server = run(source=version(1) + WAITS, workers=1).ready()
    (server.folder / "start hangs").touch()
    said = server.folder / "said"
    with said.open("w") as out:
        command = [*CTL, "upgrade", "--control-socket", CONTROL]
        process = subprocess.Popen(command, cwd=server.folder, env={**server.env, MARK: ""}, stdout=out)
    try:
        until(lambda: "\nin on_start: worker " in said.read_text(), 60)
    finally:
        (server.folder / "start hangs").unlink()
        assert process.wait(60) == 0
    assert "\n1 worker of unlimitedws " in said.read_text()


def test_ctl_says_why_there_is_no_upgrade(run: Run) -> None:
    server = run(files={"settings.toml": ""}, config="settings.toml").ready()
    server.expected = "Traceback (most recent call last)"
    (server.folder / "settings.toml").write_text("port = 'none'\n")
    done = server.ctl("upgrade")
    assert done.returncode == 1
    assert "not upgraded: it ended with exit code 2 before it would serve:" in done.stderr
    assert "settings.toml: port cannot be 'none'" in done.stderr
    (server.folder / "settings.toml").write_text("")
    rewrite(server, "raise RuntimeError('broken app')")
    done = server.ctl("upgrade")
    assert done.returncode == 1
    assert "its workers go on with the code they had" in done.stderr
    assert (server.stats["upgrades"], server.stats["reloads"]) == (1, 0)
    server.signal(signal.SIGTERM)
    server.ends()
    assert server.ctl("upgrade").returncode == 1


def test_the_number_of_workers_stays_until_its_setting_changes(run: Run, engine_name: str) -> None:
    server = run(files={"settings.toml": "workers = 2"}, config="settings.toml", workers=None, engine=engine_name).ready()
    clients = [server.connect() for _ in range(6)]
    assert server.ctl("workers", "4").returncode == 0
    assert server.ctl("workers", "3").returncode == 0
    echo(clients, "with three")
    restarts = [slot["restarts"] for slot in server.stats["slots"]]
    upgrade(server)
    assert [slot["restarts"] for slot in server.stats["slots"]] == restarts == [0] * 3
    assert len(server.workers()) == 3
    echo(clients, "with three still")
    assert server.stats["total"]["connections_opened"] == 6
    (server.folder / "settings.toml").write_text("workers = 1")
    upgrade(server, 2)
    until(lambda: len(server.stats["slots"]) == 1)
    echo(clients, "with one")
    assert server.stats["total"]["closes"]["drain"] == 0
    assert all(server.echoes() for _ in range(6))
    until(lambda: len(listening_inodes(server.pid)) == 2)  # its own and the admin port's


def test_a_change_of_workers_that_came_meanwhile_is_made_afterwards(halting: Running) -> None:
    halting.signal(signal.SIGUSR2)
    halting.says("replaced", 60)
    halting.signal(signal.SIGTTIN)
    open_gate(halting)
    is_through(halting, 1, 1)
    until(lambda: len(halting.workers()) == 3)


def test_ctl_says_that_the_control_socket_has_gone_elsewhere(run: Run) -> None:
    server = run(files={"settings.toml": f"control_socket = '{CONTROL}'"}, config="settings.toml", control_socket=None).ready()
    (server.folder / "settings.toml").write_text("control_socket = 'two.sock'")
    done = server.ctl("upgrade")
    assert done.returncode == 1
    assert f"the upgrade has begun, but nobody listens on {CONTROL} any more" in done.stderr
    is_through(server, 1, 1)


def test_the_control_socket_follows_its_setting(run: Run) -> None:
    server = run(files={"settings.toml": "control_socket = 'one.sock'"}, config="settings.toml", control_socket=None).ready()
    one, two = server.folder / "one.sock", server.folder / "two.sock"
    inode = one.stat().st_ino
    upgrade(server)
    assert one.stat().st_ino == inode
    (server.folder / "settings.toml").write_text("control_socket = '/nowhere/two.sock'")
    server.signal(signal.SIGUSR2)
    server.says(r"no upgrade, everything goes on as it was: (.|\n)*/nowhere/two.sock: No such file or directory \(its folder")
    (server.folder / "settings.toml").write_text("control_socket = 'two.sock'")
    upgrade(server, 2)
    assert two.is_socket()
    assert not one.exists()
    (server.folder / "settings.toml").write_text("control_socket = ''")
    upgrade(server, 3)
    assert not two.exists()
