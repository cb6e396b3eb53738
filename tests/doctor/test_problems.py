"""What is wrong whatever the number of connections; and that most servers hear nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.doctor.conftest import Judge
from tests.doctor.trees import limits, write
from unlimitedws.config import DEFAULTS
from unlimitedws.doctor.fields import BOUNDS, PROBLEMS
from unlimitedws.doctor.problems import PROXIES, SAFE_PING_S, Problem, problems
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


def test_without_a_proxy_that_is_known_rare_pings_could_be_better(judge: Judge) -> None:
    def said(**settings: Any) -> list[str]:
        return [problem.text for problem in judge("plain", **settings).problems if problem.name == "ping_interval_s"]

    (text,) = said(ping_interval_s=0.0)
    assert text.startswith("pings are off (ping_interval_s = 0): a proxy in front may not wait that long: ")
    assert said(ping_interval_s=50.0)
    assert said(ping_interval_s=49.0) == said() == []


def test_more_workers_than_can_start(judge: Judge) -> None:
    problem = serious(judge("tiny", workers=64))["workers"]
    assert problem.text == "64 workers are to run, but there is room for 28 only: 30 left of /sys/fs/cgroup/pids.max"
    assert {change.key: change.value for change in problem.changes} == {
        "/sys/fs/cgroup/pids.max": "8320"
    }  # with the threads that each may have
    assert "workers" not in serious(judge("tiny", workers=28))
    supervisor = serious(judge("wsl", workers=1358))["workers"]
    assert "for the supervisor" in supervisor.text
    assert {change.key: change.value for change in supervisor.changes} == {"RLIMIT_NOFILE": "65536"}


def test_a_user_who_may_have_too_few_processes(judge: Judge, tmp_path: Path) -> None:
    judge("plain")
    write(tmp_path / "plain/proc/self/limits", limits(processes=9))
    problem = serious(judge("plain", workers=8))["workers"]
    assert problem.text == "8 workers are to run, but there is room for 7 only: 9 left of 9 of RLIMIT_NPROC, which counts all of the user's"
    assert serious(judge("plain", workers=7)) == {}
    write(tmp_path / "plain/proc/17/status", "Name: another\nThreads: 3\n")
    write(tmp_path / "plain/proc/18/stat", "18 (ends just now) Z")
    problem = serious(judge("plain", workers=7))["workers"]
    assert "room for 3 only: 5 left of 9 of RLIMIT_NPROC" in problem.text
    assert {change.key: change.value for change in problem.changes} == {"RLIMIT_NPROC": "960"}  # 4 and 2, and 7 with 129 each: 909


def test_no_room_for_anybody(judge: Judge, tmp_path: Path) -> None:
    judge("plain")
    write(tmp_path / "plain/proc/self/limits", limits(hard=34))
    assert serious(judge("plain", workers=3)) == {}
    write(tmp_path / "plain/proc/self/limits", limits(hard=32))
    found = serious(judge("plain", workers=1))
    assert set(found) == {"no_room"}
    assert found["no_room"].text.startswith("not one connection fits: descriptors: 1 worker x (32 open files")
    full = serious(judge("tiny", workers=28, shed_memory=0.4))["no_room"]
    assert "memory: " in full.text
    assert {change.key for change in full.changes} == {"/sys/fs/cgroup/memory.max"}


def test_without_uvloop_no_worker_can_start_and_without_the_native_engine_messages_cost_more(judge: Judge) -> None:
    verdict = judge("plain")
    bare = dataclasses.replace(verdict.server, uvloop=False, engine="portable", why_not_native="it is not built")
    found = {problem.name: problem for problem in problems(verdict.machine, bare)}
    assert found["uvloop"].serious
    assert "pip install uvloop" in found["uvloop"].text
    assert not found["engine"].serious
    assert "(it is not built)" in found["engine"].text
    assert {"uvloop", "engine"} & {problem.name for problem in verdict.problems} == set()


def test_packets_that_were_dropped_for_want_of_room(judge: Judge, tmp_path: Path) -> None:
    def said(name: str) -> Problem:
        (found,) = [problem for problem in judge(name).problems if problem.name == "dropped_packets"]
        assert not found.serious
        return found

    rows = ["2845b5bf 00002241 00000050 00000000\n", "283b0e40 00011d74 0000007d 00000000\n"]
    for name in ("plain", "docker_v1"):
        judge(name)
        write(tmp_path / name / "proc/net/softnet_stat", "".join(rows))
    assert said("plain").text.startswith("81,845 packets for busy CPUs were dropped since the machine started")
    assert said("plain").text.endswith("net.core.netdev_max_backlog is 1,000")
    assert [change[1:4] for change in said("plain").changes] == [("sysctl", "net.core.netdev_max_backlog", "16384")]
    assert said("docker_v1").text.endswith("on the host, net.core.netdev_max_backlog = 16384 makes room")
    assert said("docker_v1").changes == ()
    write(tmp_path / "plain/proc/sys/net/core/netdev_max_backlog", "16384\n")
    assert said("plain").text.endswith("if it still grows with a queue of 16,384, the CPUs are too few")
    assert said("plain").changes == ()
    write(tmp_path / "plain/proc/net/softnet_stat", rows[0].replace("00002241", "00000000"))
    assert "dropped_packets" not in {problem.name for problem in judge("plain").problems}


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
