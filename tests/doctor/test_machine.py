"""What is read of a machine; and that hardly anything of it need be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.trees import CONNTRACK, GIB, TREES, build, limits, plain, write
from unlimitedws.doctor.machine import ENDLESS, read


@pytest.mark.parametrize(
    ("name", "surroundings", "own_network", "tracks"),
    [
        ("plain", "machine", False, False),
        ("firewalled", "machine", False, True),
        ("docker_v1", "docker", True, True),
        ("kubernetes_v2", "kubernetes", True, False),
        ("wsl", "wsl", False, False),
        ("tiny", "container", True, False),
        ("bare", "machine", False, False),
    ],
)
def test_where_it_is_and_who_tracks_its_connections(tmp_path: Path, name: str, surroundings: str, own_network: bool, tracks: bool) -> None:
    machine = read(TREES[name](tmp_path), cpus=1)
    assert (machine.surroundings, machine.has_own_network, machine.tracks) == (surroundings, own_network, tracks)


def test_a_module_that_is_loaded_and_notes_nothing_is_not_in_the_way(tmp_path: Path) -> None:
    build(plain(tmp_path), {}, {**CONNTRACK, "net.netfilter.nf_conntrack_count": "0"})
    assert not read(tmp_path, cpus=1).tracks


def test_the_figures_of_a_machine(tmp_path: Path) -> None:
    machine = read(plain(tmp_path), cpus=3)
    assert (machine.open_files, machine.processes, machine.cpus) == ((1024, 1048576), 62000, 3)
    assert (machine.memory_bytes, machine.available_bytes) == (16 * GIB, 15 * GIB)
    assert (machine.tcp_pages, machine.huge_pages, machine.kernel) == (20, "madvise", "6.1.0-30-amd64")
    assert machine.commit_left_bytes is None
    assert machine.sysctl("net.ipv4.ip_local_port_range", 1) == 60999
    assert machine.sysctl("net.ipv4.ip_local_port_range", 2) is machine.sysctl("no.such") is None


def test_strict_accounting_has_an_end(tmp_path: Path) -> None:
    assert read(plain(tmp_path, vm__overcommit_memory="2"), cpus=1).commit_left_bytes == 400 * 1024


def test_unlimited_is_a_number_that_never_binds(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/limits", limits("unlimited", "unlimited"))
    machine = read(tmp_path, cpus=1)
    assert (machine.open_files, machine.processes) == ((ENDLESS, ENDLESS), None)


@pytest.mark.parametrize(
    ("capabilities", "users", "processes"),
    [
        ("000001ffffffffff", "0 0 4294967295", None),
        ("0000000001000000", "0 0 4294967295", None),  # CAP_SYS_RESOURCE
        ("0000000000200000", "0 0 4294967295", None),  # CAP_SYS_ADMIN
        ("000001ffffffffff", "0 1000 1", 50),  # root of a user namespace of its own
        ("00000000a80425fb", "0 0 4294967295", 50),  # root in a container, as Docker starts it
        ("garbage", "0 0 4294967295", 50),
    ],
)
def test_a_limit_of_processes_holds_whoever_is_not_root_of_the_machine(
    tmp_path: Path, capabilities: str, users: str, processes: int | None
) -> None:
    write(tmp_path / "proc/self/limits", limits(processes=50))
    write(tmp_path / "proc/self/status", f"Name:\tx\nCapEff:\t{capabilities}\n")
    write(tmp_path / "proc/self/uid_map", f"         {users}\n")
    assert read(tmp_path, cpus=1).processes == processes


def test_settings_that_may_not_be_read_make_no_network_of_its_own(tmp_path: Path) -> None:
    file = plain(tmp_path) / "proc/sys/net/ipv4/tcp_mem"
    file.write_text("garbage\n")  # what may not be read, and root may read anything
    assert not read(tmp_path, cpus=1).has_own_network
    file.unlink()
    assert read(tmp_path, cpus=1).has_own_network


def test_files_that_tell_nothing_are_named(tmp_path: Path) -> None:
    write(plain(tmp_path) / "proc/meminfo", "")
    (tmp_path / "proc/self/limits").unlink()
    unknown = read(tmp_path, cpus=1).unknown
    assert unknown["/proc/meminfo"] == unknown["/proc/self/limits"] == "tells nothing"


def test_dropped_packets_are_those_of_all_cpus(tmp_path: Path) -> None:
    write(tmp_path / "proc/net/softnet_stat", "0000000a 0000000f 00000000\n0000000a 00000010 00000000\n")
    assert read(tmp_path, cpus=1).dropped_packets == 31
    assert read(tmp_path / "nothing", cpus=1).dropped_packets == 0


def test_files_full_of_garbage_do_no_harm(tmp_path: Path) -> None:
    for file in plain(tmp_path).rglob("*"):
        if file.is_file():
            file.write_text("\n: x :\n[]\n1 2 3 4 5 6 7\nTCP:\nMax open files\n0::\n")
    assert read(tmp_path, cpus=1).memory_bytes is None


def test_this_machine_can_be_read() -> None:
    machine = read(cpus=1)
    assert machine.open_files[1] >= machine.open_files[0] > 0
    assert machine.memory_bytes
