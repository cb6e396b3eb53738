"""The template process: one import for all workers, and what happens where that cannot be."""

from __future__ import annotations

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, read_bytes

NOISY = ECHO + "import os; print('imported by', os.getpid(), flush=True)\n"
THREADED = NOISY + "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"


def parent_of(pid: int) -> int:
    return int(read_bytes(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])


def test_the_app_is_imported_once_for_all_workers(run: Run) -> None:
    server = run(source=NOISY, workers=3).ready()
    assert server.log.count("imported by") == 1
    assert {parent_of(pid) for pid in server.workers()} == {server.template()}


def test_an_app_whose_import_starts_threads_is_imported_in_each_worker(run: Run) -> None:
    server = run(source=THREADED, workers=2).ready()
    server.says("importing app:handlers starts a thread,")
    importers = {int(line.split()[-1]) for line in server.log.splitlines() if line.startswith("imported by")}
    assert set(server.workers()) < importers
    assert server.template() not in importers
    assert all(server.echoes() for _ in range(4))


def test_an_app_whose_import_forks_is_told_to_do_that_later(run: Run) -> None:
    server = run(source=f"import os\nos.fork()\n{ECHO}").ready()
    server.says("importing app:handlers forks, and the process that came of it ends here; fork in on_start instead")
    assert "Traceback" not in server.log


def test_an_import_that_fails_in_a_worker_ends_the_first_start_with_3(run: Run) -> None:
    source = THREADED + "if os.path.exists('once'): raise RuntimeError('only once')\nopen('once', 'w').close()\n"
    server = run(source=source, workers=1)
    server.expected = "Traceback (most recent call last)"
    assert server.ends() == 3
    assert "RuntimeError: only once" in server.log


def test_what_the_app_prints_at_import_is_printed_once(run: Run) -> None:
    server = run(source=ECHO + "print('unflushed', end='')\n", workers=2).ready()
    assert server.echoes()
    server.stop()
    assert server.log.count("unflushed") == 1


def test_random_numbers_differ_between_workers(run: Run) -> None:
    source = ECHO.replace("conn.send(message)", "conn.send(f'{os.getpid()} {random.random()}')")
    server = run(source="import os, random\nrandom.random()\n" + source, workers=2).ready()
    answers: dict[str, str] = {}
    while len(answers) < 2:
        with server.connect() as client:
            client.send("?")
            pid, number = str(client.recv(timeout=30)).split()
            answers.setdefault(pid, number)
    assert len(set(answers.values())) == 2
