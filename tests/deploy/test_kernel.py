"""The kernel settings: this kernel knows and takes them, each has its reason, and the numbers fit each other and ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, directives, read
from tests.deploy.programs import program
from unlimitedws.config import DEFAULTS

HOLDING, PROXY, LIMITS = "sysctl.d/80-unlimitedws.conf", "sysctl.d/81-unlimitedws-proxy.conf", "limits.d/80-unlimitedws.conf"
BOOT = "grub.d/80-unlimitedws.cfg"
MIB, GIB = 1 << 20, 1 << 30
PAGE = 4096
MACHINE_BYTES = 16 * GIB
CONNECTIONS = 1_000_000
TABLE_BYTES = 48
SLAB_BYTES = 4096


def values(name: str) -> dict[str, list[int]]:
    """The numbers of every key; the dash of those that may be missing left out."""
    return {
        key.removeprefix("-"): [int(number) for number in value.replace(",", " ").split()]
        for key, (value,) in directives(read(name)).items()
    }


def booted_with() -> dict[str, int]:
    """Parameters of the kernel, as the boot loader's configuration comes to have them."""
    script = 'GRUB_CMDLINE_LINUX=quiet; . "$1"; echo "$GRUB_CMDLINE_LINUX"'
    given = subprocess.check_output(["sh", "-c", script, "sh", DEPLOY / BOOT], text=True).split()
    assert given[0] == "quiet", "what was there before is kept"
    return {name: int(value) for name, _, value in (each.partition("=") for each in given[1:])}


def file_of(key: str) -> Path:
    return Path("/proc/sys", *key.split("."))


@pytest.mark.parametrize("name", [HOLDING, PROXY, LIMITS, BOOT])
def test_every_line_has_its_reason_above_it(name: str) -> None:
    lines = read(name).splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert lines[number - 1].startswith("# "), line


@pytest.mark.parametrize("name", [HOLDING, PROXY])
def test_the_kernel_knows_every_key(name: str) -> None:
    for key in directives(read(name)):
        assert key.startswith("-") or file_of(key).exists(), key


TAKES = """
for setting do
    file=/proc/sys/${setting%%=*}
    [ -w "$file" ] || continue
    echo "${setting#*=}" > "$file" || exit 1
    echo "${setting%%=*}=$(cat "$file")"
done
"""
"""In a network of its own, which has only the keys that are not the whole machine's."""


@pytest.mark.parametrize("name", [HOLDING, PROXY])
def test_the_kernel_takes_the_values(name: str) -> None:
    unshare = program("unshare")
    if os.geteuid() != 0 or subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a network of its own to try them in: root, and a container that may unshare (docker run --privileged)")
    given = {key.strip("-").replace(".", "/"): value for key, (value,) in directives(read(name)).items() if "net." in key}
    done = subprocess.run(
        [unshare, "--net", "sh", "-c", TAKES, "sh", *(f"{key}={value}" for key, value in given.items())],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "Read-only file system" in done.stderr:
        pytest.skip("/proc/sys is read-only here; try it in a container that is --privileged")
    assert done.returncode == 0, done.stderr
    taken = dict(line.replace("\t", " ").split("=") for line in done.stdout.splitlines())
    assert len(taken) >= 3
    for key, value in taken.items():
        assert value == given[key].replace("9000,9001", "9000-9001"), key  # the kernel writes neighbours as a range


def test_the_bill_of_the_file_is_added_up_right() -> None:
    text = read(HOLDING)
    assert f"#   {CONNECTIONS * SLAB_BYTES / GIB:.1f}   the kernel's slab" in text
    assert f"#   {CONNECTIONS * TABLE_BYTES / GIB:.2f}  the server's table, {TABLE_BYTES} bytes" in text
    low, pressure, most = (pages * PAGE for pages in values(HOLDING)["net.ipv4.tcp_mem"])
    assert (low, pressure, most) == (3 * GIB, 4 * GIB, 6 * GIB)
    broadcast = CONNECTIONS * PAGE
    assert pressure >= broadcast, "a page for each connection must fit below the pressure"
    assert CONNECTIONS * (SLAB_BYTES + TABLE_BYTES) + most < 0.75 * MACHINE_BYTES


def test_one_socket_cannot_hold_more_than_a_mebibyte_of_the_kernel() -> None:
    for key in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        assert values(HOLDING)[key][2] == MIB
    assert values(HOLDING)["net.ipv4.tcp_wmem"][2] <= DEFAULTS["queue_bytes"]


def test_queues_of_the_kernel_are_no_shorter_than_ours() -> None:
    for key in ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"):
        assert values(HOLDING)[key][0] >= DEFAULTS["backlog"]


def test_the_hash_has_a_chain_for_each_connection() -> None:
    chains = booted_with()["thash_entries"]
    assert chains >= CONNECTIONS
    assert f"{chains * 8 // MIB} MiB in all" in read(BOOT)
    assert f"{MACHINE_BYTES >> 17:,} on a machine of 16 GiB" in read(BOOT)
    assert f"--args=thash_entries={chains}\n" in read(BOOT)
    assert values(HOLDING)["net.netfilter.nf_conntrack_buckets"] == values(HOLDING)["net.netfilter.nf_conntrack_max"]


def test_limits_of_descriptors_fit_into_each_other() -> None:
    (unit,) = directives(read("systemd/unlimitedws.service"))["LimitNOFILE"]
    login = read(LIMITS).split()[-1]
    assert login == unit
    assert int(unit) <= values(HOLDING)["fs.nr_open"][0] <= values(HOLDING)["fs.file-max"][0]
    assert int(unit) > CONNECTIONS


def test_the_proxys_ports_are_as_many_as_everybody_says() -> None:
    first, last = values(PROXY)["net.ipv4.ip_local_port_range"]
    assert f"{last - first + 1:,}" == "64,512"
    assert f"{60999 - 32768 + 1:,}" in read(PROXY)
    for name in ("proxy/haproxy.cfg", "proxy/nginx.conf", "proxy/Caddyfile", "proxy/envoy.yaml"):
        assert "takes 64,512 connections from one address" in read(name)


def test_ports_that_we_listen_on_are_kept_out_of_that_range() -> None:
    assert {DEFAULTS["port"], DEFAULTS["admin_port"], 9001} <= set(values(PROXY)["net.ipv4.ip_local_reserved_ports"])
