"""What the kernel spends on connections, from its files."""

from __future__ import annotations

import resource
from pathlib import Path

from unlimitedws.bench.kernel import Kernel, read

SLABINFO = """slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
TCP                  100    156   2368   13    8 : tunables    0    0    0 : slabdata     12     12      0
dentry              1000   2000    192   21    1 : tunables    0    0    0 : slabdata     96     96      0
kmalloc-64          5000   5000     64   64    1 : tunables    0    0    0 : slabdata     79     79      0
"""


def root(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_the_named_caches_count_by_their_objects_in_use(tmp_path: Path) -> None:
    at = root(tmp_path, proc__slabinfo=SLABINFO, proc__meminfo="MemTotal: 1 kB\nSlab:  2048 kB\n")
    found = read(root=at)
    assert found.caches == {"TCP": 100 * 2368, "dentry": 1000 * 192}
    assert found.slab == 2048 * 1024


def test_socket_buffers_come_from_sockstat(tmp_path: Path) -> None:
    at = root(tmp_path, proc__net__sockstat="sockets: used 4\nTCP: inuse 3 orphan 0 tw 0 alloc 3 mem 7\nUDP: inuse 0 mem 9\n")
    assert read(root=at).tcp_pages == 7 * resource.getpagesize()


def test_a_cgroup_of_the_servers_own_shows_its_end_alone(tmp_path: Path) -> None:
    stat = "anon 5\nslab 4000\nsock 300\n"
    at = root(tmp_path, proc__self__cgroup="0::/load\n", proc__7__cgroup="0::/server\n", sys__fs__cgroup__server__memory_stat="")
    (at / "sys/fs/cgroup/server/memory.stat").write_text(stat)
    assert read(7, root=at).cgroup == 4300
    (at / "proc/7/cgroup").write_text("0::/load\n")
    assert read(7, root=at).cgroup is None


def test_without_the_right_to_read_them_caches_are_unknown() -> None:
    grown = Kernel(9000, 0).per_connection(Kernel(1000, 0), 4)
    assert grown == {"slab": 2000.0, "caches": None, "cgroup": None, "tcp_pages": 0.0}


def test_growth_is_shared_out_among_the_connections() -> None:
    before, after = Kernel(0, 0, {"TCP": 100}, 50), Kernel(4000, 8, {"TCP": 2100, "filp": 5}, 850)
    assert after.per_connection(before, 2) == {"slab": 2000.0, "caches": 1000.0, "cgroup": 400.0, "tcp_pages": 4.0}


def test_this_machine_tells_something() -> None:
    assert read().slab > 0
