"""What the kernel spends on connections: memory that no process's PSS shows.

Four views of it, each with its blind spot:

- `slab`: the growth of Slab in /proc/meminfo. Everything that sockets, their files and inodes, epoll entries and time-wait
  entries take, but of the whole machine: both ends of a connection where the load runs here too, and what other programs did
  meanwhile. Half-empty slabs that were there before make it smaller than the truth.
- `caches`: the growth of the named slab caches (/proc/slabinfo, root only): the objects in use times their size, which no
  half-empty slab hides.
- `cgroup`: `sock` and `slab` of the server's cgroup (v2), where it is another than ours: its own end alone.
- `tcp_pages`: bytes in socket buffers (/proc/net/sockstat): nothing at rest.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path

from unlimitedws.memory import lines, path_of, table

CACHES = ("TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "eventpoll_epi", "eventpoll_pwq", "tw_sock_TCP", "request_sock_TCP")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Bytes at one moment; None where this kernel does not tell."""

    slab: int
    tcp_pages: int
    caches: dict[str, int] = field(default_factory=dict)
    cgroup: int | None = None

    def per_connection(self, before: Kernel, connections: int) -> dict[str, float | None]:
        """The growth since then for each connection, in bytes."""
        number = max(1, connections)
        names = self.caches.keys() & before.caches.keys()
        caches = sum(self.caches[name] - before.caches[name] for name in names) / number if names else None
        cgroup = (self.cgroup - before.cgroup) / number if self.cgroup is not None and before.cgroup is not None else None
        return {
            "slab": round((self.slab - before.slab) / number, 1),
            "caches": None if caches is None else round(caches, 1),
            "cgroup": None if cgroup is None else round(cgroup, 1),
            "tcp_pages": round((self.tcp_pages - before.tcp_pages) / number, 1),
        }


def read(pid: int = 0, root: Path = Path("/")) -> Kernel:
    """The state now. pid: of the server, where it runs here."""
    return Kernel(table(root / "proc/meminfo").get("Slab:", 0), tcp_pages(root), caches(root), cgroup(pid, root) if pid else None)


def tcp_pages(root: Path) -> int:
    for line in lines(root / "proc/net/sockstat"):
        words = line.split()
        if words[:1] == ["TCP:"]:
            return int(words[words.index("mem") + 1]) * resource.getpagesize()
    return 0


def caches(root: Path) -> dict[str, int]:
    """Bytes of the objects in use of each cache; none without the right to read them."""
    rows = (line.split() for line in lines(root / "proc/slabinfo")[2:])
    return {row[0]: int(row[1]) * int(row[3]) for row in rows if row[0] in CACHES}


def cgroup(pid: int, root: Path) -> int | None:
    """Kernel memory of the cgroup of a process; None where it is ours as well, or there is no cgroup v2."""
    theirs = [line.split(":", 2)[2] for line in lines(root / f"proc/{pid}/cgroup") if line.startswith("0::")]
    if not theirs or theirs[0] == path_of(root, "0::"):
        return None
    stat = table(root / "sys/fs/cgroup" / theirs[0].strip("/") / "memory.stat")
    return stat["slab"] + stat["sock"] if "slab" in stat and "sock" in stat else None
