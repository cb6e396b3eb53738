"""What this kernel's own objects for a connection take: from /proc/slabinfo, which only root may read."""

from __future__ import annotations

from pathlib import Path

from unlimitedws.memory import lines

PAGE = 4096

NEEDED = ("sock_inode_cache", "filp", "dentry", "eventpoll_epi")
"""One of each for a connection; the socket itself is of `TCP` or `TCPv6`."""
WHERE_KEPT_APART = {"eventpoll_pwq": 64, "ep_head": 16, "lsm_inode_cache": 0, "lsm_file_cache": 0}
"""The same, with what it takes where the kernel does not keep it apart: it merges caches of equal objects; some have no security module."""


def socket_bytes(root: Path, *, v6: bool) -> int | None:
    """Bytes of slab for the server's end of an idle connection; None where the kernel does not tell.

    v6: it came by an IPv6 listener, which makes larger sockets, for IPv4 peers as well."""
    sizes = {}
    for line in lines(root / "proc/slabinfo"):
        columns = line.split()
        if len(columns) > 5 and columns[4].isdigit() and int(columns[4]):
            objects, pages = int(columns[4]), int(columns[5])
            sizes[columns[0]] = pages * PAGE / objects
    wanted = ["TCPv6" if v6 else "TCP", *NEEDED]
    if not all(name in sizes for name in wanted):
        return None
    return round(sum(sizes[name] for name in wanted) + sum(sizes.get(name, size) for name, size in WHERE_KEPT_APART.items()))
