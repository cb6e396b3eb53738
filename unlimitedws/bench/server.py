"""What the server's processes use: memory and CPU of a process and all its descendants, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unlimitedws.errors import BenchError
from unlimitedws.memory import lines, table

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, of all processes. A shared page counts in parts (PSS), so that the sum is what is really used."""

    pss: int
    rss: int
    processes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in ns of each process, and of the whole machine, at a time in ns. wait_ns: how long each has waited for a CPU."""

    at_ns: int
    cpu_ns: dict[int, int]
    machine_ns: int = 0
    wait_ns: dict[int, int] = field(default_factory=dict)

    def since(self, before: Usage) -> dict[int, float]:
        """Cores that each process used in between: 1.0 is a whole one. A process that is new counts from its beginning."""
        return self.each(self.cpu_ns, before.cpu_ns, before.at_ns)

    def waits_since(self, before: Usage) -> dict[int, float]:
        """Cores that each process could have used more, had they been free."""
        return self.each(self.wait_ns, before.wait_ns, before.at_ns)

    def each(self, now: dict[int, int], then: dict[int, int], since_ns: int) -> dict[int, float]:
        lasted = max(1, self.at_ns - since_ns)
        return {pid: (ns - then.get(pid, 0)) / lasted for pid, ns in now.items()}

    def machine_since(self, before: Usage) -> float:
        """Cores that the whole machine used in between."""
        return (self.machine_ns - before.machine_ns) / max(1, self.at_ns - before.at_ns)


class Server:
    """The processes under `pid`. Raises BenchError when there is none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.doubt = ""  #: why it may be another than the server that is loaded
        if not (PROC / str(pid)).exists():
            raise BenchError(f"--pid {pid}: there is no such process here")
        if not self.is_there():
            raise BenchError(f"--pid {pid}: its memory may not be read; run bench as the user of the server, or as root")

    def is_there(self) -> bool:
        """Whether its root process has not ended."""
        return bool(table(PROC / str(self.pid) / "smaps_rollup"))  # a zombie's is empty

    def memory(self) -> Memory | None:
        """What it uses now; None when it has ended."""
        sizes = [table(PROC / str(pid) / "smaps_rollup") for pid in tree(self.pid)]
        there = [size for size in sizes if size]
        return Memory(sum(size["Pss:"] for size in there), sum(size["Rss:"] for size in there), len(there)) if there else None

    def usage(self) -> Usage:
        return usage(tree(self.pid))


def usage(pids: list[int]) -> Usage:
    used = {pid: ns for pid in pids if (ns := cpu_ns(pid)) is not None}
    return Usage(time.monotonic_ns(), used, busy_ns(), {pid: wait_ns(pid) for pid in used})


def cpu_ns(pid: int) -> int | None:
    """CPU time of a process, exactly: by its clock (clock_getcpuclockid(3), which Python lacks); None when it has ended."""
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return None


def wait_ns(pid: int) -> int:
    """How long the first thread of a process has been ready to run and had no CPU; 0 where this kernel does not tell."""
    words = lines(PROC / str(pid) / "schedstat")
    return int(words[0].split()[1]) if words else 0


def busy_ns() -> int:
    """CPU time of everything on this machine so far, to a clock tick."""
    user, nice, system, _, _, irq, softirq = map(int, (PROC / "stat").read_text().split(None, 8)[1:8])
    return (user + nice + system + irq + softirq) * 10**9 // os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def parents() -> Iterator[tuple[int, int]]:
    """(pid, its parent) of every process."""
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            yield int(entry.name), int(status[status.rindex(")") :].split()[2])
