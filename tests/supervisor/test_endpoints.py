"""What the admin port answers on each path (metrics: test_metrics.py, the page: test_dashboard.py)."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

from tests.supervisor.conftest import Run
from tests.supervisor.running import Running, until
from unlimitedws.config import DEFAULTS
from unlimitedws.engine.counters import FAMILIES, FIELDS
from unlimitedws.supervisor import fields

COUNTED = {field.name for field in FIELDS if field.kind in ("counter", "gauge") and not field.family}


def paths(value: Any, at: str = "") -> set[str]:
    """Every path to a plain value in a document, with `[]` for the items of a list."""
    if isinstance(value, dict):
        return {path for name, inner in value.items() for path in paths(inner, f"{at}.{name}" if at else name)}
    if isinstance(value, list):
        return {path for inner in value for path in paths(inner, at + "[]")}
    return {at}


def documented() -> set[str]:
    counts = COUNTED | {f"{family}.{field.label}" for family, fields in FAMILIES.items() for field in fields}
    return {
        *fields.SERVER,
        *(f"total.{path}" for path in {*fields.RESOURCES, *counts}),
        *(f"workers[].{path}" for path in {*fields.WORKER, *fields.RESOURCES, *counts}),
        *(f"slots[].{path}" for path in {*fields.SLOT, *counts}),
        *(f"processes[].{path}" for path in {*fields.PROCESS, *fields.RESOURCES}),
    }


def test_every_field_of_stats_is_documented_and_every_documented_field_is_there(run: Run) -> None:
    server = run(workers=2).ready()
    assert paths(server.stats) == documented()


def test_config_tells_every_setting_and_where_it_came_from(run: Run) -> None:
    server = run(workers=1, message_bytes="2k").ready()
    found = json.loads(server.get("/config")[1])["settings"]
    assert list(found) == list(DEFAULTS)
    assert found["message_bytes"] == {"value": 2048, "from": "--message-bytes"}
    assert found["low_water_bytes"] == {"value": DEFAULTS["low_water_bytes"], "from": "default"}


LAUNCHER = """
from app import handlers
from unlimitedws import Config, Supervisor

Supervisor(handlers, Config(port=0, admin_port=0, hang_timeout_s=0), workers=1).run()
"""


def test_config_of_a_program_tells_its_keywords_from_its_config(run: Run) -> None:
    server = run(script=LAUNCHER).ready()
    found = json.loads(server.get("/config")[1])["settings"]
    assert [found[name]["from"] for name in ("workers", "port", "threads")] == ["keyword argument", "Config", "default"]


def test_closes_tell_the_last_ones_also_of_a_worker_that_is_gone(run: Run) -> None:
    server = run(workers=1).ready()

    assert closes_told(server) == []
    assert server.echoes()
    until(lambda: len(closes_told(server)) == 1)
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    server.successors(worker, workers=1)
    assert server.echoes()
    until(lambda: len(closes_told(server)) == 2)
    latest, before = closes_told(server)
    assert (latest["cause"], latest["code"], latest["slot"]) == ("peer_closed", 1000, 0)
    assert int(latest["connection"]) >> 40 == (int(before["connection"]) >> 40) + 1
    assert 0 <= latest["ago_s"] <= before["ago_s"]
    assert abs(latest["time"] + latest["ago_s"] - server.stats["time"]) < 60


def test_closes_before_a_reload_are_told_after_it(run: Run) -> None:
    server = run(workers=2).ready()
    ids = set()
    for reload in range(1, 4):
        assert all(server.echoes() for _ in range(3))
        until(lambda reload=reload: len(closes_told(server)) == 3 * reload)  # type: ignore[misc]
        ids |= {close["connection"] for close in closes_told(server)}
        server.signal(signal.SIGHUP)
        until(lambda reload=reload: server.stats["reloads"] == reload)  # type: ignore[misc]
        until(lambda: len(server.stats["workers"]) == 2)
        assert {close["connection"] for close in closes_told(server)} == ids
    assert len(ids) == 9


def closes_told(server: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.get("/closes")[1])["closes"]
    return found


def test_every_path_of_the_port_is_in_the_guide() -> None:
    from tests.docs.pages import DOCS
    from unlimitedws.config import Config
    from unlimitedws.supervisor.endpoints import endpoints, services

    guide = (DOCS / "how-to/watch-the-server.md").read_text()
    shown = set(re.findall(r"`(/[\w./]*)`", guide))
    paths = {*endpoints(None, None, Config(), {}), *services(None, None, Config())} - {"/uPlot.js", "/uPlot.css"}  # type: ignore[arg-type]
    assert paths <= shown
