"""Usable CPUs: the affinity mask and every form of cgroup quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from unlimitedws.supervisor.cpus import cgroup_quota, usable_cpus


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    return tmp_path / "cgroups"


def test_without_a_cgroup_the_affinity_mask_counts(cgroups: Path, membership: Path) -> None:
    assert usable_cpus(cgroups, membership) == len(os.sched_getaffinity(0))


def test_a_narrow_affinity_mask_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_version_2_quota_is_read(cgroups: Path, membership: Path) -> None:
    membership.write_text("0::/app\n")
    write(cgroups / "app", cpu__max="150000 100000\n")
    assert cgroup_quota(cgroups, membership) == 1.5


def test_the_tightest_quota_of_all_parents_counts(cgroups: Path, membership: Path) -> None:
    membership.write_text("0::/slice/service/app\n")
    write(cgroups / "slice", cpu__max="50000 100000\n")
    write(cgroups / "slice" / "service", cpu__max="max 100000\n")
    write(cgroups / "slice" / "service" / "app", cpu__max="400000 100000\n")
    assert cgroup_quota(cgroups, membership) == 0.5


def test_in_a_container_the_root_of_the_mount_is_ours(cgroups: Path, membership: Path) -> None:
    membership.write_text("0::/docker/of/the/host\n")
    write(cgroups, cpu__max="200000 100000\n")
    assert cgroup_quota(cgroups, membership) == 2.0


def test_a_version_1_quota_is_read(cgroups: Path, membership: Path) -> None:
    membership.write_text("5:memory:/app\n4:cpu,cpuacct:/app\n0::/\n")
    write(cgroups / "cpu,cpuacct" / "app", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    assert cgroup_quota(cgroups, membership) == 3.0


@pytest.mark.parametrize("limit", ["max 100000\n", "\n", "a b\n", "1 0\n"])
def test_no_quota_or_one_that_cannot_be_read_limits_nothing(cgroups: Path, membership: Path, limit: str) -> None:
    membership.write_text("0::/\n")
    write(cgroups, cpu__max=limit)
    assert cgroup_quota(cgroups, membership) is None


def test_half_a_cpu_still_means_one_worker(cgroups: Path, membership: Path) -> None:
    membership.write_text("0::/\n")
    write(cgroups, cpu__max="50000 100000\n")
    assert usable_cpus(cgroups, membership) == 1
