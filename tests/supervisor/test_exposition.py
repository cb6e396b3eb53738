"""Both formats of /metrics, as the parsers and the linter of the Prometheus project read them, and who gets which."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from tests.deploy.programs import clean, program
from tests.supervisor.conftest import Run
from unlimitedws.engine.counters import ROW_BYTES
from unlimitedws.supervisor import metrics
from unlimitedws.supervisor.exposition import OPENMETRICS, PLAIN, Format, format_for

Parser = Callable[[str], Iterable[Metric]]
BOTH = pytest.mark.parametrize(("format", "parser"), [(OPENMETRICS, openmetrics_families), (PLAIN, plain_families)], ids=["open", "plain"])

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2_5 = "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        (FIREFOX, PLAIN),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_2_5, PLAIN),
        ("application/openmetrics-text", OPENMETRICS),
        ("Application/OpenMetrics-Text ; Version=1.0.0", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", PLAIN),
        ("application/openmetrics-text,text/plain", OPENMETRICS),
        ("text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5", PLAIN),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text;q=much", PLAIN),
        (";;,=,;q", PLAIN),
    ],
)
def test_openmetrics_is_for_who_likes_it_best(accept: str, format: Format) -> None:
    assert format_for(accept) is format


@BOTH
def test_what_stands_in_labels_and_help_is_escaped(format: Format, parser: Parser) -> None:
    family = metrics.Family("x", "gauge", "", 'a "b"\\c\nd')
    (found,) = parser(format.text([(family, [metrics.Sample("", {"name": 'e"f\\g\nh'}, 1)])]))
    assert (found.name, found.documentation) == ("unlimitedws_x", 'a "b"\\c\nd')
    assert found.samples[0].labels == {"name": 'e"f\\g\nh'}


def test_both_say_the_same_of_everything_but_what_the_older_one_does_not_know() -> None:
    row = memoryview(bytearray(ROW_BYTES)).cast("q")
    measured = [(metrics.BUILD, [metrics.Sample("_info", {"version": "1"}, 1)]), *metrics.of_rows({0: row, 1: row})]
    new, old = (list(parser(format.text(measured))) for format, parser in ((OPENMETRICS, openmetrics_families), (PLAIN, plain_families)))
    assert [family.samples for family in old] == [family.samples for family in new]
    assert [(family.type, family.documentation) for family in old][1:] == [(family.type, family.documentation) for family in new][1:]
    assert (old[0].name, old[0].type, new[0].type) == ("unlimitedws_build_info", "gauge", "info")


# ---- of a whole server


def test_a_server_gives_what_is_asked_for(run: Run) -> None:
    server = run(workers=1).ready()
    for format, accept in ((PLAIN, "*/*"), (OPENMETRICS, PROMETHEUS_3)):
        headers = server.headers("/metrics", accept=accept)
        assert (headers["Content-Type"], headers["Vary"]) == (format.content_type, "Accept")
        assert server.get("/metrics", accept=accept)[1].endswith("# EOF\n") == (format is OPENMETRICS)
    assert server.get("/metrics/more")[0] == 404


def test_the_linter_of_prometheus_has_nothing_to_say(run: Run) -> None:
    promtool = program("promtool")
    text = run(workers=2).ready().get("/metrics")[1]
    said = subprocess.run([promtool, "check", "metrics"], input=text, env=clean(), capture_output=True, text=True, timeout=60, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
