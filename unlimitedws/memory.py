"""How much memory is in use, and how long processes wait for some: from /proc and the cgroups that hold this process.

Read as text from the kernel's files: no process of ours has to import psutil for two numbers a second. A cgroup's
page cache that nobody uses does not count, as the kernel gives it up before it kills anybody.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

UNLIMITED = 1 << 60
"""cgroup v1 says "no limit" by a number near 2**63."""


class Reading(NamedTuple):
    """used: the part of the memory in use, 0 to 1: of the machine or of a cgroup's limit, whichever is nearer to its end.
    stalled: the part of the last 10 s in which some process waited for memory; 0 where the kernel does not tell."""

    used: float
    stalled: float


class Limit(NamedTuple):
    """The files of one cgroup that has a memory limit, and what a line of its memory.stat that is given up is called."""

    limit: Path
    usage: Path
    stat: Path
    cache: str


class Memory:
    """Reads the machine under `root` ("/", or a folder that looks like it).

    Which cgroups hold this process is looked up once: they do not change while it runs; their limits may."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.limits = [*v2_limits(root), *v1_limits(root)]
        self.stalls = [*v2_stalls(root), root / "proc/pressure/memory"]

    def read(self) -> Reading:
        """The state now."""
        return Reading(max([machine(self.root), *map(used_of, self.limits)]), max(map(stalled, self.stalls)))

    def available_bytes(self) -> int | None:
        """What is left, of the machine's or of a cgroup's limit, whichever is less; None where the kernel does not tell."""
        machine = table(self.root / "proc/meminfo").get("MemAvailable:")
        known = [left for left in (machine, *map(left_of, self.limits)) if left is not None]
        return min(known, default=None)


def machine(root: Path) -> float:
    """The part of the machine's memory in use: what could not be had without swapping."""
    sizes = table(root / "proc/meminfo")
    total, available = sizes.get("MemTotal:", 0), sizes.get("MemAvailable:", 0)
    return 1 - available / total if total else 0.0


def used_of(cgroup: Limit) -> float:
    """The part of a cgroup's limit in use; 0 where it has none."""
    limit, left = number(cgroup.limit), left_of(cgroup)
    return 0.0 if not limit or left is None else (limit - left) / limit


def left_of(cgroup: Limit) -> int | None:
    """Bytes until a cgroup's limit; None where it has none."""
    limit, usage = number(cgroup.limit), number(cgroup.usage)
    if limit is None or usage is None or not 0 < limit < UNLIMITED:
        return None
    return limit - max(0, usage - table(cgroup.stat).get(cgroup.cache, 0))


def stalled(file: Path) -> float:
    """The part of the last 10 s, from a file of the kernel's pressure stall information (its `some` line)."""
    for line in lines(file):
        if line.startswith("some avg10="):
            return float(line.split()[1].partition("=")[2]) / 100
    return 0.0


def v2_limits(root: Path) -> list[Limit]:
    folders = ancestors(root, "sys/fs/cgroup", path_of(root, "0::"))
    return [Limit(at / "memory.max", at / "memory.current", at / "memory.stat", "inactive_file") for at in folders]


def v1_limits(root: Path) -> list[Limit]:
    folders = ancestors(root, "sys/fs/cgroup/memory", path_of(root, ":memory:"))
    return [Limit(at / "memory.limit_in_bytes", at / "memory.usage_in_bytes", at / "memory.stat", "total_inactive_file") for at in folders]


def v2_stalls(root: Path) -> list[Path]:
    return [at / "memory.pressure" for at in ancestors(root, "sys/fs/cgroup", path_of(root, "0::"))]


def path_of(root: Path, which: str) -> str | None:
    """This process's cgroup in the hierarchy whose line of /proc/self/cgroup contains `which`, as ":" separates it."""
    for line in lines(root / "proc/self/cgroup"):
        if which in line:
            return line.split(":", 2)[2]
    return None


def ancestors(root: Path, mount: str, path: str | None) -> list[Path]:
    """The folders of a cgroup and of all that hold it, as far as they are to be seen here.

    In a container the path may be one of the host, which is not there: then the top is the container's own."""
    top = root / mount
    if path is None or ".." in path:
        return [top]
    at = top / path.strip("/")
    return [each for each in (at, *at.parents) if each.is_relative_to(top) and each.is_dir()]


def number(file: Path) -> int | None:
    text = "".join(lines(file))
    return int(text) if text.isdigit() else None  # "max": no limit


def table(file: Path) -> dict[str, int]:
    """Name to number of a file with lines of both; sizes in kB come as bytes."""
    rows = (line.split() for line in lines(file))
    return {row[0]: int(row[1]) * (1024 if row[2:] == ["kB"] else 1) for row in rows if len(row) >= 2 and row[1].isdigit()}


def lines(file: Path) -> list[str]:
    """A small file's lines; none where it cannot be read."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
