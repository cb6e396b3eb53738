"""Limits of the cgroups that hold this process, versions 1 and 2; of nested ones each, since the tightest binds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from unlimitedws import memory


class Limit(NamedTuple):
    """path: the file that sets it, as seen from here.  used: of it, now; of memory without the page cache that is given up."""

    path: str
    limit: int
    used: int

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)


def memory_limits(root: Path) -> tuple[Limit, ...]:
    """Bytes."""
    found = [*memory.v2_limits(root), *memory.v1_limits(root)]
    return tuple(limit_of(root, files) for files in found if memory.left_of(files) is not None)


def limit_of(root: Path, files: memory.Limit) -> Limit:
    """Of a cgroup that has a limit."""
    limit, left = memory.number(files.limit) or 0, memory.left_of(files) or 0
    return Limit(shown(root, files.limit), limit, max(0, limit - left))


def memory_highs(root: Path) -> tuple[Limit, ...]:
    """Bytes beyond which the kernel slows everybody down (memory.high, of version 2 alone)."""
    found = [files._replace(limit=files.limit.with_name("memory.high")) for files in memory.v2_limits(root)]
    return tuple(limit_of(root, files) for files in found if memory.left_of(files) is not None)


def process_limits(root: Path, ours: int = 0) -> tuple[Limit, ...]:
    """Processes and threads. ours: of those there now, how many do not count."""
    v2 = memory.ancestors(root, "sys/fs/cgroup", memory.path_of(root, "0::"))
    v1 = memory.ancestors(root, "sys/fs/cgroup/pids", memory.path_of(root, ":pids:"))
    found = []
    for folder in (*v2, *v1):
        limit, used = memory.number(folder / "pids.max"), memory.number(folder / "pids.current")
        if limit is not None:
            found.append(Limit(shown(root, folder / "pids.max"), limit, max(0, (used or 0) - ours)))
    return tuple(found)


def shown(root: Path, file: Path) -> str:
    return f"/{file.relative_to(root)}"
