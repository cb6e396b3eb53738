"""How many CPUs this process may really use: the affinity mask and the cgroup's quota.

`os.cpu_count()` counts the machine; in a container with half a CPU of a 64-core host, 64 workers
would spend their time waiting for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """CPUs of the affinity mask, fewer where a cgroup quota allows less (rounded up); at least 1."""
    cpus = len(os.sched_getaffinity(0))
    quota = cgroup_quota(cgroups, membership)
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


def cgroup_quota(cgroups: Path, membership: Path) -> float | None:
    """The tightest CPU quota of our cgroup and those above it, in CPUs; None where there is none."""
    quotas = [quota for folder in cgroup_folders(cgroups, membership) if (quota := quota_of(folder)) is not None]
    return min(quotas, default=None)


def cgroup_folders(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Every folder that may hold a CPU quota for us, in version 2 (`0::/path`) and 1 (`4:cpu,cpuacct:/path`).

    Inside a container the path is often the host's and not there: the root of the mount is then ours."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [cgroups, cgroups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [cgroups / controllers, cgroups / "cpu"]
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        yield from (root / part for root in roots for part in (inner, *inner.parents))


def quota_of(folder: Path) -> float | None:
    """The CPU quota that one cgroup folder sets, in CPUs; None where it sets none."""
    try:
        if (version_2 := folder / "cpu.max").exists():
            quota, period = version_2.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
