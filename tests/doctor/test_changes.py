"""What has to be changed, with exact values. (That they are enough, on every machine: test_verdict.py.)"""

from __future__ import annotations

import pytest

from tests.doctor.conftest import Judge
from unlimitedws.doctor.capacity import MOST_ROWS
from unlimitedws.doctor.changes import LIFTS, Change, together
from unlimitedws.doctor.fields import BOUNDS
from unlimitedws.doctor.verdict import Verdict


def changed(verdict: Verdict) -> dict[str, str]:
    return {change.key: change.value for change in verdict.changes}


def test_every_bound_has_something_that_lifts_it() -> None:
    assert set(LIFTS) == set(BOUNDS)


def test_more_descriptors_or_more_workers(judge: Judge) -> None:
    verdict = judge("wsl", 20_000)
    assert [change[1:] for change in verdict.changes if change.bound == "descriptors"] == [
        ("setting", "workers", "5", "RLIMIT_NOFILE"),
        ("open_files", "RLIMIT_NOFILE", "65536", ""),
    ]


def test_more_workers_are_no_way_out_where_memory_is_short(judge: Judge) -> None:
    assert "workers" not in changed(judge("tiny", 100_000))


def test_more_descriptors_than_the_kernel_gives_raise_what_it_gives(judge: Judge) -> None:
    verdict = judge("plain", 3_000_000, workers=1)
    assert changed(verdict)["RLIMIT_NOFILE"] == changed(verdict)["fs.nr_open"] == "3014656"


def test_more_than_the_rows_of_a_table_take_more_workers(judge: Judge) -> None:
    verdict = judge("plain", MOST_ROWS + 1, workers=1)
    (workers,) = [change for change in verdict.changes if change.key == "workers"]
    assert (workers.value, workers.instead_of) == ("2", "")


def test_the_settings_of_the_machine_in_the_manual_for_a_million(judge: Judge) -> None:
    found = changed(judge("firewalled", 1_000_000))
    assert found["RLIMIT_NOFILE"] == "524288"
    assert found["net.ipv4.tcp_mem"] == "786432 1048576 1572864"
    assert found["net.netfilter.nf_conntrack_max"] == "2097152"


def test_the_hash_of_the_kernel_is_made_larger_at_its_start_and_that_of_a_container_on_its_host(judge: Judge) -> None:
    assert "thash_entries" not in changed(judge("plain", 200_000))
    assert changed(judge("plain", 300_000))["thash_entries"] == "524288"
    assert changed(judge("plain", 300_000, trusted_proxies="127.0.0.1"))["thash_entries"] == "1048576"
    inside = changed(judge("kubernetes_v2", 3_000_000))
    assert inside["net.ipv4.tcp_child_ehash_entries"] == "4194304"
    assert "thash_entries" not in inside
    assert changed(judge("kubernetes_v2", 30_000_000))["net.ipv4.tcp_child_ehash_entries"] == "16777216", "more it cannot have"


def test_buckets_of_a_firewall_are_as_many_as_its_notes(judge: Judge) -> None:
    assert changed(judge("firewalled", 1_000_000))["net.netfilter.nf_conntrack_buckets"] == "2097152"
    assert "net.netfilter.nf_conntrack_buckets" not in changed(judge("firewalled", 200_000))


def test_more_workers_than_the_supervisor_has_files_for_raise_its_limit(judge: Judge) -> None:
    assert changed(judge("wsl", 6_000_000, workers=4000))["RLIMIT_NOFILE"] == "65536"


def test_each_cgroup_that_is_too_tight_is_named(judge: Judge) -> None:
    keys = {change.key: int(change.value) for change in judge("kubernetes_v2", 300_000).changes if change.kind == "memory"}
    assert {key.rpartition("/")[0].rpartition("/")[2] for key in keys} == {"pod1", "app"}
    assert all(value % (64 << 20) == 0 for value in keys.values())


def test_missing_memory_is_told_apart_by_what_it_is_for(judge: Judge) -> None:
    missing = {change.bound: int(change.value) for change in judge("plain", 5_000_000).changes if change.kind == "hardware"}
    assert missing["memory_busy"] > missing["memory"] > 4 << 30


def test_proxies_get_all_their_ports_and_then_more_to_connect_to(judge: Judge) -> None:
    found = changed(judge("plain", 150_000, trusted_proxies="127.0.0.1"))
    assert found["net.ipv4.ip_local_port_range"] == "1024 65535"
    assert found["listen"] == "127.0.0.1:8000, 127.0.0.1:8001, 127.0.0.1:8002"
    assert "listen" not in changed(judge("plain", 60_000, trusted_proxies="127.0.0.1"))
    assert (
        changed(judge("plain", 70_000, trusted_proxies="192.0.2.1", listen="0.0.0.0:90?proxy"))["listen"]
        == "0.0.0.0:90?proxy, 0.0.0.0:91?proxy"
    )


def test_more_than_all_ports_of_a_proxy_take_more_proxies(judge: Judge) -> None:
    assert changed(judge("plain", 10_000_000, trusted_proxies="192.0.2.1"))["proxies"] == "2"


@pytest.mark.parametrize("values", [("5", "12"), ("12", "5")])
def test_of_two_changes_of_one_thing_the_further_counts(values: tuple[str, str]) -> None:
    assert together([Change("a", "memory", "/x", value) for value in values]) == [Change("a", "memory", "/x", "12")]
