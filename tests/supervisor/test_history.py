"""The last half hour, for pages that are opened now."""

from __future__ import annotations

import json

from tests.supervisor.conftest import Run
from tests.supervisor.running import until
from unlimitedws.engine.counters import FIELDS, INDEX
from unlimitedws.supervisor.history import KEEP_S, History
from unlimitedws.supervisor.report import add


class Slot:
    number = 0
    restarts = 0


class Report:
    """What a history asks for: a server without processes, whose counters only grow."""

    uptime_s = 1.0

    def __init__(self) -> None:
        self.fleet = self
        self.restarts = 0
        self.slots: tuple[object, ...] = ()
        self.messages = 0

    def sample(self) -> dict[int, object]:
        return {}

    def children(self) -> list[object]:
        return []

    def sums(self, children: object) -> dict[int, list[int]]:
        self.messages += 1
        row = add([[0] * len(FIELDS)])
        row[INDEX["messages_in"]] = self.messages
        return {0: row}


def test_half_an_hour_is_kept_and_no_more() -> None:
    history = History(Report(), every_s=5.0)  # type: ignore[arg-type]
    most = int(KEEP_S / 5)
    for _ in range(most + 10):
        history.look()
    told = history.document()["history"]
    assert [look["total"]["messages_in"] for look in told] == list(range(11, most + 11))


def test_each_look_is_one_at_every_slot_too() -> None:
    report = Report()
    report.slots = (Slot(),)
    history = History(report, every_s=5.0)  # type: ignore[arg-type]
    for _ in range(3):
        history.look()
    assert history.workers.document()["times"] == [look["time"] for look in history.document()["history"]]
    assert history.workers.document()["slots"] == [0]


def test_a_look_has_the_words_of_stats(run: Run) -> None:
    server = run(workers=2).ready()
    until(lambda: json.loads(server.get("/history")[1])["history"])
    (look, *_) = json.loads(server.get("/history")[1])["history"]
    stats = server.stats
    assert look.keys() <= stats.keys()
    assert look["total"].keys() == stats["total"].keys()
    assert (look["pid"], look["restarts"]) == (server.pid, 0)
