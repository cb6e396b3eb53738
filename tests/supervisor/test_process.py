"""A worker process: what it inherits, how it hears, how it is looked into."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest
from websockets.exceptions import ConnectionClosed

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, descriptors, is_alive, listening_inodes, sockets, until
from unlimitedws.app import App
from unlimitedws.config import Config
from unlimitedws.engine.counters import ROW_BYTES
from unlimitedws.handlers import Handlers
from unlimitedws.supervisor.channel import Channel
from unlimitedws.supervisor.order import Order
from unlimitedws.supervisor.process import WorkerProcess
from unlimitedws.worker import Worker

BLOCKS = """
import time
from unlimitedws import Handlers

handlers = Handlers()

@handlers.on_message
def a_handler_that_hangs(conn, message):
    print("blocking", flush=True)
    time.sleep(60)
"""


def kinds(pid: int) -> list[str]:
    """What descriptors a process has, without stdio."""
    return sorted(re.sub(r"\d+", "N", link) for fd, link in descriptors(pid).items() if fd > 2)


def test_a_worker_holds_exactly_its_own_listener(run: Run) -> None:
    server = run(workers=3).ready()
    workers = server.workers()
    held = [listening_inodes(pid) for pid in workers]
    assert [len(inodes) for inodes in held] == [1, 1, 1]
    assert len(set.union(*held)) == 3
    assert listening_inodes(server.template()) == set()
    assert set.union(*held) < listening_inodes(server.pid)


def test_a_successor_holds_the_same_listener_and_nothing_of_its_predecessor(run: Run) -> None:
    server = run(workers=2).ready()
    victim, other = server.workers()
    before, descriptors = listening_inodes(victim), kinds(victim)
    os.kill(victim, signal.SIGKILL)
    successor = server.successors(victim, workers=2)[0]
    assert listening_inodes(successor) == before
    assert kinds(successor) == descriptors == kinds(other)


def test_a_worker_holds_neither_pidfds_nor_the_supervisors_channels(run: Run) -> None:
    server = run(workers=2).ready()
    supervisors = {inode for pid in (server.pid, server.template()) for inode in sockets(pid)}
    for pid in server.workers():
        assert not [kind for kind in kinds(pid) if "pidfd" in kind]
        assert len(sockets(pid) & supervisors) == 1  # the listener


def test_children_keep_the_log_files_of_the_program(run: Run) -> None:
    script = """
import logging
from unlimitedws import Handlers, Supervisor

logging.basicConfig(filename="program.log", level="INFO")
handlers = Handlers()

@handlers.on_message
def note(conn, message):
    logging.info("noted by a worker: %s", message)
    conn.send(message)

Supervisor(handlers, port=0, admin_port=-1, workers=1).run()
"""
    server = run(script=script)
    program_log = server.folder / "program.log"
    until(lambda: program_log.exists() and "listening on" in program_log.read_text())
    server.log_file = program_log
    assert server.echoes()
    server.says("noted by a worker: hello")


def test_sigquit_prints_the_stacks_and_the_worker_goes_on(run: Run) -> None:
    server = run(workers=1).ready()
    pid = server.workers()[0]
    os.kill(pid, signal.SIGQUIT)
    server.says(r"process\.py")
    assert server.echoes()
    assert is_alive(pid)


def test_a_worker_that_hangs_is_dumped_and_replaced(run: Run) -> None:
    server = run(source=BLOCKS, workers=1, hang_timeout_s=1).ready()
    pid = server.workers()[0]
    client = server.connect()
    client.send("hang")
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=30)
    server.says(rf"the loop of worker {pid} of slot 0 has not turned for 1 s")
    server.says("in a_handler_that_hangs")
    server.says(rf"worker {pid} of slot 0 was killed by SIGKILL \(its loop hung\)")
    server.successors(pid, workers=1)


def test_a_worker_that_hangs_is_left_alone_when_the_limit_is_off(run: Run) -> None:
    source = BLOCKS.replace("time.sleep(60)", "time.sleep(2); conn.send('late')")
    server = run(source=source, workers=1, hang_timeout_s=0).ready()
    client = server.connect()
    client.send("hang")
    assert client.recv(timeout=30) == "late"


def test_a_machine_that_was_suspended_loses_no_worker(run: Run) -> None:
    server = run(workers=2, hang_timeout_s=2).ready()
    before = server.workers()
    everybody = [server.pid, server.template(), *before]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    signal_after(4.0)
    for pid in everybody:  # the supervisor wakes first, when all workers look hung
        os.kill(pid, signal.SIGCONT)
    assert server.echoes()
    assert server.workers() == before
    assert "has not turned" not in server.log


def signal_after(seconds: float) -> None:
    """The time a suspension lasts: nothing happens that could be awaited."""
    import time

    time.sleep(seconds)


def test_a_stopped_worker_alone_is_replaced(run: Run) -> None:
    server = run(workers=2, hang_timeout_s=1).ready()
    victim, neighbour = server.workers()
    os.kill(victim, signal.SIGSTOP)
    assert neighbour in server.successors(victim, workers=2)


def test_on_start_is_complete_before_a_client_is_served_and_on_stop_runs_at_the_end(run: Run) -> None:
    hooks = ECHO + (
        "import asyncio\nstarted = []\n"
        "@handlers.on_start\nasync def start(worker):\n    await asyncio.sleep(0.2)\n    started.append(1)\n"
        "@handlers.on_connect\ndef check(conn):\n    assert started\n"
        "@handlers.on_stop\nasync def stop(worker):\n    await asyncio.sleep(0.1)\n    print('on_stop is done', flush=True)\n"
    )
    server = run(source=hooks, workers=2).ready()
    assert server.echoes()
    server.signal(signal.SIGTERM)
    assert server.ends() == 0
    assert server.log.count("on_stop is done") == 2


def test_without_uvloop_the_standard_loop_does(run: Run) -> None:
    source = "import asyncio\n" + ECHO.replace("conn.send(message)", "conn.send(type(asyncio.get_running_loop()).__module__)")
    for files, module in (({}, "uvloop"), ({"uvloop.py": "raise ImportError('no wheel')"}, "asyncio.unix_events")):
        server = run(source=source, files=files).ready()
        with server.connect() as client:
            client.send("?")
            assert client.recv(timeout=30) == module
        server.stop()


def test_log_lines_that_a_handler_buffers_are_written_at_the_end(run: Run) -> None:
    source = (
        "import logging, logging.handlers, sys\n"
        "logging.getLogger('mine').addHandler(logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stderr)))\n"
        "logging.getLogger('mine').propagate = False\n"
        + ECHO
        + "@handlers.on_stop\ndef stop(worker):\n    logging.getLogger('mine').warning('buffered to the end')\n"
    )
    server = run(source=source).ready()
    server.stop()
    assert server.log.count("buffered to the end") == 1


def test_programs_that_an_app_starts_take_signals_as_usual(run: Run) -> None:
    source = ECHO.replace("conn.send(message)", "conn.send(subprocess.run(['sh', '-c', 'kill -INT $$'], check=False).returncode.__str__())")
    server = run(source="import subprocess\n" + source, workers=1).ready()
    with server.connect() as client:
        client.send("?")
        assert client.recv(timeout=30) == str(-signal.SIGINT)


def test_a_sigterm_before_the_loop_runs_is_not_lost() -> None:
    ours, theirs = Channel.pair()
    process = WorkerProcess(Order(1, 0, 0, ()), theirs, memoryview(bytearray(ROW_BYTES)).cast("q"), [])
    process.signalled()
    assert asyncio.run(process.main(lambda: Worker(App.of(Handlers()), Config(), supervised=True))) == 0
    for channel in (ours, theirs):
        channel.close()


@pytest.mark.parametrize(
    ("step", "error", "told"),
    [
        ("Worker.start", "OSError(24, 'Too many open files')", r"Too many open files \(raise the limit of open files: ulimit -n, "),
        ("Worker.start", "MemoryError()", r"Cannot allocate memory \(free some memory, or raise the limit: ulimit -v, "),
        ("process.new_loop", "OSError(24, 'Too many open files')", r"Too many open files \(raise the limit of open files: ulimit -n, "),
    ],
)
def test_a_worker_that_lacks_something_at_the_first_start_ends_it_with_one_line(run: Run, step: str, error: str, told: str) -> None:
    lacking = f"""
from unlimitedws.supervisor import process
from unlimitedws.worker import Worker

def lack(*_, **__):
    raise {error}

{step} = lack
"""
    server = run(source=ECHO + lacking)
    assert server.ends() == 1
    assert re.fullmatch(rf"unlimitedws: {told}.*", server.log.splitlines()[-1])
    assert "Traceback" not in server.log


def test_a_signal_handler_that_the_import_of_an_app_sets_takes_no_sigterm_from_a_worker(run: Run) -> None:
    source = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\n" + ECHO
    server = run(source=source, workers=1).ready()
    pid = server.workers()[0]
    os.kill(pid, signal.SIGTERM)
    server.says(rf"worker {pid} of slot 0 was told to stop, not by us")
    server.successors(pid, workers=1)
    assert "mine" not in server.log


def test_workers_of_one_start_hold_only_their_own_descriptors(run: Run) -> None:
    server = run(workers=20).ready()  # more than are forked at once
    held = [kinds(pid) for pid in server.workers()]
    assert len(held) == 20
    assert all(each == held[0] for each in held)
