"""What is wrong whatever the number of connections; and that most servers hear nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doctor.conftest import Judge
from unlimitedws.config import DEFAULTS
from unlimitedws.doctor.fields import BOUNDS, PROBLEMS
from unlimitedws.doctor.problems import PROXIES, SAFE_PING_S, Problem
from unlimitedws.doctor.verdict import Verdict


def serious(verdict: Verdict) -> dict[str, Problem]:
    return {problem.name: problem for problem in verdict.problems if problem.serious}


@pytest.mark.parametrize("name", ["plain", "firewalled", "kubernetes_v2", "wsl", "bare"])
@pytest.mark.parametrize("cpus", [1, 16])
def test_a_server_with_its_defaults_on_an_ordinary_machine_hears_nothing(judge: Judge, name: str, cpus: int) -> None:
    assert serious(judge(name, cpus=cpus)) == {}


def test_a_backlog_that_the_kernel_cuts(judge: Judge) -> None:
    assert "4,096" in serious(judge("docker_v1"))["backlog"].text
    assert "128" in serious(judge("docker_v1"))["backlog"].text
    assert "backlog" not in serious(judge("docker_v1", backlog=128))
    assert "backlog" in serious(judge("plain", backlog=4097))


def test_settings_that_promise_more_than_there_is(judge: Judge) -> None:
    assert "a worker can open 4,064 files more" in serious(judge("wsl", max_connections=5000))["max_connections"].text
    assert list(serious(judge("wsl", max_connections=5000))) == ["max_connections"]
    total = serious(judge("firewalled", max_connections_total=300_000, workers=100))
    assert list(total) == ["conntrack"]
    assert "unlimitedws doctor --connections 300000" in total["conntrack"].text
    assert serious(judge("firewalled", max_connections_total=200_000, workers=100)) == {}


@pytest.mark.parametrize("interval_s", [0.0, 50.0, 60.0, 100.0, 1000.0])
def test_a_proxy_that_cuts_the_silent_before_a_ping_comes(judge: Judge, interval_s: float) -> None:
    text = serious(judge("plain", trusted_proxies="10.0.0.0/8", ping_interval_s=interval_s))["ping_interval_s"].text
    for name, idle_s in PROXIES:
        assert (f"{name} after {idle_s} s" in text) == (not interval_s or idle_s <= interval_s)


@pytest.mark.parametrize(
    "settings", [{"ping_interval_s": 0.0}, {"trusted_proxies": "unix"}, {"trusted_proxies": "unix", "ping_interval_s": 49.0}]
)
def test_without_a_proxy_or_with_frequent_pings_there_is_no_word_of_it(judge: Judge, settings: dict[str, Any]) -> None:
    assert serious(judge("plain", **settings)) == {}


def test_the_advised_interval_is_the_default_and_patient_enough_for_all() -> None:
    assert DEFAULTS["ping_interval_s"] == SAFE_PING_S <= min(idle_s for _, idle_s in PROXIES) / 2


def test_syn_cookies_that_are_off(judge: Judge, tmp_path: Any) -> None:
    judge("plain")
    (tmp_path / "plain/proc/sys/net/ipv4/tcp_syncookies").write_text("0\n")
    problem = serious(judge("plain"))["syn_cookies"]
    assert {change.key: change.value for change in problem.changes} == {
        "net.ipv4.tcp_syncookies": "1",
        "net.ipv4.tcp_max_syn_backlog": "4096",
    }
    (tmp_path / "plain/proc/sys/net/ipv4/tcp_max_syn_backlog").unlink()
    assert "its queue" in serious(judge("plain"))["syn_cookies"].text


def test_strict_accounting_of_address_space(judge: Judge, tmp_path: Any) -> None:
    judge("plain")
    (tmp_path / "plain/proc/sys/vm/overcommit_memory").write_text("2\n")
    assert "96.0 MiB" in serious(judge("plain"))["overcommit"].text  # 2 x 48 bytes x 1,048,576
    assert serious(judge("plain", engine="portable")) == {}


def test_a_rate_of_handshakes_at_which_everybody_waits_long(judge: Judge) -> None:
    def said(wanted: int | None = None, **settings: Any) -> list[str]:
        return [problem.text for problem in judge("plain", wanted, **settings).problems if problem.name == "handshakes_per_s"]

    assert said(100_000, handshakes_per_s=50.0) == ["handshakes_per_s is 50: after an outage 100,000 clients take 33 minutes to come back"]
    assert said(handshakes_per_s=50.0, max_connections_total=100_000)
    assert said(handshakes_per_s=50.0) == said(100_000, handshakes_per_s=500.0) == said(100_000) == []


def test_what_could_be_better_is_not_serious(judge: Judge) -> None:
    found = {problem.name: problem.serious for problem in judge("plain", workers=8).problems}
    assert found == {"migration": False, "orphans": False}


def test_every_problem_is_in_the_reference(judge: Judge) -> None:
    named = {
        problem.name for name in ("plain", "docker_v1", "tiny") for problem in judge(name, workers=9, max_connections=9999999).problems
    }
    assert named <= set(PROBLEMS) | set(BOUNDS)
