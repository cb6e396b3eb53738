"""Each limit as a number of connections."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.conftest import Judge
from tests.doctor.trees import limits, write
from unlimitedws import cost
from unlimitedws.doctor.capacity import Bound, amount
from unlimitedws.doctor.verdict import Verdict


def bound(verdict: Verdict, name: str) -> Bound:
    return next(bound for bound in verdict.bounds if bound.name == name)


def names(verdict: Verdict) -> set[str]:
    return {bound.name for bound in verdict.bounds}


def test_descriptors_are_those_of_all_workers_less_their_own(judge: Judge) -> None:
    assert judge("wsl", workers=3).held == 3 * (4096 - 32)


def test_a_limit_that_is_next_to_endless_ends_at_the_rows_of_the_table(judge: Judge) -> None:
    assert bound(judge("bare", workers=2), "descriptors").connections == 2 << 24


def test_settings_that_let_in_fewer_end_it(judge: Judge) -> None:
    assert judge("plain", workers=4, max_connections=100).bound[:2] == ("max_connections", 400)
    assert judge("plain", max_connections_total=99).bound[:2] == ("max_connections_total", 99)


def test_the_tightest_cgroup_counts_whichever_it_is(judge: Judge) -> None:
    memory = bound(judge("kubernetes_v2"), "memory")
    assert "kubepods.slice/pod1/memory.max" in memory.why
    fixed = cost.BASE_BYTES + 2 * cost.WORKER_BYTES
    assert memory.connections == (int((1 << 30) * 0.95) - (200 << 20) - fixed) // (4096 + 48)
    without = bound(judge("kubernetes_v2", shed_memory=0.0), "memory")
    assert without.connections == ((1 << 30) - (200 << 20) - fixed) // (4096 + 48)


def test_a_firewall_counts_where_it_tracks_and_in_a_container_the_hosts_may(judge: Judge) -> None:
    assert bound(judge("firewalled"), "conntrack").connections == 262144 - 1200
    assert "the host's" in bound(judge("docker_v1"), "conntrack").why
    assert "conntrack" not in names(judge("plain")) | names(judge("kubernetes_v2"))


def test_processes_bind_where_not_all_workers_can_be_forked(judge: Judge) -> None:
    assert judge("tiny", workers=64).bound.name in ("memory", "pids")
    assert bound(judge("tiny", workers=64), "pids").connections == 28 * (1024 - 32)
    assert bound(judge("docker_v1"), "pids").why == "96 left of /sys/fs/cgroup/pids/pids.max: 94 workers at most"


def test_the_supervisor_has_files_of_its_own_for_each_worker(judge: Judge) -> None:
    few = bound(judge("wsl", workers=2000), "supervisor_files")
    assert (few.connections, few.ends) == (1357 * (4096 - 32), True)  # (4,096 - 24) / 3
    assert few.why == "4,096 open files of RLIMIT_NOFILE for the supervisor, 3 of them for each worker: 1,357 workers at most"
    places = bound(judge("wsl", listen="0.0.0.0:1, [::]:2, unix:/run/x"), "supervisor_files")
    assert places.connections == 1018 * (4096 - 32)  # (4,096 - 24) / 4: a Unix socket all of them share
    assert "supervisor_files" not in names(judge("plain"))
    assert judge("wsl").best.workers <= 1357


def test_without_a_descriptor_for_anybody_more_workers_are_not_better(judge: Judge, tmp_path: Path) -> None:
    judge("plain")
    write(tmp_path / "plain/proc/self/limits", limits(hard=16))
    assert judge("plain", workers=2).best == (1, 0)


def test_a_cgroup_that_is_slowed_down_before_its_end(judge: Judge) -> None:
    high = bound(judge("kubernetes_v2"), "memory_high")
    fixed = cost.BASE_BYTES + 2 * cost.WORKER_BYTES
    assert (high.connections, high.ends) == (((1900 - 130 << 20) - fixed) // (4096 + 48), False)
    assert "pod1/app/memory.high" in high.why
    assert "memory_high" not in names(judge("plain"))


def test_two_sockets_for_each_chain_of_the_hash_are_few_enough(judge: Judge) -> None:
    found = bound(judge("plain"), "tcp_ehash")
    assert (found.connections, found.ends) == (2 * 131072, False)
    assert "131,072 chains (net.ipv4.tcp_ehash_entries)" in found.why
    shared = bound(judge("kubernetes_v2"), "tcp_ehash")
    assert shared.connections == 2 * 524288
    assert "shared with the host" in shared.why


@pytest.mark.parametrize(
    ("trusted", "ends"), [("127.0.0.1", 2), ("127.0.0.1, ::1", 2), ("127.0.0.1, 192.0.2.1", 1), ("127.0.0.0/8", 1), ("unix", 1), ("", 1)]
)
def test_proxies_on_this_machine_bring_both_ends_of_a_connection(judge: Judge, trusted: str, ends: int) -> None:
    assert bound(judge("plain", trusted_proxies=trusted), "tcp_ehash").connections == 2 * 131072 // ends


def test_a_kernel_that_does_not_tell_of_its_hash_is_not_judged_by_it(judge: Judge) -> None:
    assert "tcp_ehash" not in names(judge("wsl")) | names(judge("bare"))


def test_unix_sockets_are_in_no_account_of_tcp(judge: Judge) -> None:
    of_tcp = {"tcp_mem", "tcp_ehash", "conntrack", "conntrack_buckets"}
    assert of_tcp <= names(judge("firewalled"))
    assert of_tcp <= names(judge("firewalled", listen="unix:/run/x, 0.0.0.0:1")) & names(judge("firewalled", listen="systemd"))
    assert not of_tcp & names(judge("firewalled", listen="unix:/run/x"))


def test_a_firewalls_hash_has_two_places_for_each_connection(judge: Judge) -> None:
    assert bound(judge("firewalled"), "conntrack_buckets")[1:3] == (262144, False)
    assert "conntrack_buckets" not in names(judge("plain")) | names(judge("bare"))


def test_epoll_ends_it_where_the_kernel_gave_it_little(judge: Judge) -> None:
    watches = (16 << 30) // 25 // 184
    assert bound(judge("plain"), "epoll_watches").connections == watches - 64


def test_what_only_gets_worse_does_not_end_it(judge: Judge) -> None:
    verdict = judge("plain")
    assert [bound.ends for bound in verdict.bounds] == sorted((bound.ends for bound in verdict.bounds), reverse=True)
    assert bound(verdict, "tcp_mem").connections == 262144 - 20 < verdict.held
    assert bound(verdict, "memory_busy").connections < bound(verdict, "memory").connections
    assert verdict.bound.ends


def test_heartbeats_take_cpu_where_there_are_any(judge: Judge) -> None:
    assert bound(judge("plain", cpus=4), "cpu").connections == int(4 * 25 / 13e-6)
    assert bound(judge("plain", cpus=4, ping_interval_s=50.0), "cpu").connections == int(4 * 50 / 13e-6)
    assert "cpu" not in names(judge("plain", ping_interval_s=0.0))


@pytest.mark.parametrize(
    ("trusted", "listen", "ports"),
    [
        ("127.0.0.1", "", 28232),
        ("::1", "", 28232),
        ("192.0.2.1", "", 64512),
        ("192.0.2.1, 192.0.2.2", "0.0.0.0:1, 0.0.0.0:2, 0.0.0.0:3", 6 * 64512),
        ("127.0.0.1, 192.0.2.2", "", 28232 + 64512),
        ("192.0.2.0/24", "", None),
        ("unix", "unix:/run/x", None),
        ("127.0.0.1, unix", "", None),
        ("127.0.0.1", "0.0.0.0:1, unix:/run/x", None),
        ("", "", None),
    ],
)
def test_proxies_run_out_of_ports_where_all_their_addresses_are_known(judge: Judge, trusted: str, listen: str, ports: int | None) -> None:
    verdict = judge("plain", trusted_proxies=trusted, listen=listen)
    found = [bound.connections for bound in verdict.bounds if bound.name == "proxy_ports"]
    assert found == ([] if ports is None else [ports])


def test_the_best_number_of_workers_is_the_least_that_holds_most(judge: Judge) -> None:
    best = judge("wsl").best
    assert judge("wsl", workers=best.workers).held == best.connections
    assert judge("wsl", workers=best.workers - 1).held < best.connections
    assert judge("wsl", workers=best.workers + 1).held <= best.connections


def test_amounts_are_for_people() -> None:
    assert [amount(size) for size in (512, 2048, 5 << 20, 3 << 30, 5000 << 30)] == [
        "512 bytes",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "5,000.0 GiB",
    ]
