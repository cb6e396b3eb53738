"""What the kernel says of a tree of processes, and of the connections to a port."""

from __future__ import annotations

from pathlib import Path

from unlimitedws.bench.server import tree

PROC = Path("/proc")
TABLES = (PROC / "net/tcp", PROC / "net/tcp6")
ESTABLISHED = "01"


def pss_bytes(root: int) -> int:
    """Proportional set size of a whole tree; 0 when it has ended."""
    lines = (line for pid in tree(root) for line in of(pid, "smaps_rollup").splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def cpu_ticks(root: int) -> int:
    """CPU time of a whole tree, in clock ticks."""
    statuses = (of(pid, "stat") for pid in tree(root))
    return sum(int(value) for status in statuses if status for value in status[status.rindex(")") :].split()[12:14])


def of(pid: int, name: str) -> str:
    """A file of a process; empty when it has ended."""
    try:
        return (PROC / str(pid) / name).read_text()
    except OSError:
        return ""


def connections_to(port: int) -> int:
    """Established connections on the server's side of a port."""
    wanted = f":{port:04X}"
    rows = (line.split() for table in TABLES if table.exists() for line in table.read_text().splitlines()[1:])
    return sum(row[3] == ESTABLISHED and row[1].endswith(wanted) for row in rows)
