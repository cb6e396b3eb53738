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
    found = []
    for files in (*memory.v2_limits(root), *memory.v1_limits(root)):
        left = memory.left_of(files)
        if left is not None:
            limit = memory.number(files.limit) or 0
            found.append(Limit(shown(root, files.limit), limit, max(0, limit - left)))
    return tuple(found)


def process_limits(root: Path) -> tuple[Limit, ...]:
    """Processes and threads."""
    v2 = memory.ancestors(root, "sys/fs/cgroup", memory.path_of(root, "0::"))
    v1 = memory.ancestors(root, "sys/fs/cgroup/pids", memory.path_of(root, ":pids:"))
    found = []
    for folder in (*v2, *v1):
        limit, used = memory.number(folder / "pids.max"), memory.number(folder / "pids.current")
        if limit is not None:
            found.append(Limit(shown(root, folder / "pids.max"), limit, used or 0))
    return tuple(found)


def shown(root: Path, file: Path) -> str:
    return f"/{file.relative_to(root)}"
