"""Workers that are started again and again, and what a new one is told."""

from __future__ import annotations

import os
import re
import signal
from types import SimpleNamespace
from typing import Any

from tests.supervisor.conftest import Run
from tests.supervisor.running import ECHO, until
from unlimitedws.supervisor.hatching import Hatching


def test_connection_ids_are_never_given_twice(run: Run) -> None:
    tells_id = ECHO + "@handlers.on_connect\ndef tell(conn):\n    conn.send(str(conn.id))\n"
    server = run(source=tells_id, workers=2).ready()

    def ids() -> list[int]:
        found = []
        for _ in range(6):
            with server.connect() as client:
                found.append(int(client.recv(timeout=30)))
        return found

    first = ids()
    victims = server.workers()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    server.successors(*victims, workers=2)
    both = first + ids()
    assert len(set(both)) == len(both)


def test_a_crash_loop_backs_off_and_ends_by_itself(run: Run) -> None:
    crashes = ECHO + ("import os\n@handlers.on_start\ndef crash(worker):\n    if os.path.exists('crash'):\n        os._exit(7)\n")
    server = run(source=crashes, workers=1, restart_backoff_s=0.4).ready()
    (server.folder / "crash").touch()
    os.kill(server.workers()[0], signal.SIGKILL)
    server.says(r"ended with exit code 7; next try in 0.4 s(.|\n)*next try in 0.4 s")
    pauses = re.findall(r"(?:next try|restarting) in ([\d.]+) s", server.log)
    assert pauses[:4] == ["0.1", "0.2", "0.4", "0.4"]
    assert server.get("/readyz")[0] == 503
    (server.folder / "crash").unlink()
    until(lambda: server.get("/readyz")[0] == 200)
    assert server.echoes()


def test_on_start_that_fails_later_is_tried_again_instead_of_ending_the_server(run: Run) -> None:
    fails = ECHO + (
        "import os\n@handlers.on_start\ndef start(worker):\n"
        "    if os.path.exists('away'):\n        raise ConnectionError('the database is away')\n"
    )
    server = run(source=fails, workers=1).ready()
    server.expected = "Traceback (most recent call last)"
    (server.folder / "away").touch()
    os.kill(server.workers()[0], signal.SIGKILL)
    server.says("the database is away")
    (server.folder / "away").unlink()
    until(lambda: server.get("/readyz")[0] == 200)
    assert server.echoes()


def test_a_new_worker_is_told_what_changed_while_it_was_forked() -> None:
    told: list[tuple[str, Any]] = []
    child: Any = SimpleNamespace(
        order=SimpleNamespace(workers=2), listen=lambda it: told.append(("listen", it)), unlisten=lambda it: told.append(("unlisten", it)),
        share=lambda workers: told.append(("share", workers)),
    )  # fmt: skip
    fleet: Any = SimpleNamespace(workers=3)
    slot: Any = SimpleNamespace(listeners=["stays", "came"])
    Hatching(fleet).catch_up(child, slot, ["stays", "went"])  # type: ignore[list-item]
    assert told == [("listen", "came"), ("unlisten", "went"), ("share", 3)]
