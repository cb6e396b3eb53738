"""What Prometheus is told: it accepts it, its alerts fire when they should, and they ask for what /metrics really prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import DEPLOY, changed, documents, read
from tests.deploy.metrics import check, exposed
from tests.deploy.programs import judge, program
from tests.supervisor.conftest import Run, run
from unlimitedws.config import DEFAULTS
from unlimitedws.wire.closing import Cause

__all__ = ["run"]  # a fixture

ALERTS = "prometheus/alerts.yml"
RULES = [rule for document in documents(ALERTS) for group in document["groups"] for rule in group["rules"]]


def test_prometheus_accepts_the_configuration_and_the_alerts() -> None:
    judge(program("promtool"), "check", "config", DEPLOY / "prometheus/prometheus.yml")


def test_prometheus_accepts_the_configuration_for_kubernetes(tmp_path: Path) -> None:
    """But for the discovery itself, which Debian builds Prometheus without."""
    discovery = "    kubernetes_sd_configs:\n      - role: pod\n"
    (tmp_path / "alerts.yml").write_text(read(ALERTS))
    file = tmp_path / "prometheus.yml"
    file.write_text(changed(read("prometheus/prometheus-kubernetes.yml"), {discovery: "    static_configs: [{targets: [pod]}]\n"}))
    judge(program("promtool"), "check", "config", file)


def test_the_port_that_is_scraped_is_that_of_the_setting() -> None:
    (document,) = documents("prometheus/prometheus.yml")
    (job,) = document["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"{DEFAULTS['admin_host']}:{DEFAULTS['admin_port']}"]}]


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_every_cause_that_an_alert_names_is_one() -> None:
    named = {"heartbeat_lost", "slow_consumer", "http_answered", "handshake_timeout", "handshake_refused"}
    assert named <= {str(cause) for cause in Cause}
    text = read(ALERTS)
    assert all(cause in text for cause in ("heartbeat_lost", "slow_consumer", "http_answered", "handshake_.*"))


def test_alerts_ask_for_what_the_server_prints(run: Run) -> None:
    there = exposed(run().ready())
    for rule in RULES:
        check(rule["expr"], there)


HERE = 'job="unlimitedws", instance="a"'
# Alert to series in promtool's notation, one value a minute, with which it must fire after half an hour.
FIRES: dict[str, list[tuple[str, str]]] = {
    "UnlimitedwsDown": [(f"up{{{HERE}}}", "0x60")],
    "UnlimitedwsNotReady": [(f"unlimitedws_ready{{{HERE}}}", "0x60")],
    "UnlimitedwsWorkerMissing": [(f'unlimitedws_worker_ready{{{HERE}, slot="1"}}', "0x60")],
    "UnlimitedwsWorkersRestart": [(f'unlimitedws_worker_restarts_total{{{HERE}, slot="{slot}"}}', "0+0.2x60") for slot in (0, 1)],
    "UnlimitedwsFull": [(f'unlimitedws_connections_refused_total{{{HERE}, slot="0"}}', "0+1x60")],
    "UnlimitedwsOutOfDescriptors": [(f'unlimitedws_accept_pauses_total{{{HERE}, slot="0"}}', "0+1x60")],
    "UnlimitedwsLittleRoom": [
        (f"unlimitedws_connections_room{{{HERE}}}", "150x60"),
        *((f'unlimitedws_connections_open{{{HERE}, slot="{slot}"}}', "1000x60") for slot in (0, 1)),
    ],
    "UnlimitedwsSheds": [(f'unlimitedws_shedding{{{HERE}, slot="0"}}', "0x60"), (f'unlimitedws_shedding{{{HERE}, slot="1"}}', "1x60")],
    "UnlimitedwsHandshakesFail": [
        (f'unlimitedws_handshake_failures_total{{{HERE}, slot="0"}}', "0+600x60"),
        (f'unlimitedws_connections_opened_total{{{HERE}, slot="0"}}', "0+300x60"),
    ],
    "UnlimitedwsMassDisconnect": [(f'unlimitedws_connections_open{{{HERE}, slot="0"}}', "5000x26 1000x34")],
    "UnlimitedwsHeartbeatsLost": [
        (f'unlimitedws_closes_total{{{HERE}, slot="0", cause="heartbeat_lost"}}', "0+600x60"),
        (f'unlimitedws_closes_total{{{HERE}, slot="0", cause="peer_closed"}}', "0+600x60"),
        (f'unlimitedws_closes_total{{{HERE}, slot="0", cause="http_answered"}}', "0+60000x60"),
    ],
    "UnlimitedwsSlowConsumers": [
        (f'unlimitedws_closes_total{{{HERE}, slot="0", cause="slow_consumer"}}', "0+60x60"),
        (f'unlimitedws_messages_dropped_total{{{HERE}, slot="0"}}', "0+60x60"),
    ],
    "UnlimitedwsLoopLag": [
        (f'unlimitedws_loop_lag_seconds_bucket{{{HERE}, slot="0", le="0.25"}}', "0+480x60"),
        (f'unlimitedws_loop_lag_seconds_bucket{{{HERE}, slot="0", le="0.5"}}', "0+500x60"),
        (f'unlimitedws_loop_lag_seconds_bucket{{{HERE}, slot="0", le="+Inf"}}', "0+500x60"),
    ],
    "UnlimitedwsHandlerErrors": [(f'unlimitedws_handler_errors_total{{{HERE}, slot="0"}}', "0+60x60")],
}  # fmt: skip
# A server that is well: some of everything, and nothing too much.
WELL = [
    (f"up{{{HERE}}}", "1x60"),
    (f"unlimitedws_ready{{{HERE}}}", "1x60"),
    (f"unlimitedws_connections_room{{{HERE}}}", "100000x60"),
    *(
        (f"unlimitedws_{name}{{{HERE}, {labels}}}", values)
        for name, labels, values in (
            ("worker_ready", 'slot="0"', "1x60"),
            ("worker_restarts_total", 'slot="0"', "0x29 1x30"),
            ("connections_refused_total", 'slot="0"', "7x60"),
            ("accept_pauses_total", 'slot="0"', "0x60"),
            ("connections_open", 'slot="0"', "5000-50x60"),
            ("shedding", 'slot="0"', "0x60"),
            ("handshake_failures_total", 'slot="0"', "0+60x60"),
            ("connections_opened_total", 'slot="0"', "0+600x60"),
            ("closes_total", 'slot="0", cause="heartbeat_lost"', "0+30x60"),
            ("closes_total", 'slot="0", cause="peer_closed"', "0+600x60"),
            ("closes_total", 'slot="0", cause="slow_consumer"', "0+1x60"),
            ("messages_dropped_total", 'slot="0"', "0x60"),
            ("loop_lag_seconds_bucket", 'slot="0", le="0.001"', "0+499x60"),
            ("loop_lag_seconds_bucket", 'slot="0", le="0.5"', "0+500x60"),
            ("loop_lag_seconds_bucket", 'slot="0", le="+Inf"', "0+500x60"),
            ("handler_errors_total", 'slot="0"', "0+1x60"),
        )
    ),
]
MINUTES = 30


def labels_of(rule: dict[str, Any]) -> dict[str, str]:
    """What the alert of a rule has, for the series above."""
    kept = {"UnlimitedwsMassDisconnect": ("job",), "UnlimitedwsWorkerMissing": ("job", "instance", "slot")}
    known = {"job": "unlimitedws", "instance": "a", "slot": "1"}
    return {"severity": rule["labels"]["severity"], **{name: known[name] for name in kept.get(rule["alert"], ("job", "instance"))}}


def judge_alerts(folder: Path, series: list[tuple[str, str]], fire: set[str]) -> None:
    """Prometheus finds that of all alerts just these fire. Their words are left out: they depend on values."""
    rules = [{name: value for name, value in rule.items() if name != "annotations"} for rule in RULES]
    (folder / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "unlimitedws", "rules": rules}]}))
    expected = [
        {
            "eval_time": f"{MINUTES}m",
            "alertname": rule["alert"],
            "exp_alerts": [{"exp_labels": labels_of(rule)}] if rule["alert"] in fire else [],
        }
        for rule in rules
    ]
    given = [{"series": name, "values": values} for name, values in series]
    tests = {"rule_files": ["alerts.yml"], "tests": [{"interval": "1m", "input_series": given, "alert_rule_test": expected}]}
    (folder / "test.yml").write_text(yaml.safe_dump(tests))
    judge(program("promtool"), "test", "rules", folder / "test.yml")


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_an_alert_fires_when_it_should_and_no_other_with_it(alert: str, tmp_path: Path) -> None:
    judge_alerts(tmp_path, FIRES[alert], {alert})


def test_a_server_that_is_well_fires_none(tmp_path: Path) -> None:
    judge_alerts(tmp_path, WELL, set())
