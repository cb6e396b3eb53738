"""The arithmetic of the tuning page is the doctor's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.doctor.conftest import judged
from tests.doctor.trees import CONNTRACK, GIB, build, plain
from unlimitedws import cost
from unlimitedws.config import DEFAULTS, Config
from unlimitedws.doctor import machine, slab
from unlimitedws.doctor.capacity import supervised
from unlimitedws.doctor.lines import lines
from unlimitedws.doctor.problems import PACKET_QUEUE

PAGE = (DOCS / "how-to/tune-for-many-connections.md").read_text()
SLAB_BYTES = 4037


def row(start: str) -> list[str]:
    """The cells of the first row of a table that starts so."""
    return [cell.strip() for cell in re.findall(rf"^\| {re.escape(start)}[^|]*\|(.*)\|$", PAGE, re.MULTILINE)[0].split("|")]


def test_the_kernels_part_is_the_sum_of_its_objects_and_near_what_the_code_says() -> None:
    cells = [row(start)[0] for start in ("`TCP`", "`sock_inode_cache`", "`filp`", "`eventpoll_epi`", "`lsm_inode_cache`")]
    assert sum(int(cell.replace(",", "")) for cell in cells) == SLAB_BYTES
    assert abs(SLAB_BYTES - cost.KERNEL_BYTES) < 0.02 * cost.KERNEL_BYTES
    assert slab.NEEDED == ("sock_inode_cache", "filp", "dentry", "eventpoll_epi")


@pytest.mark.parametrize(
    ("start", "each"), [("the kernel's slab", SLAB_BYTES), ("the same with TLS", cost.TLS_BYTES), ("once, while", cost.BUSY_BYTES)]
)
def test_the_bill_is_added_up_right(start: str, each: int) -> None:
    shown = [float(cell.split()[0]) for cell in row(start)[:3]]
    assert shown == [pytest.approx(number * each / GIB, rel=0.03) for number in (10**5, 10**6, 10**7)]


def test_the_rows_and_the_heartbeats_are_what_the_code_says() -> None:
    assert row("rows of the workers")[3] == f"{cost.ROW_BYTES['native']} bytes"
    assert [cell.split()[0] for cell in row("heartbeats")[:3]] == ["5%", "52%", "5.2"]
    assert 10**6 * cost.PING_S / DEFAULTS["ping_interval_s"] == pytest.approx(0.52)


def advised(root: Path, wanted: int, workers: int, memory: int) -> dict[str, list[str]]:
    here = build(plain(root, memory=memory, hard=1024), {}, CONNTRACK)
    return lines(judged(here, Config(workers=workers), wanted, cpus=8).changes)


@pytest.mark.parametrize(("wanted", "workers", "column"), [(10**5, 2, 0), (10**6, 2, 1), (10**7, 8, 2)])
def test_the_limits_of_open_files_are_those_that_are_advised(tmp_path: Path, wanted: int, workers: int, column: int) -> None:
    number = row("descriptors, with")[column].split()[0].replace(",", "")
    assert f"LimitNOFILE={number}" in advised(tmp_path, wanted, workers, 128 * GIB)["systemd"]


def test_the_lines_for_ten_million_are_those_that_are_printed(tmp_path: Path) -> None:
    block = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[-1]
    shown = [line.partition("#")[0].strip() for line in block.splitlines()]
    printed = advised(tmp_path, 10**7, 8, 128 * GIB)
    assert shown[:1] == printed["systemd"]
    sysctls = {line for line in printed["sysctl"] if not line.startswith("#")}
    assert sysctls - set(shown) <= {"net.ipv4.tcp_migrate_req = 1", "net.ipv4.tcp_max_orphans = 131072"}
    assert set(shown[1:-1]) <= sysctls
    assert f'{shown[-1]}"' in printed["boot"][0]


def test_the_workers_that_a_supervisor_has_files_for_are_as_many_as_is_said(tmp_path: Path) -> None:
    here = machine.read(plain(tmp_path, hard=1024), cpus=1)
    assert f"with a limit of 1,024 there can be {supervised(here, 1)} workers" in PAGE


def test_the_line_for_busy_cpus_is_the_one_that_is_printed() -> None:
    assert f"    net.core.netdev_max_backlog = {PACKET_QUEUE}\n" in PAGE
