"""The dashboard: every expression is PromQL, asks for what /metrics really prints, and has an answer in a real Prometheus."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import read
from tests.deploy.metrics import NAME, check, exposed
from tests.deploy.programs import judge, program, running
from tests.supervisor.conftest import Run, run
from tests.supervisor.running import Running, until

__all__ = ["run"]  # a fixture

DASHBOARD = json.loads(read("grafana/unlimitedws.json"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
EXPRESSIONS = [
    *((target["expr"], panel["title"]) for panel in PANELS for target in panel["targets"]),
    *((each["expr"], each["name"]) for each in DASHBOARD["annotations"]["list"]),
]
MAY_BE_EMPTY = ("Closes a second, by cause", "Restarts")
"""Those that show only what has happened."""
EVERY_METRIC_BUT = {
    "unlimitedws_connections_counted", "unlimitedws_connections_share", "unlimitedws_buffers_held", "unlimitedws_loop_lag_max_seconds",
    "unlimitedws_loop_lag_last_seconds", "unlimitedws_resident_memory_bytes", "unlimitedws_build_info", "unlimitedws_ready",
}  # fmt: skip
"""What is too fine for a first look, or shown by another one of its kind."""


def filled(expression: str) -> str:
    """As Grafana asks, with all servers chosen."""
    for name, value in {"$__rate_interval": "1m", "$__range": "10m", "$job": ".*", "$instance": ".*"}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression


def test_panels_have_an_id_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in PANELS:
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


def test_every_variable_that_is_used_is_declared() -> None:
    used = set(re.findall(r"\$\{?([a-z]+)\}?", " ".join(expression for expression, _ in EXPRESSIONS)))
    assert used | {"datasource"} <= VARIABLES.keys()


def test_every_expression_is_promql(tmp_path: Path) -> None:
    rules = [{"record": f"expression:{i}", "expr": filled(expression)} for i, (expression, _) in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    judge(program("promtool"), "check", "rules", file)


def test_it_asks_for_what_the_server_prints_and_shows_nearly_all_of_it(run: Run) -> None:
    there = exposed(run().ready())
    queries = [str(variable["query"]) for variable in VARIABLES.values()]
    for expression in [
        *(expression for expression, _ in EXPRESSIONS),
        *(re.sub(r"label_values\((.*),.*\)", r"\1", query) for query in queries),
    ]:
        check(expression, there)
    shown = {name for expression, _ in EXPRESSIONS for name in NAME.findall(expression)}
    parts = {name for name in there.names if name.endswith(("_sum", "_count"))}  # of histograms, whose buckets are shown
    assert there.names - shown - parts - EVERY_METRIC_BUT == set()


@pytest.fixture
def prometheus(run: Run, tmp_path: Path) -> Iterator[int]:
    """The port of a real Prometheus that scrapes a real server."""
    server = run(workers=2).ready()
    exposed(server)
    scraped = {"job_name": "unlimitedws", "static_configs": [{"targets": [f"127.0.0.1:{server.admin_port}"]}]}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}))
    where = [f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'data'}"]

    def command(ports: list[int]) -> list[str | Path]:
        return [program("prometheus"), *where, f"--web.listen-address=127.0.0.1:{ports[0]}"]

    with running(command, tmp_path) as (port,):
        until(lambda: is_ready(port), 60.0)
        visit(server)
        yield port


def is_ready(port: int) -> bool:
    """Whether a Prometheus has read its files: until then it listens, and answers 503."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=30):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return False


def visit(server: Running) -> None:
    with server.connect() as client:
        client.send("hello")
        assert client.recv(timeout=30) == "hello"


def answer(port: int, expression: str) -> list[Any]:
    """What Prometheus says to it now."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=30) as response:
        document = json.load(response)
    assert document["status"] == "success", expression
    result: list[Any] = document["data"]["result"]
    return result


def test_every_panel_has_something_to_show_in_a_real_prometheus(prometheus: int) -> None:
    for expression, title in EXPRESSIONS:
        asked = filled(expression)
        if title in MAY_BE_EMPTY:
            answer(prometheus, asked)
        else:
            until(partial(answer, prometheus, asked), 60.0, but=lambda empty=title: f"{empty} stays empty")
