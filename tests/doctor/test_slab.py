"""The kernel's own sizes, where it shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.trees import write
from unlimitedws import cost
from unlimitedws.doctor.slab import socket_bytes

HEAD = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables\n"
ROWS = {
    "TCP": (2368, 13, 8), "TCPv6": (2496, 11, 8), "sock_inode_cache": (832, 19, 4), "filp": (192, 21, 1), "dentry": (192, 21, 1),
    "eventpoll_epi": (128, 32, 1), "lsm_file_cache": (24, 170, 1),
}  # fmt: skip


def table(root: Path, *without: str) -> Path:
    rows = [
        f"{name:<20} 5 9 {size} {objects} {pages} : tunables 0 0 0\n"
        for name, (size, objects, pages) in ROWS.items()
        if name not in without
    ]
    write(root / "proc/slabinfo", HEAD + "".join(rows))
    return root


def test_the_objects_of_a_connection_are_added_up_with_what_their_pages_waste(tmp_path: Path) -> None:
    apart = 64 + 16 + 24.1  # what epoll needs besides, which is not in this table; the security module's is
    assert socket_bytes(table(tmp_path), v6=False) == round(32768 / 13 + 16384 / 19 + 2 * 4096 / 21 + 128 + apart)


def test_sockets_of_ipv6_listeners_are_larger(tmp_path: Path) -> None:
    v4, v6 = socket_bytes(table(tmp_path), v6=False), socket_bytes(tmp_path, v6=True)
    assert v4 is not None
    assert v6 is not None
    assert v6 - v4 == round(32768 / 11) - round(32768 / 13)


@pytest.mark.parametrize("name", ["TCP", "dentry", "filp"])
def test_a_table_that_lacks_a_part_tells_nothing(tmp_path: Path, name: str) -> None:
    assert socket_bytes(table(tmp_path, name), v6=False) is None
    assert socket_bytes(tmp_path / "nothing", v6=False) is None


def test_the_published_figure_is_near_that_of_this_kernel() -> None:
    found = socket_bytes(Path("/"), v6=False)
    if found is None:
        pytest.skip("/proc/slabinfo is root's, and of a kernel with SLUB: run the tests as root to compare the figure")
    assert 0.75 * cost.KERNEL_BYTES < found < 1.25 * cost.KERNEL_BYTES
